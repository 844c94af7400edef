# SPDX-License-Identifier: Apache-2.0
"""What a pull costs the disk: room for its content, once, at every moment of it, and few waits until all is durable."""
import os

import pytest

from lib.artifacts import MIB, Builder, modelpack_annotations, one_tar
from lib.check import need_programs, running_daemon
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import Random, Tar, assert_tree
from lib.disk import small_disk_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.kills import PREFIX, tree_of
from lib.sandbox import need
from lib.volumes import Traced
from lib.watch import Watch

FILES, SYNCS_MAX = 5000, 20
SLACK = MIB  # the index, folders, and what is noted to go on with: of a tar+gzip a third of a MiB


class DiskWatch(Watch):
    """The most that was taken of the file system at one moment, in bytes, beyond what was taken before."""

    seconds = 0.002

    def __init__(self, point):
        super().__init__()
        self.point = point
        self.free_before = self.free_least = self._free()

    def _free(self):
        fs = os.statvfs(self.point)  # without what is only promised to files: delayed allocation, fallocate(2)
        return fs.f_bfree * fs.f_frsize

    def look(self):
        self.free_least = min(self.free_least, self._free())

    def __exit__(self, *error):
        super().__exit__(*error)
        self.look()
        self.peak = self.free_before - self.free_least


def artifact(folder, codec):
    """Two layers; compressed, they are as large as their content."""
    out = Builder(folder)
    for i in range(2):
        path, blob = f"w{i}.safetensors", Random(14 * MIB + 4321, f"w{i}")
        if codec == "raw":
            out.raw(path, f"{PREFIX}.weight.v1.raw", blob, modelpack_annotations(path, blob))
            continue
        tar = Tar(folder, codec)
        tar.add_file(path, blob)
        for k in range(20):
            tar.add_file(f"small{i}/{k}", Random(5000, f"{i}/{k}"))
        out.tar(f"{PREFIX}.weight.v1.{codec}", tar)
    return out.done(f"{PREFIX}.config.v1+json", {"codec": codec}, f"{PREFIX}.manifest.v1+json")


@pytest.mark.parametrize("codec", ["raw", "tar+gzip", "tar+zstd"])
def test_content_is_on_disk_once_at_every_moment(work, small_disk, faulty, show, codec):
    made = artifact(work, codec)
    reference = faulty.add(made, "team/model", "v1")
    faulty.rate = 16 * MIB
    content = sum(entry.size for entry in made.tree.values())
    with running_daemon(os.path.join(work, "d"), [faulty.config()], store=os.path.join(small_disk, "store"),
                        config={"pull": {"memory": "16MiB", "range_min": 2 * MIB}}) as daemon:
        with DiskWatch(small_disk) as watch:
            result = daemon.ctl("pull", reference)
        assert result.code == 0, result
        assert_tree(tree_of(daemon, reference), made.tree)
    show(f"{codec}: at most {watch.peak / content:.3f} of the content on disk, {watch.samples} looks")
    assert watch.samples > 50
    assert content <= watch.peak <= content + SLACK


@pytest.fixture(name="count_syncs")
def count_syncs_fixture(work, faulty, monkeypatch):
    """count_syncs(artifact): how often its pull waits for the disk.  Without io_uring, so that strace sees what the
    worker does as well."""
    need_programs(release=True)
    need("strace")

    def count(made):
        reference = faulty.add(made, "team/counted", "v1")
        traced = Traced(os.path.join(work, "traced"))
        monkeypatch.setenv("MC_RELEASE_BIN", traced.folder)
        with running_daemon(os.path.join(work, "d"), [faulty.config()], release=True, no_uring=True,
                            config={"log": {"level": "info"}}) as daemon:
            traced.syncs()
            assert daemon.ctl("pull", reference).code == 0
            syncs = traced.syncs()
            assert_tree(tree_of(daemon, reference), made.tree)
        return syncs

    return count


def test_many_files_become_durable_together(work, count_syncs, show):
    tar = Tar(work, "tar+gzip")
    for i in range(FILES):
        tar.add_file(f"set/{i % 50}/{i}", Random(100, i))
    syncs = count_syncs(one_tar(work, tar, "application/vnd.oci.image.layer.v1.tar+gzip"))
    show(f"{FILES} files: {syncs} syncs")
    assert 1 <= syncs <= SYNCS_MAX


def test_a_small_file_is_durable_after_six_waits(work, count_syncs):
    """The file, its name, its row; the tree, its name, and the row of the reference with that of the artifact."""
    out, blob = Builder(work), Random(MIB, "w")
    out.raw("w.safetensors", f"{PREFIX}.weight.v1.raw", blob, modelpack_annotations("w.safetensors", blob))
    assert count_syncs(out.done(f"{PREFIX}.config.v1+json", {}, f"{PREFIX}.manifest.v1+json")) == 6
