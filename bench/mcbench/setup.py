# SPDX-License-Identifier: Apache-2.0
"""Builds our programs and finds (or has Go install) those of the peers."""
import os
import re
import shlex
import shutil
import subprocess

SOURCE = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
CACHE = os.path.expanduser("~/.cache/modelcached-tests")
GO_MODULES = {
    "crane": ("github.com/google/go-containerregistry/cmd/crane@v0.22.1",),
    "oras": ("oras.land/oras/cmd/oras@v1.3.6",),
    "containerd2": ("github.com/containerd/containerd/v2/cmd/containerd@v2.4.2",
                    "github.com/containerd/containerd/v2/cmd/ctr@v2.4.2"),
}
C_FLAGS = ("-std=gnu17 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes "
           "-Wstrict-prototypes -Wwrite-strings -Wvla -Wformat=2 -Werror").split()
C_PROGRAMS = {"bound": "liburing libcrypto", "slow": ""}


def run(*argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: {shlex.join(argv)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def commit():
    """What is measured, "+" for changes on top; "unknown" outside of a git checkout."""
    done = subprocess.run(["git", "-C", SOURCE, "describe", "--always", "--dirty=+", "--exclude=*"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def build_programs():
    """The release build in build/release; returns its bin folder."""
    folder = os.path.join(SOURCE, "build/release")
    run("cmake", "--preset", "release", "-S", SOURCE)
    run("cmake", "--build", folder, "--target", "programs")
    return os.path.join(folder, "bin")


def build_helpers(folder):
    """Compiles our C helpers into the folder; returns {name: path}."""
    found = {}
    for name, packages in C_PROGRAMS.items():
        found[name] = os.path.join(folder, name)
        flags = shlex.split(run("pkg-config", "--cflags", "--libs", *packages.split())) if packages else []
        run("cc", *C_FLAGS, os.path.join(SOURCE, "bench", name + ".c"), "-o", found[name], *flags, "-lpthread")
    return found


def version_of(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r"v?(\d+\.\d+(\.\d+)?)", done.stdout + done.stderr)
    return found[1] if found else ""


def go_tool(name, programs, say):
    """The folder that has the programs, which Go installs into our cache when it is found; None with a word."""
    folder = os.path.join(CACHE, name) if len(programs) > 1 else CACHE
    if all(os.access(os.path.join(folder, p), os.X_OK) for p in programs):
        return folder
    if not shutil.which("go"):
        say(f"skipped: {name} (neither on PATH nor in {folder}, and no go to install it)")
        return None
    say(f"installing {name} with go into {folder} …")
    done = subprocess.run(["go", "install", *GO_MODULES[name]], cwd="/", env={**os.environ, "GOBIN": folder},
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        say(f"skipped: {name} (go install: {done.stderr.strip()[-300:]})")
        return None
    return folder


class Tools:
    """Where the peers' programs are; get(name) is None, said once, for those that are not there."""

    def __init__(self, say):
        self.say, self.known = say, {}

    def get(self, name):
        if name not in self.known:
            self.known[name] = self._find(name)
        return self.known[name]

    def _find(self, name):
        if name in ("crane", "oras"):
            path = shutil.which(name)
            folder = None if path else go_tool(name, [name], self.say)
            return path or (folder and os.path.join(folder, name))
        if name == "containerd2":
            if version_of(["containerd", "--version"]).startswith("2."):
                return os.path.dirname(shutil.which("containerd"))
            return go_tool(name, ["containerd", "ctr"], self.say)
        if name == "containerd":
            path = shutil.which("containerd")
            if path and version_of([path, "--version"]).startswith("1."):
                return os.path.dirname(path)
            self.say("skipped: containerd 1.x (not on PATH)")
            return None
        path = shutil.which(name)
        if not path:
            self.say(f"skipped: {name} (not on PATH; tools/install-deps bench)")
        return path


def machine():
    """What the figures were measured on."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"model name\s*:\s*(.*)", file.read())
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(re.search(r"MemTotal:\s*(\d+)", file.read())[1])
    return {"cpus": os.cpu_count(), "cpu": model[1].strip() if model else "", "kernel": os.uname().release,
            "memory_gib": round(memory / 2**20, 1), "load": os.getloadavg()[0]}
