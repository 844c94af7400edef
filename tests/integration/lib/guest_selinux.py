# SPDX-License-Identifier: Apache-2.0
"""A service of a guest of lib.qemu, where systemd has started modelcached and SELinux enforces: containers of the real runc
read volumes.  What was seen goes to the second serial line, as in lib.guest; test_soak_selinux.py judges it."""
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# pylint: disable=wrong-import-position
from lib.csi import CsiClient
from lib.guest import mounts, power_off, report

UNIT = "modelcached"
STORE, PLAIN, DAEMONSET = "/var/lib/modelcached", "/var/lib/modelcached-plain", "/var/lib/modelcached-daemonset"
CONTENT = ("ingest", "objects", "partial", "trees")
CONFIG = "/usr/local/etc/modelcached/config.yaml"
KUBELET = "/var/lib/kubelet"
PODS = f"{KUBELET}/pods"
PROGRAMS = ("/usr/local/bin/modelcached", "/usr/local/libexec/modelcached/modelcached-pull")
REGISTRY = "127.0.0.1:5000/team"
BACKGROUND, BYTES_FIRST = 2 << 20, 4 << 20  # bytes per second of a pull that is broken off; bytes until then
CONTAINERS = "/var/lib/containers"
CATEGORIES = "s0:c1,c2"
CAPABILITIES = ["CAP_CHOWN", "CAP_FOWNER", "CAP_KILL"]
# What a process in the container can do with the volume $1, and with /copy, where only the label is in its way.
PROBE = """exec >/out/log 2>&1
tell() {
    if "$@" 2>/tmp/error; then echo "can $1"; else echo "cannot $1: $(sed 's/.*: //' /tmp/error)"; fi
}
append() { echo x >>"$1"; }
see() { cat "$1" >/dev/null; }
echo "context $(cat /proc/self/attr/current)"
tell see "$1/config.json"
find "$1" -type f -exec sha256sum {} + 2>/dev/null | while read -r sum file; do echo "file $sum ${file#"$1"/}"; done
find "$1" -type l 2>/dev/null | while read -r link; do echo "link $(readlink "$link") ${link#"$1"/}"; done
tell touch "$1/new"
tell append /copy/config.json
tell chmod 600 /copy/config.json
tell mkdir /copy/new
tell mv /copy/config.json /copy/moved
tell rm /copy/tokenizer.json
"""


def run(*argv, check=True):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}{done.stdout}"
    return done


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def label_of(path):
    return os.getxattr(path, "security.selinux", follow_symlinks=False).decode().rstrip("\0")


def labels(store=STORE):
    """{label: how many have it}, of the content and of the rest."""
    found = {"content": {}, "rest": {}}
    for folder, names, files in os.walk(store):
        for path in (os.path.join(folder, name) for name in names + files):
            kind = found["content" if os.path.relpath(path, store).split("/")[0] in CONTENT else "rest"]
            kind[label_of(path)] = kind.get(label_of(path), 0) + 1
    return found


def denials(of=":container_t:"):
    """What SELinux denied to containers since the boot, or to others."""
    return [line for line in run("dmesg").stdout.splitlines() if "avc:  denied" in line and of in line]


def show():
    return dict(line.split("=", 1) for line in run("systemctl", "show", UNIT).stdout.splitlines())


def log():
    """The daemon's lines since it was started.  (The policy lets no service use journalctl.)"""
    text = run("systemctl", "status", "--no-pager", "--full", "--lines=1000", "--output=cat", UNIT).stdout
    return text.split("\n\n", 1)[1].splitlines()


def configure(old, new):
    text = read(CONFIG)
    assert old in text, f"{CONFIG} has no {old}"
    with open(CONFIG, "w", encoding="utf-8") as file:
        file.write(text.replace(old, new))


def status():
    return json.loads(run("cache-ctl", "--output", "json", "status").stdout)


def bind(source, destination=None, how="rslave"):
    return {"type": "bind", "options": ["rbind", how], "source": source, "destination": destination or source}


class Bundle:
    """Of runc: a root with a type of containers, as a runtime makes it."""

    def __init__(self, name, level, folders):
        self.name, self.level, self.folder = name, level, os.path.join(CONTAINERS, name)
        self.root = os.path.join(self.folder, "rootfs")
        for path in ("dev", "proc", "tmp", *folders):
            os.makedirs(os.path.join(self.root, path.lstrip("/")))

    def label(self, *paths):
        """When all is in it."""
        run("restorecon", "-R", self.folder)
        run("chcon", "-R", f"system_u:object_r:container_file_t:{self.level}", self.root, *paths)
        run("mount", "--bind", self.root, self.root)

    def run(self, domain, process, mounts_, *options, propagation="rslave"):
        config = {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
                        "args": process["args"], "selinuxLabel": f"system_u:system_r:{domain}:{self.level}",
                        "capabilities": {kind: process["capabilities"] for kind in ("bounding", "effective", "permitted")}},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}, *mounts_],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts")],
                      "rootfsPropagation": propagation,
                      "mountLabel": f"system_u:object_r:container_file_t:{self.level}"}}
        with open(os.path.join(self.folder, "config.json"), "w", encoding="ascii") as file:
            json.dump(config, file)
        with open(os.path.join(self.folder, "rootfs/log"), "w", encoding="ascii") as file:
            return subprocess.run(["runc", "run", "--bundle", self.folder, *options, self.name], stdin=subprocess.DEVNULL,
                                  stdout=file, stderr=file, check=False).returncode

    def log(self):
        return read(os.path.join(self.folder, "rootfs/log"))


class Reader:
    """A pod's container that looks at volumes."""

    def __init__(self):
        self.bundle = Bundle("reader", CATEGORIES, ("bin", "copy", "model", "out"))
        root = self.bundle.root
        run("cp", "/bin/busybox", os.path.join(root, "bin"))
        for name in ("cat", "chmod", "find", "mkdir", "mv", "readlink", "rm", "sed", "sh", "sha256sum", "touch"):
            os.symlink("busybox", os.path.join(root, "bin", name))
        with open(os.path.join(root, "probe"), "w", encoding="ascii") as file:
            file.write(PROBE)
        self.copied, self.out = (os.path.join(self.bundle.folder, name) for name in ("copy", "out"))
        os.makedirs(self.copied)
        os.makedirs(self.out)
        self.bundle.label(self.out)

    def copy(self, folder):
        """/copy becomes one of the folder, with its labels; who may write in it is said by these alone."""
        run("rm", "-r", self.copied)
        run("cp", "-a", folder, self.copied)
        run("chmod", "-R", "a+rwX", self.copied)

    def look(self, source, beneath=""):
        """Mounts `source` in a container and has a process in it look at what is beneath: what it wrote, and what SELinux
        denied."""
        written, before = os.path.join(self.out, "log"), len(denials())
        if os.path.exists(written):
            os.unlink(written)
        process = {"args": ["/bin/sh", "/probe", f"/model{beneath}"], "capabilities": CAPABILITIES}
        code = self.bundle.run("container_t", process, [bind(self.out, "/out"), bind(self.copied, "/copy"),
                                                        bind(source, "/model")])
        return {"code": code, "stderr": self.bundle.log(), "denials": denials()[before:],
                "lines": read(written).splitlines() if os.path.exists(written) else []}


class DaemonSet:
    """The daemon in a container with the mounts of the DaemonSet's, and the process label of privileged ones."""

    FOLDERS = (DAEMONSET, f"{KUBELET}/plugins", f"{KUBELET}/plugins_registry", "/run/modelcached", os.path.dirname(CONFIG))

    def __init__(self):
        self.bundle = Bundle("daemonset", "s0", (PODS, *self.FOLDERS))
        libraries = set(re.findall(r"(/\S+) \(0x", run("ldd", *PROGRAMS).stdout))
        run("cp", "--dereference", "--parents", *PROGRAMS, *libraries, self.bundle.root)
        self.bundle.label()

    def start(self, capabilities):
        process = {"args": [PROGRAMS[0], "--config", CONFIG], "capabilities": capabilities}
        code = self.bundle.run("spc_t", process, [*(bind(path) for path in self.FOLDERS), bind(PODS, how="rshared")],
                               "--detach", propagation="rshared")
        assert code == 0, self.bundle.log()

    def context(self):
        pid = json.loads(run("runc", "state", self.bundle.name).stdout)["pid"]
        return read(f"/proc/{pid}/attr/current").rstrip("\0\n")


class Scene:
    """The steps, in the order in which they stand here."""

    def __init__(self):
        self.reader = Reader()
        self.targets = {}

    def publish(self, name, artifact):
        parent = f"{PODS}/{name}/volumes/kubernetes.io~csi/model"
        os.makedirs(parent, 0o750)
        self.targets[name] = parent + "/mount"
        with CsiClient("/var/lib/kubelet/plugins/csi.modelcached.dev/csi.sock") as csi:
            csi.publish(name, self.targets[name], f"{REGISTRY}/{artifact}:v1", rpc_seconds=60)

    def look(self, name):
        """The volume mounted in a container, as runtimes do."""
        return self.reader.look(self.targets[name])

    def look_through(self, name):
        """A container with the folder of all volumes: its runtime need not touch the volume itself."""
        return self.reader.look(PODS, self.targets[name].removeprefix(PODS))

    def step_boot(self):
        while run("systemctl", "is-system-running", check=False).stdout.strip() == "starting":
            time.sleep(0.2)
        pid = show()["MainPID"]
        return {"release": os.uname().release, "enforcing": read("/sys/fs/selinux/enforce"), "log": log(),
                "failed": run("systemctl", "--failed", "--plain", "--no-legend").stdout,
                "context": read(f"/proc/{pid}/attr/current").rstrip("\0\n"), "limits": read(f"/proc/{pid}/limits"),
                "capabilities": next(line for line in read(f"/proc/{pid}/status").splitlines() if "CapBnd" in line),
                "features": status()["features"], "labels": labels()}

    def step_publish(self):
        with subprocess.Popen(["unshare", "--mount", "--propagation", "slave", "sleep", "infinity"]) as other:
            time.sleep(1)
            self.publish("model", "model")
            seen = {"here": mounts(PODS), "other": mounts(PODS, other.pid), "target": self.targets["model"]}
            other.kill()
        return {**seen, "labels": labels()}

    def step_read(self):
        self.reader.copy(self.targets["model"])
        return {"look": self.look("model"), "through": self.look_through("model")}

    def step_later(self):
        self.publish("later", "later")
        return {"labels": labels(), "look": self.look("later")}

    def step_restart(self):
        run("systemctl", "restart", UNIT)
        os.kill(int(show()["MainPID"]), signal.SIGKILL)
        while not {("ActiveState", "active"), ("NRestarts", "1")} <= show().items():
            time.sleep(0.2)
        return {"log": log(), "labels": labels(), "look": self.look("model")}

    def step_broken_off(self):
        """A pull that the end of the daemon breaks off."""
        configure("background_bandwidth: 0 ", f"background_bandwidth: {BACKGROUND} ")
        run("systemctl", "restart", UNIT)
        with subprocess.Popen(["cache-ctl", "pull", "--quiet", "--background", f"{REGISTRY}/large:v1"]) as pulling:
            while sum(pull["bytes_done"] for pull in status()["pulls"]) < BYTES_FIRST:
                assert pulling.poll() is None, "the pull ended before it was broken off"
                time.sleep(0.2)
            run("systemctl", "stop", UNIT)
        return {"partial": os.listdir(os.path.join(STORE, "partial"))}

    def step_relabelled(self):
        """The system was relabelled by a policy that does not know of us."""
        run("restorecon", "-R", "-F", STORE)
        denied = {"labels": labels(), "look": self.look("model"), "through": self.look_through("model")}
        run("systemctl", "start", UNIT)
        return {"denied": denied, "labels": labels(), "log": log(), "look": self.look("model")}

    def step_gone_on_with(self):
        """What is left of the pull that was broken off."""
        self.publish("large", "large")
        events = run("cache-ctl", "--output", "json", "events").stdout.splitlines()
        [done] = [event["text"] for event in map(json.loads, events)
                  if event["type"] == "pull.done" and "/large:" in event["reference"]]
        return {"done": done, "labels": labels(), "look": self.look("large")}

    def step_told_the_policy(self):
        """As docs/deploy.md says."""
        run("semanage", "fcontext", "-a", "-t", "container_ro_file_t", f"{STORE}/({'|'.join(CONTENT)})(/.*)?")
        run("restorecon", "-R", "-F", STORE)
        return {"labels": labels(), "look": self.look("model")}

    def step_without_labels(self):
        configure(f"store: {{ path: {STORE} }}", f'store: {{ path: {PLAIN}, selinux_label: "" }}')
        run("systemctl", "restart", UNIT)
        self.publish("plain", "model")
        return {"labels": labels(PLAIN), "look": self.look("plain"), "through": self.look_through("plain")}

    def step_with_labels_again(self):
        """The content was there already, and is mounted."""
        configure(', selinux_label: ""', "")
        run("systemctl", "restart", UNIT)
        return {"labels": labels(PLAIN), "log": log(), "look": self.look("plain")}

    def step_daemonset(self):
        """As deployed in a cluster.  Debian's policy lets runtimes mount /var/lib into containers only where it is told to."""
        capabilities = show()["CapabilityBoundingSet"].upper().split()
        run("systemctl", "stop", UNIT)
        run("setsebool", "container_mounton_non_security", "1")
        configure(f"path: {PLAIN} ", f"path: {DAEMONSET} ")
        for path in DaemonSet.FOLDERS:
            os.makedirs(path, exist_ok=True)
        pod = DaemonSet()
        pod.start(capabilities)
        self.publish("daemonset", "model")
        seen = {"context": pod.context(), "log": pod.bundle.log(), "labels": labels(DAEMONSET), "look": self.look("daemonset")}
        run("runc", "delete", "--force", pod.bundle.name)
        return {**seen, "after": self.look("daemonset"), "denials": denials('comm="modelcached')}

    def step_permissive(self):
        """What the same process can do when SELinux only logs."""
        run("setenforce", "0")
        return {"look": self.look("plain")}


if __name__ == "__main__":
    report(Scene)
    power_off()
