# SPDX-License-Identifier: Apache-2.0
"""The worker that stands by for the next pull: what it is, who gets it, and when it goes."""
import contextlib
import os
import signal
import subprocess
import time

import pytest

from lib.artifacts import MIB, modelpack
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.check import assert_pulls, publish, wait_idle
from lib.daemon import program
from lib.sandbox import memory_bytes, wait_for

AHEAD = 20 * MIB  # of buffers
WORKER_IDLE_MAX = AHEAD + 20 * MIB  # with the pages of libraries, which others share
CAS_MIN = MIB // 2  # some 140, beside the text of them that others have


class Place:
    """A registry with an artifact, and daemons that keep a worker for as long as the test says."""

    def __init__(self, make_daemon, faulty, folder):
        self.make_daemon, self.registry = make_daemon, faulty
        self.artifact = modelpack(folder, sizes=(2 * MIB,))
        self.reference = faulty.add(self.artifact, "team/model", "v1")

    def daemon(self, keep, memory="128MiB", **options):
        return self.make_daemon([self.registry.config()], {"pull": {"standby": keep, "memory": memory}}, **options)

    def assert_pulls(self, daemon, name="pod"):
        assert_pulls(daemon, name, self.reference, self.artifact.tree)
        assert daemon.ctl("rm", self.reference).code == 0
        wait_idle(daemon)


@pytest.fixture(name="place")
def place_fixture(make_daemon, faulty, work):
    return Place(make_daemon, faulty, work)


def standing_by(daemon):
    [pid] = wait_for(daemon.standby_pids, "a worker that stands by")
    return pid


def is_alive(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_for_end(pid):
    wait_for(lambda: not is_alive(pid), f"the end of {pid}", 10)


def test_it_has_nothing_and_does_the_next_pull(place):
    daemon = place.daemon("1m")
    pid = standing_by(daemon)
    wait_for(lambda: len(os.listdir(f"/proc/{pid}/fd")) == 4, "its descriptors")  # those of its start, and the socket
    assert daemon.left_in_ingest() == []
    place.registry.rate = MIB
    with subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, "pull", "--quiet",
                           place.reference]) as pulling:
        assert wait_for(daemon.worker_pids, "the worker") == [pid]
        assert daemon.standby_pids() == []  # another one comes when this pull has ended
        place.registry.rate = 0
        assert pulling.wait(60) == 0
    assert standing_by(daemon) != pid
    place.assert_pulls(daemon)


def memory_of_standby(daemon, least=4 * MIB):
    """Once it has done what it can do ahead."""
    seen = [0]

    def settled():
        seen.append(memory_bytes(standing_by(daemon)))
        return seen[-1] if least <= seen[-1] == seen[-2] else 0

    return wait_for(settled, f"memory of {least} bytes or more, which was {seen} at last", interval=0.2)


def test_what_it_costs(place, make_daemon, make_faulty, show):
    """Some buffers have their pages, as far as a pull may have them.  Where a registry speaks TLS, the trusted CAs
    are parsed ahead."""
    plain = memory_of_standby(place.daemon("1m", release=True))
    small = memory_of_standby(place.daemon("1m", "16MiB", release=True))
    checks = place.daemon("1m", release=True)
    for i in range(2):
        publish(checks, f"pod{i}", place.reference, pullPolicy="Always")
    assert plain > AHEAD and plain - small > 3 * MIB  # 4 less
    assert plain - memory_of_standby(checks) > AHEAD - MIB  # of a node that has nothing to fetch
    tls = memory_of_standby(make_daemon([make_faulty(tls=True).config()], release=True), plain + CAS_MIN)
    show(f"RSS of the worker that stands by: {plain / MIB:.1f} MiB, where there is TLS {tls / MIB:.1f}")
    assert plain < WORKER_IDLE_MAX and tls < WORKER_IDLE_MAX


def test_it_does_a_pull_over_tls(make_daemon, make_faulty, work):
    faulty, artifact = make_faulty(tls=True), modelpack(work)
    daemon = make_daemon([faulty.config()])
    memory_of_standby(daemon)  # it has done what it can do ahead
    assert_pulls(daemon, "pod", faulty.add(artifact, "team/model", "v1"), artifact.tree)


def test_it_goes_when_nobody_pulls(place):
    daemon = place.daemon("3s")
    wait_for_end(standing_by(daemon))
    assert daemon.standby_pids() == []
    place.assert_pulls(daemon)
    wait_for_end(standing_by(daemon))


def test_none_is_kept(place):
    daemon = place.daemon("0")
    place.assert_pulls(daemon)
    with pytest.raises(TimeoutError):
        wait_for(daemon.standby_pids, "a worker that stands by", 0.5)


def test_a_reload_takes_it_away(place):
    daemon = place.daemon("1m")
    pid = standing_by(daemon)
    daemon.config["pull"]["standby"] = "0"
    daemon.write_config()
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for_end(pid)
    place.assert_pulls(daemon)
    assert daemon.standby_pids() == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_daemon(place, how):
    daemon = place.daemon("1m")
    pid = standing_by(daemon)
    daemon.process.stop(how, 30)
    wait_for_end(pid)


def test_somebody_ends_it(place):
    """What is killed is alive for a while, and may be taken."""
    daemon = place.daemon("1m")
    for i in range(5):
        os.kill(standing_by(daemon), signal.SIGKILL)
        place.assert_pulls(daemon, f"pod{i}")


def test_none_comes_while_others_pull(place, work):
    daemon = place.daemon("1m")
    place.registry.rate = MIB
    with subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, "pull", "--quiet",
                           place.reference]) as pulling:
        wait_for(daemon.worker_pids, "the worker")
        other = place.registry.add(modelpack(work, sizes=(MIB // 8,), seed="other"), "team/other", "v1")
        assert daemon.ctl("pull", other).code == 0
        with pytest.raises(TimeoutError):
            wait_for(daemon.standby_pids, "a worker that stands by", 0.5)
        place.registry.rate = 0
        assert pulling.wait(60) == 0
    standing_by(daemon)
