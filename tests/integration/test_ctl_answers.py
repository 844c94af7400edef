# SPDX-License-Identifier: Apache-2.0
"""What cache-ctl makes of the daemon's answers: none, late ones and large ones."""
import signal
import subprocess

import pytest

from lib.artifacts import modelpack, one_tar
from lib.check import assert_sentence
from lib.content import Tar
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


def test_inspect_of_more_than_one_message(make_daemon, faulty, work):
    """The list of files passes what a gRPC message may have (16 MiB)."""
    daemon, tar, target, count = make_daemon([faulty.config()]), Tar(work, "tar+gzip"), "x/" * 2000 + "y", 5000
    for i in range(count):
        tar.add_symlink(f"links/{i % 50}/{i}", target)
    reference = faulty.add(one_tar(work, tar, "application/vnd.oci.image.layer.v1.tar+gzip"), "team/large", "v1")
    assert daemon.ctl("pull", reference).code == 0
    shown = daemon.ctl_json("inspect", reference)
    assert len({f["path"] for f in shown["tree"]}) == len(shown["tree"]) == count + 51
    assert {f["target"] for f in shown["tree"] if f["type"] == "symlink"} == {target}
    assert shown["layers"] and shown["manifest"] and shown["references"] == [reference]
    text = daemon.ctl("inspect", reference).stdout
    assert len([line for line in text.splitlines() if line.startswith("links/") and " -> x/" in line]) == count
    with start_ctl(daemon, "inspect", reference) as leaving:  # and one that leaves in the middle
        leaving.stdout.read(1)
        leaving.kill()
    assert daemon.ctl("status").code == 0
