# SPDX-License-Identifier: Apache-2.0
"""What cache-ctl makes of the daemon's answers: none, or late ones."""
import signal
import subprocess

import pytest

from lib.artifacts import modelpack
from lib.check import assert_sentence
from lib.daemon import program

@pytest.fixture(name="stocked")
def stocked_fixture(make_daemon, faulty, work):
    """(daemon, reference) of a daemon that has the artifact."""
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(modelpack(work), "team/model", "v1")
    assert daemon.ctl("pull", reference).code == 0
    return daemon, reference

def start_ctl(daemon, *arguments):
    return subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

def test_daemon_that_stands_still(stocked):
    daemon, reference = stocked
    following = start_ctl(daemon, "events", "--follow")
    assert following.stdout.readline()
    daemon.process.popen.send_signal(signal.SIGSTOP)
    try:
        waiting = [following] + [start_ctl(daemon, *command) for command in (
            ("status",), ("ls",), ("inspect", reference), ("pull", reference), ("verify",))]
        for process in waiting:
            error = process.communicate(timeout=90)[1]
            assert process.returncode == 3, (process.args, error)
            assert daemon.control_socket in error and "does not answer" in error, error
            assert_sentence(error.strip())
    finally:
        daemon.process.popen.send_signal(signal.SIGCONT)
    assert daemon.ctl("status").code == 0

def test_daemon_that_stops_tells_those_who_follow(stocked):
    daemon = stocked[0]
    following = start_ctl(daemon, "events", "--follow")
    assert following.stdout.readline()
    daemon.stop_clean()
    error = following.communicate(timeout=30)[1]
    assert following.returncode == 1, error
    assert error == "cache-ctl: the daemon is stopping\n"
