# SPDX-License-Identifier: Apache-2.0
"""Folders, ports and child processes that a test session leaves nothing of."""
import contextlib
import ctypes
import errno
import glob
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PREFIX = "mc-it-"
PARENT = "/tmp"  # not $TMPDIR: paths of unix sockets have 107 bytes
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
IO_URING_REFUSED = os.environ.get("MC_IO") == "refused"  # to all that the tests start
_libc = ctypes.CDLL(None, use_errno=True)


def make_work_dir():
    """A folder /tmp/mc-it-<our pid>-…; sweep() knows by the pid whose it is."""
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=PARENT)


def mounts_beneath(path):
    """Mount points at or beneath `path`, deepest (latest) first."""
    path = os.path.realpath(path)
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            point = line.split()[4].encode().decode("unicode_escape").encode("latin-1").decode(
                "utf-8", "surrogateescape")
            if point == path or point.startswith(path + "/"):
                found.append(point)
    return found[::-1]


def remove_work_dir(path):
    """Unmounts (lazily) what is mounted beneath `path` and removes it."""
    for _ in range(3):
        for point in mounts_beneath(path):
            _libc.umount2(os.fsencode(point), MNT_DETACH)
        if not mounts_beneath(path):
            break
    else:
        raise RuntimeError(f"cannot unmount what is beneath {path}: {mounts_beneath(path)}")
    # Not shutil.rmtree(), which recurses: a hostile tar made the store as deep as paths can be.
    subprocess.run(["rm", "-rf", "--", path], stderr=subprocess.DEVNULL, check=False)


def end_shims(path):
    """Ends what outlives its parent by design: shims of a containerd beneath `path`, and their containers."""
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            if b"containerd-shim" in words[0] and any(word.startswith(os.fsencode(path) + b"/") for word in words):
                for victim in [*children(pid), pid]:
                    os.kill(victim, signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass


def remove_cgroups(pid):
    """Removes the control groups of containers that session `pid` had (in containerd's name spaces mc-it-<pid>-…)."""
    for hierarchy in ("/sys/fs/cgroup", *glob.glob("/sys/fs/cgroup/*/")):
        for group in glob.glob(os.path.join(hierarchy, f"{PREFIX}{pid}-*")):
            for folder, _, _ in os.walk(group, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:  # a process ends there still: the next sweep takes it
                    pass


def sweep():
    """Removes what is left of sessions that were killed."""
    for name in os.listdir(PARENT):
        parts = name[len(PREFIX):].split("-")
        if name.startswith(PREFIX) and parts[0].isdigit() and not os.path.exists(f"/proc/{parts[0]}"):
            end_shims(os.path.join(PARENT, name))
            remove_work_dir(os.path.join(PARENT, name))
            remove_cgroups(parts[0])


def pick_port():
    """A loopback port that is free now and that the kernel does not hand out again at once."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def hold_port(port):
    """Binds a loopback port on which nobody is to listen: who connects is refused, and no test beside gets it.  The
    caller closes the socket."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    return sock


def wait_for(condition, what, seconds=20.0, interval=0.02):
    """Waits until condition() is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        time.sleep(interval)


def wait_ended(pids, what, seconds=20.0):
    """Waits until the processes have ended with all their threads.  They need not be our children; init, whose they are then,
    may take its time to collect them, which is not waited for."""
    end = time.monotonic() + seconds
    for pid in pids:
        with contextlib.suppress(ProcessLookupError), os.fdopen(os.pidfd_open(pid)) as process:
            if not select.select([process], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(f"waited {seconds:g} s for {what}")


def answers(port):
    """True when something accepts connections on the loopback port."""
    with socket.socket() as sock:
        sock.settimeout(1)
        return sock.connect_ex(("127.0.0.1", port)) == 0


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class _Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction))]


def refuse_io_uring():
    """Makes io_uring_setup(2) fail with EPERM in this process and its children, as the seccomp profiles of container
    runtimes do."""
    load, equal, give = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K
    instructions = (_Instruction * 4)((load, 0, 0, 0), (equal, 0, 1, 425), (give, 0, 0, 0x00050000 | errno.EPERM),
                                      (give, 0, 0, 0x7fff0000))
    program = _Program(len(instructions), instructions)
    if os.geteuid() != 0:  # only root need not promise that
        _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if _libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program)) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _die_with_parent():
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A child that dies with us; its output goes to a file.  no_uring: io_uring is refused to it."""

    def __init__(self, argv, log_path, env=None, stdout_path=None, no_uring=False):
        def arrange():
            _die_with_parent()
            if no_uring:
                refuse_io_uring()

        self.argv, self.log_path = [str(a) for a in argv], log_path
        with open(log_path, "ab") as log, open(stdout_path or log_path, "ab") as out:
            # pylint: disable-next=consider-using-with,subprocess-popen-preexec-fn
            self.popen = subprocess.Popen(self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=log,
                                          env=env, preexec_fn=arrange)
        self.pid = self.popen.pid

    def alive(self):
        return self.popen.poll() is None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def check_alive(self):
        """For wait_for(): raises when the child has ended."""
        if not self.alive():
            raise RuntimeError(f"{self.argv[0]} ended with {self.popen.returncode}:\n{self.log()[-4000:]}")

    def stop(self, sig=signal.SIGTERM, seconds=20):
        """Ends the child, by force after `seconds`; returns its exit code (negative: signal)."""
        if self.alive():
            self.popen.send_signal(sig)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


def need(*programs):
    """Skips the running test when one of the programs is not installed."""
    import pytest  # pylint: disable=import-outside-toplevel  # quickstart uses this file without pytest
    for name in programs:
        if not shutil.which(name):
            pytest.skip(f"{name} is not installed")


def children(pid):
    """The pids of the children of `pid`."""
    found = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return found
    for task in tasks:
        try:
            with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as file:
                found += [int(word) for word in file.read().split()]
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


HUGE_PAGES = os.path.exists("/sys/kernel/mm/transparent_hugepage")


def buffer_bytes(pid):
    """(bytes, bytes that have pages) of a worker's buffers, the memory that is to have huge pages; zeros when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps", encoding="ascii", errors="replace") as file:
            parts = re.findall(r"^Size: +(\d+) kB.*?^Rss: +(\d+) kB.*?^VmFlags:(.*?)$", file.read(), re.M | re.S)
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    ours = [(int(size), int(rss)) for size, rss, flags in parts if " hg " in f"{flags} "]
    return sum(size for size, _ in ours) * 1024, sum(rss for _, rss in ours) * 1024


def memory_bytes(pid, field="VmRSS"):
    """VmRSS or VmHWM (peak) of a process; 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0
