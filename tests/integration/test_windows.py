# SPDX-License-Identifier: Apache-2.0
"""zstd windows above 32 MiB: a pull has one at a time; layers that wait for it hold nothing up, and nothing is lost."""
import json
import os
import random
import signal
import subprocess

import pytest

from lib import artifacts
from lib.check import running_daemon
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import Bytes, File, Tar, Text, assert_tree
from lib.kills import Pull, tree_of
from lib.pulling import MIB, pb, pull, start  # noqa: F401 pylint: disable=unused-import
from lib.sandbox import memory_bytes, wait_for
from lib.watch import Watch

TYPE = "application/vnd.oci.image.layer.v1.tar"
WINDOW = 128 * MIB
JOB = {"memory_bytes": 16 * MIB, "connections": 4}
COMMON = 32 * MIB
# As docs/config.md has it: pull.memory, 7 MiB and a common window for each of four layers, of which there are no more at once
# than processors, one large window; and the program.
PEAK_MAX = 16 * MIB + min(4, len(os.sched_getaffinity(0))) * (7 * MIB + COMMON) + WINDOW + 16 * MIB
WAITS = "zstd windows above 32 MiB are decoded one at a time"


class Zeros(Bytes):
    """What fills a window and costs no disk, as notes of aufs are skipped."""

    def __init__(self):
        super().__init__(bytes(WINDOW + 8 * MIB))


def noise(size, seed):
    """Of which no part comes again: lib.content.Random repeats itself, and such windows are large enough to see that."""
    return Bytes(random.Random(seed).randbytes(size))


def packed(data, *options):
    return subprocess.run(["zstd", "-q", "-1", "-c", *options], input=data, stdout=subprocess.PIPE, check=True).stdout


# pylint: disable-next=too-many-arguments
def layer(out, name, before, behind, full=True, segment=0):
    """A tar+zstd: so many random bytes, then what fills a window of 128 MiB, then so many again.  All but the last of those
    `before` come in frames that need small windows, which do not end where buffers do.  full: else nothing fills it.
    segment: the frame before the last has so many bytes, and a window of as many."""
    tar = Tar(out.folder, "tar")
    tar.add_file(f"{name}/first.bin", noise(before, f"{name}/first"))
    if full:
        tar.add(Tar.info(f"{name}/.wh..wh.notes"), Zeros())
    tar.add_file(f"{name}/last.bin", noise(behind, f"{name}/last"))
    for i in range(20):
        tar.add_file(f"{name}/small{i}.txt", Text(100 + 997 * i, f"{name}/{i}"))
    plain, diff_id = tar.close()
    small = max(before - 1000, 0)
    with open(plain.path, "rb") as file, open(plain.path + ".zst", "wb") as packs:
        while file.tell() < small:
            packs.write(packed(file.read(min(300_001, small - file.tell()))))
        if segment:
            packs.write(packed(file.read(segment), "--long=27", f"--stream-size={segment}"))
        packs.write(packed(file.read(), "--long=27"))
    os.unlink(plain.path)
    out.layer(TYPE + "+zstd", File(plain.path + ".zst"))
    out.diff_ids.append(diff_id)
    out.tree.update(tar.tree)


def image(folder, layers, more=()):
    """An image of layers (what layer() wants) and, of `more`, of gzipped ones of so many bytes."""
    out = artifacts.Builder(folder)
    for one in layers:
        layer(out, *one)
    for name, size in more:
        tar = Tar(folder, "tar+gzip")
        tar.add_file(f"{name}/file.bin", noise(size, name))
        out.tar(TYPE + "+gzip", tar)
    return out.done("application/vnd.oci.image.config.v1+json", {
        "os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": out.diff_ids}})


def add(registry, artifact):
    """The first layer comes first."""
    for one in artifact.layers[1:]:
        registry.fault(one["digest"], "delay", seconds=0.4, times=1)
    return registry.add(artifact, "team/windows")


def check(worker, artifact):
    entries = {entry.path: entry for layer in worker.layers.values() for entry in layer}
    for path, entry in artifact.tree.items():
        assert (entries[path].digest.hex(), entries[path].size) == (entry.sha256, entry.size), path
        assert len(worker.file(entries[path])) == entry.size


def content_of(artifact):
    return sum(entry.size for entry in artifact.tree.values())


class Peak(Watch):
    """Of a worker, as the kernel counts it."""

    def __init__(self, worker):
        super().__init__()
        self.pid, self.bytes = worker.process.pid, 0

    def look(self):
        self.bytes = max(self.bytes, memory_bytes(self.pid, "VmHWM"))


def peak_of(start, reference, artifact):
    worker = start(reference, release=True, **JOB)
    worker.content_max = content_of(artifact)
    with Peak(worker) as peak:
        pull(worker)
    check(worker, artifact)
    return peak.bytes


def test_memory_is_that_of_one_large_window(start, registry, work, show):
    artifact = image(work, [(f"l{i}", 0, 16 * MIB) for i in range(5)])
    peak = peak_of(start, registry.push(artifact, "team/windows"), artifact)
    show(f"five layers with windows of 128 MiB: {peak / MIB:.1f} MiB")
    assert WINDOW < peak < PEAK_MAX


def test_memory_of_a_window_is_given_back(start, registry, work, show):
    """Layers whose windows grow from 29 MiB, which malloc(3) would keep for each thread from the second one on, to a large
    one: beside that there is one of 29 MiB for each other thread."""
    one = image(work, [("l", 0, MIB)])
    many = image(work, [(f"l{i}", 0, MIB, True, 29 * MIB) for i in range(4)])
    peaks = [peak_of(start, registry.push(artifact, "team/growing"), artifact) for artifact in (one, many)]
    show(f"windows that grow: {peaks[1] / MIB:.1f} MiB, one of 128 MiB alone: {peaks[0] / MIB:.1f} MiB")
    assert peaks[1] < peaks[0] + (min(4, len(os.sched_getaffinity(0))) - 1) * COMMON


def test_the_window_goes_from_layer_to_layer(start, registry, work):
    """Quickly: some ask for it just when the one that has it ends."""
    artifact = image(work, [(f"l{i}", 0, i * 10_000, False) for i in range(40)], [(f"g{i}", 50_000) for i in range(20)])
    worker = start(registry.push(artifact, "team/many"), **JOB)
    pull(worker)
    check(worker, artifact)


@pytest.fixture(name="slow")
def slow_fixture(make_faulty):
    registry = make_faulty()
    registry.rate = 4 * MIB  # a connection
    return registry


def test_others_go_on_while_layers_wait(start, slow, work):
    """The first has the window until its end; the second and third wait for it, longer than for progress, the others do
    not."""
    artifact = image(work, [("a", 0, 12 * MIB), ("b", 0, 2 * MIB), ("c", 0, MIB)], [("d", MIB), ("e", MIB // 2)])
    worker = start(add(slow, artifact), give_up_seconds=2, **JOB)
    slow.fault(artifact.layers[1]["digest"], "status", status=503, times=1)  # when it goes on
    pull(worker)
    assert list(worker.layers)[2:] == [0, 1, 2]
    assert f"layer 2 of 5: waits for layer 1: {WAITS} (and 1 other layer)" in worker.waiting
    assert f"layer 3 of 5: waits for layer 2: {WAITS}" in worker.waiting
    check(worker, artifact)


def test_a_layer_whose_later_frame_is_large_goes_on_there(start, slow, work):
    """What it had unpacked counts once in the room that the pull has, and is not taken for what was here before."""
    artifact = image(work, [("a", 0, 14 * MIB), ("b", 6 * MIB, MIB)])
    worker = start(add(slow, artifact), **JOB)
    worker.content_max = content_of(artifact)
    seen = [0]
    worker.until("resolved").plan()
    while worker.receive() is not None:
        seen.append(worker.progress.get(1, 0))
    assert worker.process.wait(timeout=60) == 0 and worker.done
    parked = [bytes_there for bytes_there in seen if bytes_there > 3 * MIB]
    assert parked == sorted(parked)
    digest, size = artifact.layers[1]["digest"], artifact.layers[1]["size"]
    came = sum(request.sent for request in slow.seen(digest))
    assert f"layer 2 of 2: waits for layer 1: {WAITS}" in worker.waiting
    assert worker.resumed.get(1, 0) == 0
    assert size < came < size + 4 * MIB
    check(worker, artifact)


def test_layers_that_wait_keep_their_part_of_the_room(start, slow, work):
    """What they have unpacked lies on the disk."""
    artifact = image(work, [("a", 0, 40 * MIB, False)] + [(f"l{i}", 6 * MIB, MIB, False) for i in range(8)])
    worker = start(add(slow, artifact), **JOB)
    worker.content_max, most = 40 * MIB + 16 * MIB, 0
    worker.until("resolved").plan()
    while worker.receive() is not None:
        most = max(most, sum(os.stat(path).st_blocks * 512 for path in files_of(worker.folder)))
    assert worker.process.wait(timeout=60) != 0 and "no space left" in worker.failed.text, worker.failed.text
    assert most < worker.content_max + 8 * MIB


def files_of(folder):
    return [os.path.join(folder, name) for name in os.listdir(folder)]


def until_parked(worker):
    worker.until("resolved").plan()
    while not any(WAITS in text for text in worker.waiting):
        worker.until("progress")


def test_a_layer_that_fails_ends_those_that_wait(start, slow, work):
    artifact = image(work, [("a", 0, 8 * MIB), ("b", 0, 2 * MIB)])
    worker = start(add(slow, artifact), **JOB)
    slow.fault(artifact.layers[0]["digest"], "corrupt", after=7 * MIB)
    until_parked(worker)
    assert worker.finish() != 0
    assert worker.failed.error in (71, 74) and "layer 1 of 2" in worker.failed.text
    assert not os.listdir(worker.folder)


def test_a_daemon_that_goes_ends_those_that_wait(start, slow, work):
    artifact = image(work, [("a", 0, 20 * MIB), ("b", 4 * MIB, 2 * MIB)])
    worker = start(add(slow, artifact), **JOB)
    until_parked(worker)
    worker.socket.close()
    assert worker.process.wait(timeout=10) != 0


def test_a_pull_is_killed_while_layers_wait(work, slow):
    artifact = image(work, [("a", 0, 20 * MIB), ("b", 6 * MIB, 2 * MIB), ("c", 0, 2 * MIB)])
    reference = add(slow, artifact)
    with running_daemon(work, [slow.config()], config={"pull": {"memory": "16MiB"}}) as daemon:
        killed = Pull(daemon, reference)
        wait_for(lambda: any(WAITS + " (and 1 other layer)" in (one["waiting"] or "")
                             for one in daemon.ctl_json("status")["pulls"]), "two layers that wait", 60)
        os.kill(daemon.worker_pids()[0], signal.SIGKILL)
        killed.join()
        assert killed.result.code != 0
        slow.rate = 0
        done = daemon.ctl("--output", "json", "pull", reference)
        assert done.code == 0, done
        assert json.loads(done.stdout.splitlines()[-1])["bytes_resumed"] > 3 * MIB
        assert_tree(tree_of(daemon, reference), artifact.tree)
        assert daemon.left_in_ingest() == []
