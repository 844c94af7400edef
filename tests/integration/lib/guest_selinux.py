# SPDX-License-Identifier: Apache-2.0
"""A service of a guest of lib.qemu, where systemd has started modelcached and SELinux enforces: containers of the real runc
read volumes.  What was seen goes to the second serial line, as in lib.guest; test_soak_selinux.py judges it."""
import json
import os
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# pylint: disable=wrong-import-position
from lib.csi import CsiClient
from lib.guest import mounts, power_off, report

UNIT = "modelcached"
STORE, PLAIN = "/var/lib/modelcached", "/var/lib/modelcached-plain"
CONTENT = ("ingest", "objects", "partial", "trees")
CONFIG = "/usr/local/etc/modelcached/config.yaml"
PODS = "/var/lib/kubelet/pods"
REGISTRY = "127.0.0.1:5000/team"
BACKGROUND, BYTES_FIRST = 2 << 20, 4 << 20  # bytes per second of a pull that is broken off; bytes until then
CONTAINER = "/var/lib/containers/mc"
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


def denials():
    """Of containers, since the boot."""
    return [line for line in run("dmesg").stdout.splitlines() if "avc:  denied" in line and ":container_t:" in line]


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


class Container:
    """Of runc, with the process label and the root that a runtime gives to a pod's container."""

    def __init__(self):
        root = os.path.join(CONTAINER, "rootfs")
        for name in ("bin", "copy", "dev", "model", "out", "proc", "tmp"):
            os.makedirs(os.path.join(root, name))
        run("cp", "/bin/busybox", os.path.join(root, "bin"))
        for name in ("cat", "chmod", "find", "mkdir", "mv", "readlink", "rm", "sed", "sh", "sha256sum", "touch"):
            os.symlink("busybox", os.path.join(root, "bin", name))
        with open(os.path.join(root, "probe"), "w", encoding="ascii") as file:
            file.write(PROBE)
        for name in ("copy", "out"):
            os.makedirs(os.path.join(CONTAINER, name))
        run("restorecon", "-R", os.path.dirname(CONTAINER))
        run("chcon", "-R", f"system_u:object_r:container_file_t:{CATEGORIES}", root, os.path.join(CONTAINER, "out"))
        run("mount", "--bind", root, root)

    @staticmethod
    def copy(folder):
        """/copy becomes one of the folder, with its labels; who may write in it is said by these alone."""
        copy = os.path.join(CONTAINER, "copy")
        run("rm", "-r", copy)
        run("cp", "-a", folder, copy)
        run("chmod", "-R", "a+rwX", copy)

    def look(self, source, beneath=""):
        """Mounts `source` in a container and has a process in it look at what is beneath: what it wrote, and what SELinux
        denied."""
        bind = {"type": "bind", "options": ["rbind", "rslave"]}
        config = {
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "/probe", f"/model{beneath}"], "cwd": "/",
                        "env": ["PATH=/bin"], "noNewPrivileges": True,
                        "capabilities": {name: CAPABILITIES for name in ("bounding", "effective", "permitted")},
                        "selinuxLabel": f"system_u:system_r:container_t:{CATEGORIES}"},
            "root": {"path": "rootfs", "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                       {**bind, "destination": "/out", "source": os.path.join(CONTAINER, "out")},
                       {**bind, "destination": "/copy", "source": os.path.join(CONTAINER, "copy")},
                       {**bind, "destination": "/model", "source": source}],
            "linux": {"namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts")],
                      "mountLabel": f"system_u:object_r:container_file_t:{CATEGORIES}"}}
        with open(os.path.join(CONTAINER, "config.json"), "w", encoding="ascii") as file:
            json.dump(config, file)
        written, before = os.path.join(CONTAINER, "out/log"), len(denials())
        if os.path.exists(written):
            os.unlink(written)
        done = subprocess.run(["runc", "run", "--bundle", CONTAINER, "looker"], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        return {"code": done.returncode, "stderr": done.stderr, "denials": denials()[before:],
                "lines": read(written).splitlines() if os.path.exists(written) else []}


class Scene:
    """The steps, in the order in which they stand here."""

    def __init__(self):
        self.container = Container()
        self.targets = {}

    def publish(self, name, artifact):
        parent = f"{PODS}/{name}/volumes/kubernetes.io~csi/model"
        os.makedirs(parent, 0o750)
        self.targets[name] = parent + "/mount"
        with CsiClient("/var/lib/kubelet/plugins/csi.modelcached.dev/csi.sock") as csi:
            csi.publish(name, self.targets[name], f"{REGISTRY}/{artifact}:v1")

    def look(self, name):
        """The volume mounted in a container, as runtimes do."""
        return self.container.look(self.targets[name])

    def look_through(self, name):
        """A container with the folder of all volumes: its runtime need not touch the volume itself."""
        return self.container.look(PODS, self.targets[name].removeprefix(PODS))

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
        self.container.copy(self.targets["model"])
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
        with subprocess.Popen(["cache-ctl", "pull", "--background", f"{REGISTRY}/large:v1"]) as pulling:
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

    def step_permissive(self):
        """What the same process can do when SELinux only logs."""
        run("setenforce", "0")
        return {"look": self.look("plain")}


if __name__ == "__main__":
    report(Scene)
    power_off()
