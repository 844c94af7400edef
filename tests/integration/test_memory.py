# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Memory of the release build: the daemon and one worker together, whatever a pull brings; the daemon that has nothing to
do.  (One raw layer of a GiB beside many others: test_main_job.py.)  Pulls at the same time have a worker each, which share the
buffers of the node."""
import concurrent.futures
import contextlib
import os
import subprocess

import pytest

from lib.artifacts import MIB, Builder, modelpack_annotations
from lib.check import assert_pulls, publish, running_daemon, wait_idle
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import File, Random, Tar, assert_tree
from lib.kills import Pull
from lib.metrics import scrape
from lib.sandbox import HUGE_PAGES, buffer_bytes, memory_bytes, pick_port, wait_for
from lib.watch import Watch

PULL_MAX, IDLE_MAX = 160 * MIB, 12 * MIB  # idle after large pulls; fresh it is 9 MiB (bench/run, case e)
PREFIX = "application/vnd.cncf.model"


def tars(folder, seed, codec, count=4, size=32 * MIB):
    """As many layers as are decoded at once, and more."""
    out = Builder(folder)
    for i in range(count):
        tar = Tar(folder, codec)
        for k in range(8):
            tar.add_file(f"{i}/{k}.bin", Random(size // 8, f"{seed}/{i}/{k}"))
        out.tar(f"{PREFIX}.dataset.v1.{codec}", tar, {"org.cncf.model.filepath": str(i)})
    return out.done(f"{PREFIX}.config.v1+json", {"seed": seed}, f"{PREFIX}.manifest.v1+json")


def wide_windows(folder, seed):
    """zstd with windows of 8 MiB, which is what level 19 makes (and takes minutes for)."""
    out = Builder(folder)
    for i in range(4):
        tar = Tar(folder, "tar")
        tar.add_file(f"{i}.bin", Random(32 * MIB, f"{seed}/{i}"))
        plain, diff_id = tar.close()
        subprocess.run(["zstd", "-q", "-1", "--zstd=wlog=23", "--rm", "-o", plain.path + ".zst", plain.path], check=True)
        out.layer(f"{PREFIX}.dataset.v1.tar+zstd", File(plain.path + ".zst"), {"org.cncf.model.filepath": str(i)})
        out.diff_ids.append(diff_id)
        out.tree.update(tar.tree)
    return out.done(f"{PREFIX}.config.v1+json", {"seed": seed}, f"{PREFIX}.manifest.v1+json")


def raw(folder, seed, sizes):
    out = Builder(folder)
    for i, size in enumerate(sizes):
        path, blob = f"{i:04d}.bin", Random(size, f"{seed}/{i}")
        out.raw(path, f"{PREFIX}.weight.v1.raw", blob, modelpack_annotations(path, blob))
    return out.done(f"{PREFIX}.config.v1+json", {"seed": seed}, f"{PREFIX}.manifest.v1+json")


CASES = {
    "tar+gzip": lambda folder: tars(folder, "gzip", "tar+gzip"),
    "tar+zstd": lambda folder: tars(folder, "zstd", "tar+zstd"),
    "tar+zstd, windows of 8 MiB": lambda folder: wide_windows(folder, "wide"),
    "300 layers": lambda folder: raw(folder, "many", [4000 + i for i in range(300)]),
    "raw layers in ranges": lambda folder: raw(folder, "ranges", [65 * MIB] * 3),
}


class MemoryWatch(Watch):
    """The peaks, as the kernel counts them, of the daemon and of its largest worker."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon, self.peaks = daemon, {}

    def look(self):
        for pid in (self.daemon.pid, *self.daemon.worker_pids()):
            self.peaks[pid] = max(self.peaks.get(pid, 0), memory_bytes(pid, "VmHWM"))

    def check(self, show, what, workers=1):
        daemon = self.peaks.pop(self.daemon.pid)
        show(f"{what}: daemon {daemon / MIB:.1f} MiB, workers " +
             ", ".join(f"{peak / MIB:.1f}" for peak in self.peaks.values()))
        assert len(self.peaks) >= workers
        assert daemon + max(self.peaks.values()) <= PULL_MAX


@pytest.fixture(scope="module", name="daemons")
def daemons_fixture(module_work, registry):
    """By whether io_uring is refused."""
    with contextlib.ExitStack() as stack:
        yield {no_uring: stack.enter_context(running_daemon(
            os.path.join(module_work, f"d{int(no_uring)}"), [registry.config()], release=True, no_uring=no_uring,
            config={"log": {"level": "info"}})) for no_uring in (False, True)}


@pytest.fixture(scope="module", name="made")
def made_fixture(module_work):
    return {}


def reference_of(made, registry, module_work, name):
    if name not in made:
        artifact = CASES[name](module_work)
        made[name] = artifact, registry.push(artifact, f"memory/case-{len(made)}", "v1")
    return made[name]


@pytest.mark.parametrize("name,no_uring", [*((name, False) for name in CASES), ("tar+gzip", True),
                                           ("raw layers in ranges", True)])
def test_memory_of_a_pull(daemons, registry, module_work, made, show, name, no_uring):  # pylint: disable=too-many-arguments
    daemon = daemons[no_uring]
    artifact, reference = reference_of(made, registry, module_work, name)
    with MemoryWatch(daemon) as watch:
        result = daemon.ctl("pull", reference)
    assert result.code == 0, result
    watch.check(show, f"{name}{', io_uring refused' if no_uring else ''}")
    assert_pulls(daemon, "v", reference, artifact.tree)
    assert daemon.ctl("rm", reference).code == 0


def test_memory_of_pulls_at_the_same_time(daemons, registry, module_work, made, show):
    daemon = daemons[False]
    names = list(CASES)[:3]
    references = [reference_of(made, registry, module_work, name)[1] for name in names]
    with MemoryWatch(daemon) as watch, concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        results = list(pool.map(lambda reference: daemon.ctl("pull", reference), references))
    assert [result.code for result in results] == [0] * len(names), results
    watch.check(show, "three pulls", len(names))
    wait_idle(daemon)
    idle = memory_bytes(daemon.pid)
    show(f"idle daemon: {idle / MIB:.1f} MiB")
    assert idle <= IDLE_MAX


class BuffersWatch(Watch):
    """All workers together: now, and at most.  When one ends while it looks, others may have its memory already."""

    def __init__(self, daemon):
        super().__init__()
        self.daemon, self.now, self.most = daemon, [], 0

    def look(self):
        pids = self.daemon.worker_pids()
        now = sorted(filter(None, (buffer_bytes(pid)[1] for pid in pids)))
        if pids == self.daemon.worker_pids():
            self.now, self.most = now, max(self.most, sum(now))


def test_buffers_of_all_pulls_together(work, make_faulty, show):
    """A byte of each blob does not come, so that what comes behind it fills all buffers that a pull may have."""
    if not HUGE_PAGES:
        pytest.skip("a kernel without huge pages does not mark the memory that is to have them")
    registry, total, least, first = make_faulty(), 96 * MIB, 12 * MIB, 60 * MIB
    made = [raw(work, f"together-{i}", [112 * MIB]) for i in range(3)]
    references = [registry.add(artifact, f"team/{i}", "v1") for i, artifact in enumerate(made)]
    registry.fault("/manifests/", "delay", seconds=0.03)  # it is far, so blobs begin with several connections
    for artifact in made:
        registry.fault(f"/blobs/{artifact.blobs[0].digest}", "stall", places=set(range(MIB // 2, MIB)))
    address = f"127.0.0.1:{pick_port()}"
    pull = {"memory_total": f"{total}", "concurrent": 2, "connections": 24, "stall_timeout": "10m", "standby": "0"}
    with running_daemon(work, [registry.config()], config={"pull": pull, "metrics": {"address": address}}) as daemon:
        with BuffersWatch(daemon) as watch:
            pulls = []
            # The first has what is not kept for three others, then each a little.  One in the background has one connection,
            # which waits for the byte.
            for allowed, used in (([first], [first]), ([least, first], [least, first]), ([least, least, first], [MIB, least, first])):
                background = ["--background"] if len(pulls) == 2 else []
                pulls.append(Pull(daemon, *background, references[len(pulls)]))
                # The last buffer is kept for the byte.
                wait_for(lambda used=used: len(watch.now) == len(used) and
                         all(now >= most - MIB for now, most in zip(watch.now, used)), f"{used} bytes of buffers to be used", 60)
                assert all(use <= most for use, most in zip(watch.now, allowed)), (watch.now, allowed)
                assert scrape(address)["modelcached_pull_buffers_bytes"] == sum(allowed)
            registry.clear_faults()
            registry.cut()
            registry.mend()
            for pull in pulls:
                pull.good()
        show(f"buffers of three pulls: at most {watch.most / MIB:.1f} of {total / MIB:.0f} MiB")
        assert watch.most <= total
        wait_for(lambda: scrape(address)["modelcached_pull_buffers_bytes"] == 0, "buffers to be given back")
        for i, (artifact, reference) in enumerate(zip(made, references)):
            assert_tree(publish(daemon, f"v{i}", reference), artifact.tree)
