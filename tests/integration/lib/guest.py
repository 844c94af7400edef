# SPDX-License-Identifier: Apache-2.0
"""Init of a guest of lib.qemu: does the main job on its kernel and writes what it saw, a JSON line a step, to the
second serial line.  It judges nothing: test_soak_kernels.py does."""
import ctypes
import dataclasses
import errno
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
RESULTS = "/dev/ttyS1"
REGISTRY = "/var/lib/registry"
REFERENCE = "team/model:v1"
SLOW_BYTES, SLOW_RATE = 6 << 20, 2 << 20
MS_REC, MS_SHARED, MS_BIND = 1 << 14, 1 << 20, 1 << 12
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
RB_POWER_OFF = 0x4321FEDC
SYSCALLS = {"io_uring_setup": 425, "open_tree": 428, "close_range": 436, "openat2": 437, "mount_setattr": 442,
            "landlock_create_ruleset": 444}
libc = ctypes.CDLL(None, use_errno=True)


def mount(source, target, kind=None, flags=0):
    arguments = [text and text.encode() for text in (source, target, kind)]
    if libc.mount(*arguments, ctypes.c_ulong(flags), None) < 0:
        raise OSError(ctypes.get_errno(), f"mounting {target}")


def prepare():
    """What an init of a distribution does, as far as the product sees it."""
    for kind, target in (("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/run")):
        mount(kind, target, kind)
    if not os.path.exists(RESULTS):
        mount("devtmpfs", "/dev", "devtmpfs")
    mount(None, "/", None, MS_REC | MS_SHARED)  # as systemd does
    with socket.socket() as sock:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(sock, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))
    os.environ.update(PATH="/usr/bin:/bin", HOME="/", MC_BIN="/opt/bin", MC_SRC="/opt/src", LC_ALL="C.UTF-8")


def has_syscall(number):
    libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 5)
    return ctypes.get_errno() != errno.ENOSYS


def refusal(call, *arguments):
    """The name of the error of a call; None: it worked."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return None


def mounts(beneath="/var/lib/mc", pid="self"):
    """{mount point: [options, propagation]}"""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    return {words[4]: [words[5].split(","), words[6:words.index("-")]] for words in lines
            if words[4].startswith(beneath)}


class Scene:
    """The registries, the daemon and the steps, which run in the order in which they stand here."""

    def __init__(self):
        # pylint: disable=import-outside-toplevel  # they need what prepare() made
        from lib import artifacts, content, daemon, faulty, registry, sandbox
        self.content, self.artifacts, self.sandbox = content, artifacts, sandbox
        self.registry = registry.Registry(REGISTRY)
        os.makedirs("/tmp/faulty")
        self.faulty = faulty.FaultyRegistry("/tmp/faulty")
        self.daemon = daemon.Daemon("/var/lib/mc", [self.registry.config(), self.faulty.config()],
                                    config={"log": {"level": "info"}})
        self.reference = f"{self.registry.host}/{REFERENCE}"
        self.target = self.daemon.target("pod")

    def tree(self, path):
        return {name: dataclasses.astuple(entry) for name, entry in self.content.tree_at(path).items()}

    def ctl(self, *arguments):
        return self.daemon.ctl(*arguments)._asdict()

    def status(self):
        return self.daemon.ctl_json("status")

    def left(self):
        return {name: os.listdir(os.path.join(self.daemon.store, name)) for name in ("ingest", "staging")}

    def step_kernel(self):
        return {"release": os.uname().release, "syscalls": {n: has_syscall(i) for n, i in SYSCALLS.items()}}

    def step_start(self):
        self.daemon.start(60)
        self.sandbox.wait_for(lambda: not self.daemon.worker_pids(), "the probe's end", 30)
        return {"status": self.status(), "human": self.daemon.ctl("status").stdout, "log": self.daemon.log()}

    def step_pull(self):
        return {**self.ctl("pull", self.reference), "left": self.left()}

    def step_publish(self):
        mount("/var/lib/mc/kubelet", "/mnt", None, MS_BIND)  # a pod that gets the kubelet's mounts
        start = time.monotonic()
        self.daemon.csi().publish("pod", self.target, self.reference)
        peer = self.target.replace("/var/lib/mc/kubelet", "/mnt")
        return {"seconds": time.monotonic() - start, "tree": self.tree(self.target), "target": self.target,
                "mounts": mounts(), "peer": peer, "peers": mounts("/mnt"), "left": self.left()}

    def step_writes(self):
        file = os.path.join(self.target, "config.json")
        return {"write": refusal(open, file, "r+b"), "remove": refusal(os.unlink, file),
                "create": refusal(os.mkdir, os.path.join(self.target, "new")),
                "chmod": refusal(os.chmod, file, 0o777),
                "exec": refusal(subprocess.run, [os.path.join(self.target, "code/run.sh")]),
                "exec_peer": refusal(subprocess.run, [os.path.join(
                    self.target.replace("/var/lib/mc/kubelet", "/mnt"), "code/run.sh")])}

    def step_sub_path(self):
        target = self.daemon.target("sub")
        self.daemon.csi().publish("sub", target, self.reference, subPath="code")
        seen = {"tree": self.tree(target), "options": mounts()[target][0]}
        self.daemon.csi().unpublish("sub", target)
        return {**seen, "gone": not os.path.exists(target)}

    def step_ctl_mount(self):
        os.makedirs("/var/lib/mc/by-hand")
        done = self.ctl("mount", self.reference, "/var/lib/mc/by-hand")
        seen = {"mount": done, "tree": self.tree("/var/lib/mc/by-hand"), "mounts": mounts()}
        with open("/var/lib/mc/by-hand/config.json", "rb") as held:
            seen["umount"] = self.ctl("umount", "/var/lib/mc/by-hand")
            seen["held"] = len(held.read())
        return {**seen, "after": mounts(), "left": self.left()}

    def step_restart(self):
        code = self.daemon.stop()
        tree = self.tree(self.target)
        self.daemon.start(60)
        return {"code": code, "down": tree, "tree": self.tree(self.target), "status": self.status()}

    def step_kill_daemon(self):
        self.daemon.kill9()
        tree = self.tree(self.target)
        self.daemon.start(60)
        self.daemon.csi().publish("pod", self.target, self.reference)  # again, as the kubelet may
        return {"down": tree, "tree": self.tree(self.target), "status": self.status(), "mounts": mounts()}

    def step_kill_worker(self):
        artifact = self.artifacts.modelpack("/tmp", sizes=(SLOW_BYTES,), seed="slow", tar_codec="tar+gzip")
        reference = self.faulty.add(artifact, "team/slow", "v1")
        self.faulty.rate = SLOW_RATE
        with subprocess.Popen(["/opt/bin/cache-ctl", "--socket", self.daemon.control_socket, "pull", reference],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True) as pulling:
            self.sandbox.wait_for(lambda: [p for p in self.status()["pulls"] if p["bytes_done"]],
                                  "bytes of the pull", 30)
            [worker] = self.daemon.worker_pids()
            with open(f"/proc/{worker}/status", encoding="ascii", errors="replace") as file:
                status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
            os.kill(worker, signal.SIGKILL)
            text = pulling.communicate(timeout=60)[0]
        self.faulty.rate = 0
        left = self.left()
        again = self.ctl("pull", reference)
        target = self.daemon.target("slow")
        self.daemon.csi().publish("slow", target, reference)
        tree = self.tree(target)
        self.daemon.csi().unpublish("slow", target)
        want = {name: dataclasses.astuple(e) for name, e in self.content.with_parents(artifact.tree).items()}
        return {"worker": status, "code": pulling.returncode, "text": text, "left": left, "again": again,
                "equal": tree == want, "removed": self.ctl("rm", reference)}

    def step_threads(self):
        self.daemon.csi().unpublish("pod", self.target)
        seen = {"mounts": mounts(), "peers": mounts("/mnt/"), "gone": not os.path.exists(self.target),
                "removed": self.ctl("rm", self.reference)}
        self.daemon.config["pull"] = {"io": "threads"}
        seen["code"] = self.daemon.stop()
        self.daemon.start(60)
        seen["pull"] = self.ctl("pull", self.reference)
        self.daemon.csi().publish("pod", self.target, self.reference)
        return {**seen, "tree": self.tree(self.target), "status": self.status()}

    def step_verify(self):
        return {"verify": self.ctl("verify")}

    def step_end(self):
        self.daemon.csi().unpublish("pod", self.target)
        code = self.daemon.stop()
        return {"code": code, "mounts": mounts(), "left": self.left(), "log": self.daemon.log()}


def report(make_scene):
    """All steps of the scene; the first that fails is the last."""
    with open(RESULTS, "w", encoding="utf-8") as results:
        name = "import"
        try:
            scene = make_scene()
            for name in [n for n in vars(type(scene)) if n.startswith("step_")]:
                start = time.monotonic()
                seen = getattr(scene, name)()
                results.write(json.dumps({"step": name.removeprefix("step_"), "took": time.monotonic() - start,
                                          "seen": seen}) + "\n")
                results.flush()
        except BaseException:  # pylint: disable=broad-exception-caught  # the host has to hear of anything
            results.write(json.dumps({"step": name.removeprefix("step_"), "error": traceback.format_exc()}) + "\n")


def power_off():
    os.sync()
    libc.reboot(ctypes.c_uint(RB_POWER_OFF))


def main():
    sys.path.insert(0, TESTS)
    try:
        prepare()
        child = os.fork()
        if child == 0:
            report(Scene)
            os._exit(0)
        while os.wait()[0] != child:  # as init: orphans are ours
            pass
    except BaseException:  # pylint: disable=broad-exception-caught  # else the kernel panics without a word
        traceback.print_exc()
    power_off()


if __name__ == "__main__" and os.getpid() == 1:
    main()
