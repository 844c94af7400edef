# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""A tar layer is gone on with where a killed worker was; nothing that lies on disk is believed."""
import hashlib
import os
import random

import pytest

from lib import artifacts
from lib.check import running_daemon
from lib.content import Bytes, File, Random, Tar, Text, assert_tree
from lib.kills import SEND_BUFFER, killed_pull, tree_of
from lib.pulling import MIB, pb, start  # noqa: F401 pylint: disable=unused-import
from lib.sandbox import wait_for

PREFIX = "application/vnd.cncf.model"
JOB = {"range_min_bytes": 4 * MIB, "memory_bytes": 16 * MIB, "connections": 2}
SMALL = {"range_min_bytes": 2 * MIB, "memory_bytes": 8 * MIB}  # less is lost at a kill
CODECS = ["tar", "tar+gzip", "tar+zstd"]


def framed_zstd(path):
    """As zstd:chunked does: many frames, which do not end where buffers do."""
    import subprocess  # pylint: disable=import-outside-toplevel
    out = path + ".zst"
    with open(path, "rb") as plain, open(out, "wb") as file:
        while chunk := plain.read(300_001):
            file.write(subprocess.run(["zstd", "-q", "-1", "-c"], input=chunk, stdout=subprocess.PIPE,
                                      check=True).stdout)
    return out


def make(work, codec, large, seed="tar"):
    """One tar layer: a large file, many small ones of which some are equal, links, one more large file."""
    out = artifacts.Builder(work)
    tar = Tar(out.folder, codec)
    tar.add_directory("d")
    tar.add_file("d/first.bin", Random(large + 333, f"{seed}/first"), 0o755)
    for i in range(300):
        tar.add_file(f"d/{i % 7}/small{i:04d}.txt", Text(500 + i * 211, f"{seed}/{i % 290}"), 0o755 if i % 5 == 0 else 0o644)
    tar.add_symlink("d/link", "first.bin")
    tar.add_hardlink("d/hard", "d/first.bin")
    tar.add_file("d/last.bin", Random(large // 2, f"{seed}/last"))
    tar.add_file("d/empty", Bytes(b""))
    if codec == "tar+zstd":
        tar.tar.close()
        tar.file.close()
        blob = File(framed_zstd(tar.path))
        out.layer(f"{PREFIX}.code.v1.tar+zstd", blob, {"org.cncf.model.filepath": "code"})
        out.diff_ids.append(File(tar.path).digest)
        out.tree.update(tar.tree)
    else:
        out.tar(f"{PREFIX}.code.v1.{codec}", tar, {"org.cncf.model.filepath": "code"})
    config = {"modelfs": {"type": "layers", "diffIds": out.diff_ids}}
    return out.done(f"{PREFIX}.config.v1+json", config, f"{PREFIX}.manifest.v1+json"), tar


@pytest.fixture(scope="module")
def made(module_work):
    """made(codec, large): (artifact, tar), each made once."""
    known = {}

    def get(codec, large):
        if (codec, large) not in known:
            known[codec, large] = make(module_work, codec, large)
        return known[codec, large]
    return get


@pytest.fixture
def served(make_faulty, made):
    def serve(codec, large=20 * MIB, **more):
        registry, (artifact, tar) = make_faulty(**more), made(codec, large)
        return registry, artifact, tar, registry.add(artifact, "team/tar")
    return serve


def digest_of(artifact):
    return artifact.layers[0]["digest"]


def size_of(artifact):
    return artifact.layers[0]["size"]


def wire(registry, artifact):
    return sum(request.sent for request in registry.seen(digest_of(artifact)))


def move(old, new, artifact):
    """What the daemon does with the files of a tar layer."""
    digest = digest_of(artifact).partition(":")[2]
    if not os.path.exists(os.path.join(old, digest + ".tar")):
        return
    for name in os.listdir(old):
        if name == digest + ".tar" or name.startswith(digest[:16] + "-"):
            os.rename(os.path.join(old, name), os.path.join(new, name))


def killed(start, pulled, more, folder=None, **job):
    """A worker that goes on with `folder`, and is killed when so many `more` bytes went out; its folder."""
    registry, artifact, _, reference = pulled
    worker = start(reference, **{**JOB, **job})
    if folder:
        move(folder, worker.folder, artifact)
    until = wire(registry, artifact) + more
    worker.until("resolved").plan(0)
    wait_for(lambda: wire(registry, artifact) >= until, "bytes", 60, 0.005)
    worker.close()
    return worker.folder


def finished(start, reference, artifact, folder, **job):
    worker = start(reference, **{**JOB, **job})
    move(folder, worker.folder, artifact)
    worker.until("resolved").plan(0)
    assert worker.finish() == 0, worker.failed
    return worker


def check(worker, tar):
    """The entries are those of the tar, and files hold what they should."""
    entries = {entry.path: entry for entry in worker.layers[0]}
    assert len(entries) == len(worker.layers[0])
    assert set(tar.tree) == set(entries)
    brought = set()
    for entry in worker.layers[0]:
        if entry.ingest:
            with open(os.path.join(worker.folder, entry.ingest), "rb") as file:
                assert hashlib.file_digest(file, "sha256").digest() == entry.digest, entry.path
                assert file.tell() == entry.size
            brought.add((entry.digest, entry.executable))
    for path, blob in tar.blobs.items():
        entry = entries[path]
        assert (f"sha256:{entry.digest.hex()}", entry.size) == (blob.digest, blob.size), path
        assert entry.executable == tar.tree[path].executable, path
        assert (entry.digest, entry.executable) in brought, path


@pytest.mark.parametrize("codec", CODECS)
def test_kill_at_many_moments_of_one_pull(served, start, codec):
    registry, artifact, tar, reference = pulled = served(codec, send_buffer=SEND_BUFFER)
    registry.rate = 4 * MIB  # a connection
    pick, folder = random.Random(codec), None
    for _ in range(5):
        folder = killed(start, pulled, pick.randrange(5 * MIB, 8 * MIB), folder, **SMALL)
    before = wire(registry, artifact)
    registry.rate = 0
    worker = finished(start, reference, artifact, folder, **SMALL)
    check(worker, tar)
    total, size = wire(registry, artifact), size_of(artifact)
    print(f"{codec}: {before / size:.2f} of the size before, {total / size:.3f} in all; "
          f"{worker.resumed[0] / size:.2f} were resumed")
    assert worker.resumed[0] > 0.2 * size
    assert total < size + 0.75 * before


@pytest.mark.parametrize("codec", ["tar", "tar+gzip"])
def test_what_has_its_space_is_told_at_once(served, start, codec):
    """Before anything comes: the file of 40 MiB that was open has all of its own."""
    registry, artifact, _, reference = pulled = served(codec, 40 * MIB)
    registry.rate = 8 * MIB
    folder = killed(start, pulled, 20 * MIB)
    registry.fault("/blobs/", "delay", seconds=60)
    worker = start(reference, **JOB)
    move(folder, worker.folder, artifact)
    worker.until("resolved").plan(0)
    while not worker.resumed.get(0):  # others say that it waits, or come before the files are hashed
        worker.until("progress")
    assert 0 < worker.resumed[0] == worker.progress[0] < 30 * MIB
    assert 40 * MIB <= worker.progress[0] + worker.ahead[0] < 42 * MIB
    worker.close()


@pytest.mark.parametrize("memory", [4 * MIB, 64 * MIB])
def test_other_buffers_go_on_or_begin_anew(served, start, memory):
    registry, artifact, tar, reference = pulled = served("tar+gzip")
    registry.rate = 8 * MIB
    folder = killed(start, pulled, 16 * MIB)
    registry.rate = 0
    check(finished(start, reference, artifact, folder, memory_bytes=memory), tar)


def test_what_was_finished_is_not_asked_for_again(served, start):
    registry, artifact, tar, reference = served("tar+gzip")
    registry.rate = 40 * MIB
    first = start(reference, **JOB)
    first.until("resolved").plan(0)
    assert first.finish() == 0
    before = wire(registry, artifact)
    worker = finished(start, reference, artifact, first.folder)
    check(worker, tar)
    assert wire(registry, artifact) == before >= size_of(artifact)
    assert worker.resumed[0] == size_of(artifact)


@pytest.mark.parametrize("short", [0, 1])
def test_what_was_finished_takes_its_part_of_the_room(served, start, short):
    registry, artifact, tar, reference = served("tar+gzip", large=8 * MIB)
    registry.rate = 16 * MIB
    first = start(reference, **JOB)
    first.until("resolved").plan(0)
    assert first.finish() == 0
    before = wire(registry, artifact)
    worker = start(reference, **JOB)
    move(first.folder, worker.folder, artifact)
    worker.content_max = sum(entry.size for entry in first.layers[0] if entry.ingest) - short
    worker.until("resolved").plan(0)
    assert (worker.finish() == 0) == (not short)
    assert wire(registry, artifact) == before
    if short:
        assert worker.failed.error == 28 and "no space left" in worker.failed.text
    else:
        check(worker, tar)


@pytest.mark.parametrize("victim", ["worker", "daemon"])
def test_the_daemon_keeps_a_tar_that_was_killed(work, served, victim):
    """Three kills of one pull: each time what was in memory comes again, and that of the last 0.25 s."""
    registry, artifact, _, reference = served("tar", 60 * MIB, send_buffer=SEND_BUFFER)
    registry.rate = 8 * MIB
    size, lost = size_of(artifact), 16 * MIB + 4 * MIB
    config = {"pull": {"connections": 2, "memory": "16MiB", "range_min": 4 * MIB}}
    with running_daemon(work, [registry.config()], config=config, release=True) as daemon:
        for _ in range(3):
            killed_pull(daemon, registry, reference, victim, lost + size // 8)
        before = wire(registry, artifact)
        registry.rate = 0
        done = daemon.ctl("pull", reference)
        assert done.code == 0, done
        assert_tree(tree_of(daemon, reference), artifact.tree)
        assert daemon.left_in_ingest() == []
        assert os.listdir(f"{daemon.store}/partial") == []
    total = wire(registry, artifact)
    print(f"{victim}: {before / size:.2f} of the size before, {total / size:.3f} in all")
    assert total <= size + 3 * lost


def large_file(folder, artifact):
    prefix = digest_of(artifact).partition(":")[2][:16]
    return os.path.join(folder, prefix + "-0")


DAMAGE = {
    "a bit of a file": lambda part, log, state: flip(part, MIB // 2),
    "a file is short": lambda part, log, state: os.truncate(part, 1000),
    "a file is gone": lambda part, log, state: os.unlink(part),
    "a file is a symlink": lambda part, log, state: (os.unlink(part), os.symlink("/etc/passwd", part)),
    "the list is short": lambda part, log, state: os.truncate(log, 0),
    "the list is another": lambda part, log, state: flip(log, 5),
    "the list is gone": lambda part, log, state: os.unlink(log),
    "the checkpoint is short": lambda part, log, state: os.truncate(state, 100),
    "the checkpoint is gone": lambda part, log, state: os.unlink(state),
    "the checkpoint is noise": lambda part, log, state: open(state, "wb").write(os.urandom(4 * MIB)),
    "bits of the checkpoint": lambda part, log, state: [flip(state, i * (MIB + MIB // 4) + 3000) for i in range(3)],
}


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([(byte or b"\0")[0] ^ 1]))


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_on_disk_is_not_believed(served, start, name):
    """Until the first large file is done, and until some small ones are, too."""
    registry, artifact, tar, reference = pulled = served("tar+gzip", large=8 * MIB)
    for part in (0.45, 0.84):
        registry.rate = 8 * MIB
        folder = killed(start, pulled, int(part * size_of(artifact)))
        prefix = digest_of(artifact).partition(":")[2]
        DAMAGE[name](large_file(folder, artifact), os.path.join(folder, prefix[:16] + "-entries"),
                     os.path.join(folder, prefix + ".tar"))
        registry.rate = 0
        check(finished(start, reference, artifact, folder), tar)


def test_a_failed_pull_keeps_what_it_unpacked(served, start):
    registry, artifact, tar, reference = served("tar+gzip", 40 * MIB)
    registry.rate = 16 * MIB
    registry.fault(digest_of(artifact), "status", status=500, skip=4)
    worker = start(reference, **JOB, give_up_seconds=1)
    worker.until("resolved").plan(0)
    assert worker.finish() != 0
    registry.clear_faults()
    registry.rate = 0
    worker = finished(start, reference, artifact, worker.folder)
    check(worker, tar)
    assert worker.resumed[0] > 4 * MIB


def test_wrong_content_leaves_nothing_to_go_on_with(served, start):
    registry, artifact, _, reference = pulled = served("tar")
    registry.rate = 8 * MIB
    folder = killed(start, pulled, 16 * MIB)
    registry.rate = 0
    registry.fault(digest_of(artifact), "corrupt", after=1000)
    worker = start(reference, **JOB)
    move(folder, worker.folder, artifact)
    worker.until("resolved").plan(0)
    assert worker.finish() != 0 and worker.failed.error == 74
    assert not os.listdir(worker.folder)
