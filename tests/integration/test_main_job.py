# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
# ctest: serial
"""The main job on real input, with the release build: 1.5 GiB from a docker-registry through a CSI volume, measured."""
import errno
import os
import re
import statistics
import time

import grpc
import pytest

from lib.artifacts import Builder, modelpack_annotations
from lib.check import assert_store_good, du_bytes, mount_options, need_programs, publish, running_daemon, wait_idle
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import Random, Tar, Text, assert_tree
from lib.sandbox import memory_bytes, wait_for
from lib.watch import Watch

MIB = 1 << 20
PULL_RSS_MAX, IDLE_RSS_MAX = 160 * MIB, 12 * MIB
WARM_RUNS, MANY_FILES = 25, 60000
RPC_SECONDS = 0.5
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"


def big_artifact(folder):
    """One raw layer of 1 GiB, 128 raw layers of 2 MiB, a tar+zstd of 256 MiB in 512 files."""
    out = Builder(folder)

    def raw(path, blob):
        out.raw(path, WEIGHT, blob, modelpack_annotations(path, blob))

    raw("model-00001-of-00001.safetensors", Random(1024 * MIB, "big"))
    for i in range(128):
        raw(f"experts/expert-{i:03d}.safetensors", Random(2 * MIB, f"expert{i}"))
    raw("tokenizer.json", Text(3 * MIB, "tokenizer"))
    tar = Tar(folder, "tar+zstd")
    for i in range(512):
        tar.add_file(f"data/{i % 16:02d}/shard-{i:04d}.bin", Random(512 * 1024, f"shard{i}"))
    out.tar("application/vnd.cncf.model.dataset.v1.tar+zstd", tar, {"org.cncf.model.filepath": "data"})
    return out.done("application/vnd.cncf.model.config.v1+json", {"modelfs": {"type": "layers",
                                                                               "diffIds": out.diff_ids}},
                    "application/vnd.cncf.model.manifest.v1+json")


class MemoryWatch(Watch):
    """The largest RSS of daemon and workers together while it is watched; `high` adds the peaks that the kernel saw."""

    seconds = 0.02

    def __init__(self, daemon):
        super().__init__()
        self.daemon, self.peak, self.high = daemon, 0, 0

    def look(self):
        self.peak = max(self.peak, self.daemon.memory())
        self.high = max(self.high, self.daemon.memory("VmHWM"))


class Job:
    """The first publish, as the kubelet does it: short deadlines, tried again; and what was seen meanwhile."""

    def __init__(self, daemon, registry, folder):
        self.daemon, self.registry = daemon, registry
        self.artifact = big_artifact(folder)
        self.reference = registry.push(self.artifact, "team/big", "v1")
        self.bytes = sum(entry.size for entry in self.artifact.tree.values())
        self.disk_before, self.sent_before = du_bytes(daemon.store), registry.blob_bytes()
        self.errors = []
        self.target = daemon.target("first")
        start = time.monotonic()
        with MemoryWatch(daemon) as self.memory:
            self.publish_with_short_deadlines()
        self.seconds = time.monotonic() - start

    def publish_with_short_deadlines(self):
        csi, end = self.daemon.csi(), time.monotonic() + 240
        request = csi.publish_request("first", self.target, self.reference)
        while True:
            try:
                csi.NodePublishVolume(request, timeout=RPC_SECONDS)
                return
            except grpc.RpcError as error:
                self.errors.append((error.code(), error.details()))
                if time.monotonic() > end or error.code() not in (
                        grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
            time.sleep(0.05)


@pytest.fixture(scope="module", name="job")
def job_fixture(module_work, registry):
    need_programs(release=True)
    folder = os.path.join(module_work, "made")
    os.makedirs(folder)
    with running_daemon(os.path.join(module_work, "d"), [registry.config()], release=True,
                        config={"log": {"level": "info"}, "pull": {"standby": "1s"}}) as daemon:
        yield Job(daemon, registry, folder)


def test_retries_with_short_deadlines_join_one_pull_and_tell_progress(job, show):
    assert job.seconds > RPC_SECONDS, "the pull was faster than a deadline; make the artifact larger"
    assert job.errors
    show(f"cold: {job.bytes / MIB:.0f} MiB in {job.seconds:.1f} s, {len(job.errors)} retries, last: "
         f"{job.errors[-1][1]}")
    told = [text for code, text in job.errors if re.search(r"\d [KMG]iB of [\d.]+ [KMG]iB \(\d+ %\)", text or "")]
    assert len(told) >= len(job.errors) // 2, job.errors
    size = sum(layer["size"] for layer in job.artifact.layers)
    wait_for(lambda: job.registry.blob_bytes() - job.sent_before >= size, "the registry's log")
    assert job.registry.blob_bytes() - job.sent_before <= size * 1.02, "content was fetched twice"


def test_tree_is_byte_for_byte_the_artifact(job):
    assert_tree(job.target, job.artifact.tree)


def test_memory_while_pulling(job, show):
    show(f"RSS of daemon + worker while pulling: {job.memory.peak / MIB:.1f} MiB of {job.memory.samples} samples, sum of "
         f"the kernel's peaks {job.memory.high / MIB:.1f} MiB")
    assert job.memory.samples > 10
    assert max(job.memory.peak, job.memory.high) < PULL_RSS_MAX


def test_memory_when_idle(job, show):
    wait_idle(job.daemon)
    rss = wait_for(lambda: (now := job.daemon.memory()) < IDLE_RSS_MAX and now or None,
                   f"less than {IDLE_RSS_MAX} bytes", 10)
    show(f"RSS of the idle daemon: {rss / MIB:.1f} MiB")


def test_memory_when_idle_after_many_files(job, show, module_work):
    """What their commit, and an answer that names them all, took from the heap goes back."""
    tar, out = Tar(module_work), Builder(module_work)
    for i in range(MANY_FILES):
        tar.add(tar.info(f"set/{i % 100}/file-with-a-long-name-{i}"), Random(1, "same"))
    out.tar("application/vnd.cncf.model.dataset.v1.tar", tar)
    reference = job.registry.push(out.done("application/vnd.cncf.model.config.v1+json", {},
                                           "application/vnd.cncf.model.manifest.v1+json"), "team/many", "v1")
    before, peak = memory_bytes(job.daemon.pid), 0
    for command in ("pull", "inspect"):
        assert job.daemon.ctl(command, reference).code == 0
        peak = max(peak, memory_bytes(job.daemon.pid, "VmHWM"))
        wait_idle(job.daemon)
        rss = wait_for(lambda: (now := job.daemon.memory()) < IDLE_RSS_MAX and now or None,
                       f"less than {IDLE_RSS_MAX} bytes after {command}", 10)
        show(f"RSS of the idle daemon after {command} of {MANY_FILES} files: {rss / MIB:.1f} MiB (before "
             f"{before / MIB:.1f}, peak {peak / MIB:.1f})")
    assert job.daemon.ctl("rm", reference).code == 0


def test_disk_holds_one_copy_after_the_pull(job, show):
    grown = du_bytes(job.daemon.store) - job.disk_before
    show(f"on disk: {grown / MIB:.1f} MiB for {job.bytes / MIB:.1f} MiB")
    assert grown < job.bytes * 1.02


def test_second_publish_makes_no_blob_request(job, show):
    """How long it takes is printed here and measured by bench/run (e)."""
    csi, before, seconds = job.daemon.csi(), job.registry.blob_gets(), []
    for i in range(WARM_RUNS):
        name = f"warm{i}"
        target = job.daemon.target(name)
        request = csi.publish_request(name, target, job.reference)
        start = time.monotonic()
        csi.NodePublishVolume(request, timeout=10)
        seconds.append(time.monotonic() - start)
        assert os.path.getsize(os.path.join(target, "tokenizer.json")) == 3 * MIB
        csi.unpublish(name, target)
    show(f"warm publish: median {statistics.median(seconds) * 1e3:.2f} ms, best {min(seconds) * 1e3:.2f}, worst "
         f"{max(seconds) * 1e3:.2f} of {WARM_RUNS}")
    time.sleep(0.2)  # the registry's log comes after its answers
    assert job.registry.blob_gets() == before


def test_ten_volumes_use_one_copy_on_disk(job, show):
    before = du_bytes(job.daemon.store)
    targets = [publish(job.daemon, f"copy{i}", job.reference) for i in range(10)]
    grown = du_bytes(job.daemon.store) - before
    show(f"ten volumes: the store grew by {grown / 1024:.0f} KiB")
    assert grown < 4 * MIB
    together = du_bytes(job.daemon.store, *targets)
    assert together < du_bytes(job.daemon.store) * 1.02, "the volumes are not the same files"
    inodes = {os.stat(os.path.join(target, "tokenizer.json")).st_ino for target in targets}
    assert len(inodes) == 1
    for i, target in enumerate(targets):
        job.daemon.csi().unpublish(f"copy{i}", target)


def test_mount_is_read_only_nosuid_nodev_noexec(job):
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount_options(job.target))


@pytest.mark.parametrize("what", ["write", "create", "remove", "chmod", "directory"])
def test_writes_are_refused(job, what):
    path = os.path.join(job.target, "tokenizer.json")
    with pytest.raises(OSError) as refused:
        if what == "write":
            with open(path, "r+b"):
                pass
        elif what == "create":
            with open(os.path.join(job.target, "new"), "wb"):
                pass
        elif what == "remove":
            os.unlink(path)
        elif what == "chmod":
            os.chmod(path, 0o777)
        else:
            os.mkdir(os.path.join(job.target, "new"))
    assert refused.value.errno == errno.EROFS


def test_store_is_good_at_the_end(job):
    job.daemon.csi().unpublish("first", job.target)
    assert_store_good(job.daemon)
