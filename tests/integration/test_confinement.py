# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""What a running pull worker may do, what is said about it, and what happens where the kernel gives less."""
import os
import stat
import subprocess

import pytest

from lib.artifacts import MIB, modelpack
from lib.check import assert_pulls, assert_store_good, wait_idle
from lib.daemon import program
from lib.sandbox import IO_URING_REFUSED, wait_for

IO_URING_SWITCH = "/proc/sys/kernel/io_uring_disabled"


class Running:
    """A worker in the middle of a pull."""

    def __init__(self, daemon, faulty, folder):
        self.daemon = daemon
        wait_idle(daemon)  # the probe at start is a worker too
        artifact = modelpack(folder, sizes=(6 * MIB,))
        self.reference = faulty.add(artifact, "team/slow", "v1")
        faulty.rate = 2 * MIB
        self.pulling = subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, "pull",
                                         self.reference], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_for(lambda: [p for p in daemon.ctl_json("status")["pulls"] if p["bytes_done"]], "bytes of the pull")
        [self.pid] = daemon.worker_pids()

    def status(self):
        """The fields of its /proc/PID/status."""
        with open(f"/proc/{self.pid}/status", encoding="ascii", errors="replace") as file:
            return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)

    def tasks(self):
        """The same of every thread."""
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/status", encoding="ascii", errors="replace") as file:
                yield dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


@pytest.fixture(name="running")
def running_fixture(make_daemon, faulty, work):
    running = Running(make_daemon([faulty.config()]), faulty, work)
    yield running
    faulty.rate = 0
    assert running.pulling.wait(60) == 0, running.pulling.stderr.read()
    running.pulling.stderr.close()


def test_worker_has_no_capability_no_root_and_a_filter(running):
    for status in running.tasks():
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"):
            assert int(status[name], 16) == 0, f"{name} {status[name]}"
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert "0" not in status["Uid"].split() and "0" not in status["Gid"].split(), status["Uid"]
        assert status["Groups"].split() in ([], [status["Gid"].split()[0]])


def describe_fd(pid, fd):
    link = os.readlink(f"/proc/{pid}/fd/{fd}")
    return "socket" if link.startswith("socket:") else link


def test_worker_has_only_the_descriptors_it_needs(running):
    """3 the daemon's socket, 4 its folder, sockets to the registry, its own event, timer and ring descriptors, and files
    of its folder; nothing of the store's index or of the sockets of the daemon."""
    ingest = os.path.join(os.path.realpath(running.daemon.store), "ingest")
    found = {}
    for fd in os.listdir(f"/proc/{running.pid}/fd"):
        try:
            found[int(fd)] = describe_fd(running.pid, fd)
        except FileNotFoundError:
            pass
    assert found[0] == "/dev/null"
    assert found[3] == "socket"
    assert found[4].startswith(ingest + "/")
    for fd, what in found.items():
        allowed = (what.startswith(("anon_inode:", ingest + "/", "pipe:", "/dev/null")) or what == "socket")
        assert allowed, f"fd {fd} is {what}"
    with open("/proc/net/unix", encoding="ascii") as file:
        listening = {line.split()[6] for line in file if line.rstrip().endswith((running.daemon.control_socket,
                                                                                  running.daemon.csi_socket))}
    inodes = {os.stat(f"/proc/{running.pid}/fd/{fd}").st_ino for fd, what in found.items()
              if what == "socket" and os.path.exists(f"/proc/{running.pid}/fd/{fd}")}
    assert not inodes & {int(inode) for inode in listening}, "a socket of the daemon is open in the worker"


def test_worker_has_a_bare_environment_and_no_arguments(running):
    with open(f"/proc/{running.pid}/cmdline", "rb") as file:
        assert file.read().count(b"\0") == 1, "something is on the command line"
    with open(f"/proc/{running.pid}/environ", "rb") as file:
        names = {item.split(b"=")[0] for item in file.read().split(b"\0") if item}
    assert not names & {b"HOME", b"PATH", b"NOTIFY_SOCKET", b"CSI_ENDPOINT"}, names


def test_worker_owns_only_its_folder(running):
    uid = int(running.status()["Uid"].split()[0])
    store = running.daemon.store
    for name in ("objects", "trees", "index.db", "format"):
        st = os.stat(os.path.join(store, name))
        assert st.st_uid == 0 and not st.st_mode & 0o022, f"{name}: {st}"
    assert not os.stat(os.path.join(store, "index.db")).st_mode & 0o077 or not os.stat(store).st_mode & 0o005
    [folder] = os.listdir(os.path.join(store, "ingest"))
    st = os.stat(os.path.join(store, "ingest", folder))
    assert st.st_uid == uid and stat.S_IMODE(st.st_mode) == 0o700


def test_worker_has_no_core_dump_and_cannot_be_traced_by_its_like(running):
    with open(f"/proc/{running.pid}/limits", encoding="ascii") as file:
        core = next(line for line in file if line.startswith("Max core file size"))
    assert core.split()[4] == "0", core


def test_status_names_the_confinement(make_daemon):
    daemon = make_daemon()
    features = daemon.ctl_json("status")["features"]
    for name in ("capabilities", "uid", "no_new_privs", "landlock", "seccomp", "io_uring"):
        assert name in features, f"status does not name {name}: {features}"
        assert features[name]["active"] or features[name]["detail"], f"{name} is not active and nobody says why"
    for name in ("capabilities", "uid", "no_new_privs", "seccomp"):
        assert features[name]["active"], features
    if IO_URING_REFUSED:
        assert not features["io_uring"]["active"] and "a seccomp filter" in features["io_uring"]["detail"], features
    text = daemon.ctl("status").stdout
    for name in ("landlock", "seccomp", "io_uring"):
        assert name in text
    for name, feature in features.items():
        if not feature["active"]:
            assert name in daemon.log(), f"what the kernel lacks ({name}) was not said at start"


def test_pull_with_threads(make_daemon, faulty, work):
    daemon, artifact = make_daemon([faulty.config()], config={"pull": {"io": "threads"}}), modelpack(work)
    assert_pulls(daemon, "pod", faulty.add(artifact, "team/model", "v1"), artifact.tree)
    assert_store_good(daemon)


def test_pull_with_little_memory(make_daemon, faulty, work):
    daemon = make_daemon([faulty.config()], config={"pull": {"memory": "16MiB", "connections": 64}})
    artifact = modelpack(work, sizes=[MIB] * 40)
    assert_pulls(daemon, "pod", faulty.add(artifact, "team/model", "v1"), artifact.tree)


@pytest.mark.skipif(not os.path.exists(IO_URING_SWITCH), reason="this kernel has no kernel.io_uring_disabled")
def test_pull_where_io_uring_is_refused(make_daemon, faulty, work):
    """With the kernel's own switch; it is put back whatever happens."""
    with open(IO_URING_SWITCH, encoding="ascii") as file:
        before = file.read().strip()
    try:
        with open(IO_URING_SWITCH, "w", encoding="ascii") as file:
            file.write("2")
    except OSError as error:
        pytest.skip(f"{IO_URING_SWITCH}: {error.strerror}")
    try:
        daemon, artifact = make_daemon([faulty.config()]), modelpack(work)
        feature = daemon.ctl_json("status")["features"]["io_uring"]
        assert not feature["active"] and feature["detail"], feature
        assert_pulls(daemon, "pod", faulty.add(artifact, "team/model", "v1"), artifact.tree)
        assert_store_good(daemon)
    finally:
        with open(IO_URING_SWITCH, "w", encoding="ascii") as file:
            file.write(before)


def test_io_uring_that_is_demanded(make_daemon, faulty, work):
    """pull.io=uring: works, or says that the kernel refuses."""
    daemon = make_daemon([faulty.config()], config={"pull": {"io": "uring"}})
    artifact = modelpack(work)
    reference = faulty.add(artifact, "team/model", "v1")
    features = daemon.ctl_json("status")["features"]
    if "io_uring" in features:
        assert features["io_uring"]["active"], features
        assert_pulls(daemon, "pod", reference, artifact.tree)
    else:
        assert "io_uring is not available here" in features["worker"]["detail"], features
        result = daemon.ctl("pull", reference)
        assert result.code in (1, 5), result  # the kernel has none, or does not let us
        assert "io_uring is not available here" in result.stderr, result


def test_several_pulls_have_a_worker_each(make_daemon, faulty, work):
    daemon = make_daemon([faulty.config()], config={"pull": {"concurrent": 2}})
    made = [modelpack(work, sizes=(3 * MIB,), seed=i) for i in range(4)]
    references = [faulty.add(artifact, f"team/model{i}", "v1") for i, artifact in enumerate(made)]
    faulty.rate = 4 * MIB
    wait_idle(daemon)
    pulls = [subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, "pull", reference],
                              stdout=subprocess.DEVNULL) for reference in references]
    most, folders = 0, 0
    while any(pull.poll() is None for pull in pulls):
        most = max(most, len(daemon.worker_pids()))
        folders = max(folders, len(daemon.in_ingest()))
    assert [pull.returncode for pull in pulls] == [0] * 4
    assert 2 <= most <= 4, f"{most} workers at the same time; pull.concurrent is 2, and as many may be ending"
    assert folders <= 4
    wait_idle(daemon)
    faulty.rate = 0
    for i, (reference, artifact) in enumerate(zip(references, made)):
        assert_pulls(daemon, f"pod{i}", reference, artifact.tree)
