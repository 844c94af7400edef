# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""The attribute warm: after the mount the files are in the page cache, and nobody has waited for it."""
import json
import os
import subprocess
import time

import grpc
import pytest

from lib.artifacts import MIB, modelpack
from lib.check import publish, publish_error
from lib.content import assert_tree
from lib.sandbox import need, wait_for

SIZE = 24 * MIB
WEIGHTS = "model-00001-of-00001.safetensors"


def resident(path):
    """Bytes of a file that are in the page cache."""
    return int(subprocess.run(["fincore", "-b", "-n", "-o", "RES", path], check=True, capture_output=True,
                              text=True).stdout.split()[0])


def drop(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def events(daemon, kind):
    lines = daemon.ctl("--output", "json", "events").stdout.splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


@pytest.fixture(name="case")
def case_fixture(make_daemon, faulty, work):
    need("fincore", "ionice")

    class Case:
        made = modelpack(work, sizes=(SIZE,))
        reference = faulty.add(made, "team/model", "v1")

        def __init__(self, bandwidth="512MiB"):
            self.daemon = make_daemon([faulty.config()], config={"csi": {"warm_bandwidth": bandwidth}})

        def is_cold(self):
            path = os.path.join(publish(self.daemon, "cold", self.reference), WEIGHTS)
            drop(path)
            assert resident(path) == 0
            return path
    return Case


def test_the_files_are_in_memory_soon(case):
    case = case()
    path = case.is_cold()
    target = publish(case.daemon, "warm", case.reference, warm="true")
    wait_for(lambda: events(case.daemon, "volume.warmed"), "the event", 20)
    (event,) = events(case.daemon, "volume.warmed")
    assert resident(path) == SIZE
    files = sum(entry.kind == "file" for entry in case.made.tree.values())
    assert f"of {case.reference} ({files} files) into the page cache in" in event["text"], event
    assert event["volume_id"] == "warm" and event["reference"] == case.reference
    assert_tree(target, case.made.tree)
    drop(path)
    publish(case.daemon, "warm", case.reference, warm="true")  # once more of the same: nothing is done
    time.sleep(0.5)
    assert resident(path) == 0


def test_without_it_nothing_is_read(case):
    case = case()
    path = case.is_cold()
    for name, value in (("a", {}), ("b", {"warm": "false"})):
        publish(case.daemon, name, case.reference, **value)
    time.sleep(0.5)
    assert resident(path) == 0


def test_it_ends_with_the_volume(case):
    """It goes slowly, delays neither publish nor unpublish, and is over when the volume is gone."""
    case = case("1MiB")
    path = case.is_cold()
    begin = time.monotonic()
    target = publish(case.daemon, "warm", case.reference, warm="true")
    assert time.monotonic() - begin < 5
    wait_for(lambda: resident(path) > 0, "the first bytes", 20)
    begin = time.monotonic()
    case.daemon.csi().unpublish("warm", target)
    assert time.monotonic() - begin < 5
    assert not os.path.exists(target)
    time.sleep(0.5)
    before = resident(path)
    time.sleep(1.5)
    assert resident(path) <= before < SIZE // 2
    assert not events(case.daemon, "volume.warmed") + events(case.daemon, "volume.not-warmed")
    publish(case.daemon, "again", case.reference, warm="true")
    case.daemon.stop_clean()  # while it reads


def test_its_thread_is_unimportant(case):
    case = case("1MiB")
    publish(case.daemon, "warm", case.reference, warm="true")

    def lowest():
        for tid in os.listdir(f"/proc/{case.daemon.pid}/task"):
            idle = subprocess.run(["ionice", "-p", tid], capture_output=True, text=True, check=False).stdout
            with open(f"/proc/{case.daemon.pid}/task/{tid}/stat", encoding="utf-8") as file:
                if idle.strip() == "idle" and file.read().rsplit(")", 1)[1].split()[16] == "19":
                    return True
        return False

    wait_for(lowest, "a thread with the idle io class and nice 19", 10)


def test_what_it_takes(case):
    case = case()
    code, text = publish_error(case.daemon, "bad", case.reference, warm="yes")
    assert code == grpc.StatusCode.INVALID_ARGUMENT and '"true" or "false"' in text, (code, text)
