# SPDX-License-Identifier: Apache-2.0
"""A host with a real systemd as PID 1: a Debian root in name spaces of its own (mounts, processes, control groups, host
name, IPC).  Kernel and network are this machine's, and of its settings nothing can be changed in there."""
import contextlib
import json
import os
import re
import signal
import subprocess

import pytest

from lib.csi import CsiClient
from lib.sandbox import PREFIX, Process, children, need, remove_cgroups, wait_ended, wait_for

UNIT = "modelcached"
CGROUP2 = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
# $1: our control group, $2: the root.  Devices are those of containers; to share the mounts is what systemd does itself
# where it has no container= (test_soak_selinux.py).
BOOT = r"""
echo $$ >"$1/cgroup.procs"
exec unshare --cgroup --mount --pid --uts --ipc --fork --kill-child sh -ec '
    mount --bind "$1" "$1"
    cd "$1"
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs dev
    for device in null zero full random urandom tty; do
        touch "dev/$device"
        mount --bind "/dev/$device" "dev/$device"
    done
    ln -s /proc/self/fd dev/fd
    pivot_root . mnt
    umount -l mnt
    mount --make-rshared /
    exec env -i container=mc-it PATH=/usr/sbin:/usr/bin setpriv --bounding-set=-sys_module,-sys_time \
        /lib/systemd/systemd --show-status=no
' sh "$2"
"""


def cgroup2():
    """Where this machine has control groups of version 2, with or without controllers."""
    for path in CGROUP2:
        if os.path.exists(os.path.join(path, "cgroup.controllers")):
            return path
    return pytest.skip("no control groups of version 2 are mounted")


class Host:
    """`root` is the folder of the Debian; what runs in there comes to .run(), its files are at .at()."""

    def __init__(self, root):
        need("unshare", "nsenter")
        self.root, self.process, self.pid = root, None, None

    def boot(self):
        group = os.path.join(cgroup2(), f"{PREFIX}{os.getpid()}-{os.urandom(4).hex()}")
        os.mkdir(group)
        self.process = Process(["sh", "-ec", BOOT, "sh", group, self.root], self.root + ".log")
        wait_for(self._is_up, "systemd", 30)
        return self

    def _is_up(self):
        self.process.check_alive()
        found = children(self.process.pid)
        self.pid = found[0] if found else None
        return self.pid and os.path.exists(self.at("/run/systemd/private")) and (
            self.run("systemctl", "is-system-running").stdout in ("running\n", "degraded\n"))

    def power_off(self):
        self.run("systemctl", "poweroff")
        wait_for(lambda: not self.process.alive(), "the end of systemd", 60)

    def close(self):
        if self.process:
            self.process.stop(signal.SIGKILL)  # and with it, all
            wait_ended([self.pid], "the end of systemd")
        remove_cgroups(os.getpid())

    def at(self, path):
        """A path in there, mounts included."""
        return f"/proc/{self.pid}/root{path}"

    def _inside(self, argv):
        return ["nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "-r", "-w", "env", "-i",
                "PATH=/usr/local/bin:/usr/sbin:/usr/bin", "SYSTEMD_PAGER=", *argv]

    def run(self, *argv):
        return subprocess.run(self._inside(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              check=False)

    def start(self, *argv):
        """Runs it beside us."""
        return Process(self._inside(argv), self.root + ".out")

    def must(self, *argv):
        done = self.run(*argv)
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
        return done.stdout

    def container(self):
        """A process with a mount namespace that is a slave of the host's, as container runtimes make them."""
        made = Process(["nsenter", "-t", str(self.pid), "-m", "-r", "unshare", "--mount", "--propagation", "slave",
                        "sleep", "infinity"], self.root + ".container.log")
        wait_for(lambda: made.check_alive() or b"sleep" in command_line(made.pid)[:1], "a name space")
        return made


def command_line(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().split(b"\0")


def mounts_at(pid, beneath):
    """{mount point: (options, propagation)} as the process sees them."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        lines = [line.split() for line in file]
    return {words[4]: (words[5].split(","), words[6:words.index("-")]) for words in lines
            if words[4].startswith(beneath)}


def rewrite(file, text):
    file.seek(0)
    file.truncate()
    file.write(text)
    file.flush()


class Service:
    """The unit on a Host."""

    def __init__(self, host):
        self.host = host

    def show(self):
        """The unit's properties."""
        return dict(line.split("=", 1) for line in self.host.must("systemctl", "show", UNIT).splitlines())

    def unit(self):
        """The unit's text."""
        with open(self.host.at(self.show()["FragmentPath"]), encoding="utf-8") as file:
            return file.read()

    def active_again(self, state, seconds=20):
        """Waits until systemd says `state`, {property: value}, and then has it active again."""
        wait_for(lambda: state.items() <= self.show().items(), f"{state}", seconds)
        wait_for(lambda: self.show()["ActiveState"] == "active", "Restart=always", seconds)

    @contextlib.contextmanager
    def changed_config(self, old, new):
        """The installed configuration with a part replaced."""
        path = self.host.at(re.search(r"--config (\S+)", self.unit())[1])
        with open(path, "r+", encoding="utf-8") as file:
            before = file.read()
            assert old in before
            rewrite(file, before.replace(old, new))
            try:
                yield
            finally:
                rewrite(file, before)

    def systemctl(self, *argv):
        done = self.host.run("systemctl", *argv, UNIT)
        assert done.returncode == 0, f"{done.stderr}\n" + "\n".join(line["MESSAGE"] for line in self.journal()[-20:])

    def status(self):
        return json.loads(self.host.must("cache-ctl", "--output", "json", "status"))

    def events(self, *arguments):
        return [json.loads(line) for line in self.host.must("cache-ctl", "--output", "json", "events",
                                                            *arguments).splitlines()]

    @property
    def pid(self):
        """As this machine counts."""
        inside = self.show()["MainPID"]
        for task in children(self.host.pid):
            with open(f"/proc/{task}/status", encoding="ascii", errors="replace") as file:
                if f"\t{inside}\n" in next(line for line in file if line.startswith("NSpid:")):
                    return task
        raise AssertionError(f"no process {inside} of the unit")

    def csi(self):
        return CsiClient(self.host.at("/var/lib/kubelet/plugins/csi.modelcached.dev/csi.sock"))

    def target(self, name):
        """A target path, with its parent made as the kubelet does."""
        parent = f"/var/lib/kubelet/pods/{name}/volumes/kubernetes.io~csi/model"
        os.makedirs(self.host.at(parent), 0o750, exist_ok=True)
        return parent + "/mount"

    def journal(self, *matches):
        """[{field: value}] of the unit's lines since the boot."""
        self.host.must("journalctl", "--sync")
        text = self.host.must("journalctl", "-b", "-u", UNIT, "-o", "json", *matches)
        return [json.loads(line) for line in text.splitlines()]
