# SPDX-License-Identifier: Apache-2.0
# ctest: refused
"""What a killed worker leaves is gone on with; nothing of it is believed."""
import hashlib
import os
import random
import time

import pytest

from lib import artifacts
from lib.pulling import MIB, pb, pull, start  # noqa: F401 pylint: disable=unused-import

SIZE = 160 * MIB + 777
KILLS = 50
JOB = {"range_min_bytes": 4 * MIB, "memory_bytes": 32 * MIB, "connections": 4}


def served(make_faulty, work, size=SIZE):
    registry = make_faulty()
    artifact = artifacts.modelpack(work, sizes=(size,), tar_codec=None, seed="resume")
    return registry, artifact, registry.add(artifact, "team/resume")


def hex_of(artifact):
    return artifact.layers[0]["digest"].partition(":")[2]


def wire(registry, artifact):
    return sum(request.sent for request in registry.seen(artifact.layers[0]["digest"]))


def move(old, new, name):
    """What the daemon does with a partial file and its map."""
    for suffix in (".part", ".map"):
        if os.path.exists(os.path.join(old, name + suffix)):
            os.rename(os.path.join(old, name + suffix), os.path.join(new, name + suffix))


def check(worker, artifact):
    with open(os.path.join(worker.folder, worker.layers[0][0].ingest), "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == hex_of(artifact)


def interrupted(start, reference, after, work, **job):
    """A folder with the partial file of a worker that was killed."""
    worker = start(reference, **{**JOB, **job})
    worker.until("resolved").plan(0)
    time.sleep(after)
    worker.close()
    return worker.folder


def resumed(start, reference, artifact, folder, **job):
    """A new worker that begins with these files."""
    worker = start(reference, **{**JOB, **job})
    move(folder, worker.folder, hex_of(artifact))
    worker.until("resolved").plan(0)
    return worker


@pytest.mark.both_ways
@pytest.mark.parametrize("io", ["IO_URING", "refused"])
def test_kill_at_fifty_moments_of_one_pull(make_faulty, work, start, io):
    registry, artifact, reference = served(make_faulty, work)
    registry.rate = 2 * MIB  # a connection: the pull takes much longer than a worker's start
    pick, folder = random.Random(io), None
    for _ in range(KILLS):
        worker = start(reference, io=io, **JOB)
        if folder:
            move(folder, worker.folder, hex_of(artifact))
        worker.until("resolved").plan(0)
        time.sleep(pick.uniform(0.05, 0.6))
        worker.close()
        folder = worker.folder
    registry.rate = 0
    worker = resumed(start, reference, artifact, folder, io=io)
    assert worker.finish() == 0, worker.failed
    check(worker, artifact)
    total = wire(registry, artifact)
    print(f"{total / SIZE:.3f} of the size on the wire; {worker.resumed[0] / MIB:.0f} MiB were resumed")
    assert total <= 1.2 * SIZE
    assert worker.resumed[0] > 0.05 * SIZE


@pytest.mark.parametrize("page_cache", [False, True])
def test_other_buffers_go_on_too(make_faulty, work, start, page_cache):
    registry, artifact, reference = served(make_faulty, work, 40 * MIB + 1)
    registry.rate = 8 * MIB
    folder = interrupted(start, reference, 0.6, work, page_cache=page_cache)
    worker = resumed(start, reference, artifact, folder, memory_bytes=MIB, page_cache=not page_cache)
    assert worker.finish() == 0
    check(worker, artifact)
    assert worker.resumed[0] > 4 * MIB


DAMAGE = {
    "one bit": lambda part, size: part.seek(size // 40) and part.write(b"\xff"),
    "zeros": lambda part, size: part.seek(0) or part.write(bytes(MIB)),
    "short": lambda part, size: part.truncate(3 * MIB // 2),
    "empty": lambda part, size: part.truncate(0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_on_disk_is_not_believed(make_faulty, work, start, name):
    registry, artifact, reference = served(make_faulty, work, 40 * MIB)
    registry.rate = 8 * MIB
    folder = interrupted(start, reference, 0.8, work)
    with open(os.path.join(folder, hex_of(artifact) + ".part"), "r+b") as part:
        DAMAGE[name](part, 40 * MIB)
    registry.rate = 0
    worker = resumed(start, reference, artifact, folder)
    assert worker.finish() == 0, worker.failed
    check(worker, artifact)


@pytest.mark.parametrize("name", ["garbage", "torn", "absent", "symlink"])
def test_a_map_that_is_no_map(make_faulty, work, start, name):
    registry, artifact, reference = served(make_faulty, work, 20 * MIB)
    registry.rate = 8 * MIB
    folder = interrupted(start, reference, 0.5, work)
    path = os.path.join(folder, hex_of(artifact) + ".map")
    data = open(path, "rb").read()
    os.unlink(path)
    if name == "symlink":
        os.symlink("/etc/passwd", path)
    elif name != "absent":
        with open(path, "wb") as file:
            file.write(os.urandom(8192) if name == "garbage" else data[:3000] + bytes(len(data) - 3000)[:1000])
    registry.rate = 0
    worker = resumed(start, reference, artifact, folder)
    assert worker.finish() == 0, worker.failed
    check(worker, artifact)


def test_a_failed_pull_keeps_its_bytes(make_faulty, work, start):
    registry, artifact, reference = served(make_faulty, work, 40 * MIB)
    digest = artifact.layers[0]["digest"]
    registry.rate = 32 * MIB
    registry.fault(digest, "status", status=500, skip=2)
    worker = start(reference, **JOB, give_up_seconds=1)
    worker.until("resolved").plan(0)
    assert worker.finish() != 0
    before = wire(registry, artifact)
    registry.clear_faults()
    registry.rate = 0
    worker = resumed(start, reference, artifact, worker.folder)
    assert worker.finish() == 0
    check(worker, artifact)
    assert before > 0 and wire(registry, artifact) <= 1.05 * 40 * MIB


def test_what_was_finished_is_not_asked_for_again(make_faulty, work, start):
    """The daemon died before it had taken the file."""
    registry, artifact, reference = served(make_faulty, work, 20 * MIB + 5)
    first = start(reference, **JOB)
    first.until("resolved").plan(0)
    assert first.finish() == 0
    before = wire(registry, artifact)
    worker = resumed(start, reference, artifact, first.folder)
    assert worker.finish() == 0, worker.failed
    check(worker, artifact)
    assert wire(registry, artifact) == before == 20 * MIB + 5


def test_wrong_content_leaves_nothing_to_go_on_with(make_faulty, work, start):
    registry, artifact, reference = served(make_faulty, work, 40 * MIB)  # more than one range
    registry.fault(artifact.layers[0]["digest"], "corrupt", after=1000)
    worker = start(reference, **JOB)
    worker.until("resolved").plan(0)
    assert worker.finish() != 0 and worker.failed.error == 74
    assert not os.listdir(worker.folder)
    assert len(registry.seen(artifact.layers[0]["digest"])) > 1  # once more in one stream, then no more
