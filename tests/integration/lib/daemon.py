# SPDX-License-Identifier: Apache-2.0
"""The daemon under test as a child: its config, start, stop, kill, log, store and commands."""
import collections
import contextlib
import json
import os
import signal
import socket
import subprocess

from lib.csi import CsiClient
from lib.sandbox import Process, children, memory_bytes, wait_for

CtlResult = collections.namedtuple("CtlResult", "code stdout stderr")


def to_yaml(value, indent=0):
    """Block style for mappings and lists of mappings, JSON (which YAML includes) for the rest."""
    pad, lines = " " * indent, []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            lines.append(f"{pad}{key}:\n{to_yaml(item, indent + 2)}")
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            lines.append(f"{pad}{key}:\n")
            for entry in item:
                flow = ", ".join(f"{k}: {json.dumps(v)}" for k, v in entry.items())
                lines.append(f"{pad}  - {{ {flow} }}\n")
        else:
            lines.append(f"{pad}{key}: {json.dumps(item)}\n")
    return "".join(lines)


def merged(base, more):
    """`base` with the nested keys of `more` over it."""
    result = dict(base)
    for key, value in more.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return result


def program(name, release=False):
    """The path of one of our programs in the build under test (or in the release build); None: not there."""
    folder = os.environ.get("MC_RELEASE_BIN" if release else "MC_BIN")
    path = os.path.join(folder, name) if folder else None
    return path if path and os.access(path, os.X_OK) else None


def with_daemon_script(folder, script, release=False):
    """Makes `folder` one with our programs, for MC_BIN (or MC_RELEASE_BIN), in which modelcached is a shell script: there
    "$real" is the path of the real one."""
    real = os.environ["MC_RELEASE_BIN" if release else "MC_BIN"]
    os.makedirs(folder)
    for name in os.listdir(real):
        if name != "modelcached":
            os.symlink(os.path.join(real, name), os.path.join(folder, name))
    path = os.path.join(folder, "modelcached")
    with open(path, "w", encoding="ascii") as file:
        file.write(f"#!/bin/sh\nset -e\nreal={real}/modelcached\n{script}\n")
    os.chmod(path, 0o755)


class Daemon:
    """A daemon on a temporary store beneath `folder`.

    registries: entries of the config, as Registry.config() gives; config: more keys (nested) over ours; store:
    another place for the store; arguments: more of them; env: more of it; release: run the release build; no_uring:
    io_uring is refused to it and its workers."""

    # pylint: disable-next=too-many-arguments
    def __init__(self, folder, registries=(), config=None, store=None, arguments=(), env=None, release=False,
                 no_uring=False):
        self.folder, self.arguments, self.release, self.no_uring = folder, list(arguments), release, no_uring
        self.env = {**os.environ, **(env or {})}
        self.store = store or os.path.join(folder, "store")
        self.kubelet_dir = os.path.join(folder, "kubelet")
        self.csi_socket = os.path.join(folder, "csi.sock")
        self.control_socket = os.path.join(folder, "control.sock")
        self.config_file = os.path.join(folder, "config.yaml")
        self.log_path = os.path.join(folder, "daemon.log")
        for path in (folder, os.path.join(self.kubelet_dir, "pods")):
            os.makedirs(path, exist_ok=True)
        self.config = merged({
            "node": "test-node",
            "store": {"path": self.store},
            "csi": {"endpoint": f"unix://{self.csi_socket}", "kubelet_dir": self.kubelet_dir,
                    "registration_dir": ""},
            "control": {"socket": self.control_socket},
            "metrics": {"address": ""},
            "pull": {"give_up": "3s"},  # a test of a registry that is down does not wait a minute
            "registries": list(registries),
            "log": {"level": "debug", "format": "json"},
        }, config or {})
        self.process = self._csi = None

    def write_config(self):
        with open(self.config_file, "w", encoding="utf-8") as file:
            file.write(to_yaml(self.config))

    def launch(self, **env):
        """Starts it and waits for nothing."""
        path = program("modelcached", self.release)
        if not path:
            raise RuntimeError("modelcached is not built")
        self.write_config()
        self.process = Process([path, "--config", self.config_file, *self.arguments], self.log_path,
                               {**self.env, **env}, no_uring=self.no_uring)

    def start(self, seconds=30):
        """Starts it and waits for READY=1; returns self.  Raises with its log when it ends before."""
        notify = os.path.join(self.folder, "notify.sock")
        if os.path.exists(notify):
            os.unlink(notify)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.bind(notify)
            sock.setblocking(False)
            self.launch(NOTIFY_SOCKET=notify)

            def ready():
                self.process.check_alive()
                try:
                    return b"READY=1" in sock.recv(4096)
                except BlockingIOError:
                    return False

            try:
                wait_for(ready, "READY=1 of modelcached", seconds, 0.005)
            except TimeoutError as error:
                raise TimeoutError(f"{error}; its log ends:\n{self.log()[-4000:]}") from None
        return self

    def run_to_end(self, *arguments, seconds=30):
        """Runs the daemon's program for a start that is to fail or to end at once: CtlResult."""
        self.write_config()
        return run([program("modelcached", self.release), "--config", self.config_file, *self.arguments,
                    *arguments], seconds, self.env)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process is not None and self.process.alive()

    def stop(self, seconds=30):
        """SIGTERM; returns the exit code (0 expected: ASan reports leaks by another)."""
        self._close_csi()
        return self.process.stop(signal.SIGTERM, seconds)

    def stop_clean(self):
        """stop(), and fails with the log when the exit code is not 0."""
        code = self.stop()
        assert code == 0, f"modelcached ended with {code}:\n{self.log()[-4000:]}"

    def kill9(self):
        """SIGKILL; mounts stay."""
        self._close_csi()
        self.process.stop(signal.SIGKILL)

    def restart(self):
        """Stops it, if it runs, and starts it on the same store."""
        if self.alive():
            self.stop_clean()
        return self.start()

    def close(self):
        """For teardown; the fixture unmounts and removes the folder."""
        if self.process:
            self.stop()

    def _close_csi(self):
        if self._csi:
            self._csi.close()
            self._csi = None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def csi(self):
        """A CsiClient, the same until the daemon is stopped."""
        self._csi = self._csi or CsiClient(self.csi_socket)
        return self._csi

    def target(self, name="pod"):
        """A target path beneath the kubelet's folder, with its parent made as the kubelet does."""
        parent = os.path.join(self.kubelet_dir, "pods", name, "volumes/kubernetes.io~csi/model")
        os.makedirs(parent, 0o750, exist_ok=True)
        return os.path.join(parent, "mount")

    def ctl(self, *arguments, seconds=120, env=None):
        """Runs cache-ctl on our socket: (code, stdout, stderr)."""
        path = program("cache-ctl", self.release)
        return run([path, "--socket", self.control_socket, *arguments], seconds, {**self.env, **(env or {})})

    def ctl_json(self, *arguments, seconds=120):
        """Runs `cache-ctl --output json`, which has to succeed; the parsed document."""
        result = self.ctl("--output", "json", *arguments, seconds=seconds)
        assert result.code == 0, f"cache-ctl {' '.join(arguments)}: {result}"
        return json.loads(result.stdout)

    def _pull_processes(self):
        """{pid: what its descriptors are} of those that pull, or stand by for a pull."""
        found = {}
        for pid in children(self.pid):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    if b"modelcached-pull" in file.read().split(b"\0")[0]:
                        found[pid] = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
            except (FileNotFoundError, ProcessLookupError):
                pass
        return found

    def worker_pids(self):
        """The pull workers that have a folder to write to."""
        return [pid for pid, names in self._pull_processes().items() if any("/ingest/" in name for name in names)]

    def standby_pids(self):
        """The others, but for those that have done their pull and are ending: they wait for a job."""
        return [pid for pid, names in self._pull_processes().items()
                if not any("/ingest/" in name for name in names) and memory_bytes(pid)]

    def memory(self, field="VmRSS"):
        """RSS (VmHWM: peak) of the daemon and of all that pull or stand by together, in bytes."""
        return sum(memory_bytes(pid, field) for pid in [self.pid, *self._pull_processes()])

    def in_ingest(self):
        """What lies in the store's ingest/ now."""
        path = os.path.join(self.store, "ingest")
        return sorted(os.listdir(path)) if os.path.isdir(path) else []

    def left_in_ingest(self):
        """What stays there: a pull that went well is over before its folder is gone."""
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: not self.in_ingest(), "an empty ingest/", 2)
        return self.in_ingest()

    def disk_bytes(self):
        """What the store's files take on disk, a hard link counted once (as du does)."""
        seen = {}
        for folder, names, files in os.walk(self.store):
            for name in names + files:
                st = os.lstat(os.path.join(folder, name))
                seen[st.st_dev, st.st_ino] = st.st_blocks * 512
        return sum(seen.values())


def run(argv, seconds=120, env=None):
    """Runs a program to its end: CtlResult."""
    done = subprocess.run([str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          errors="replace", timeout=seconds, env=env, check=False)
    return CtlResult(done.returncode, done.stdout, done.stderr)
