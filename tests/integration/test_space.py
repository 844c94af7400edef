# SPDX-License-Identifier: Apache-2.0
# ctest: refused
"""Space that several pulls need at a time, on a small disk: each byte is counted once, and moves with a layer."""
import os
import signal
import subprocess
import threading

import pytest

from lib.artifacts import Builder, modelpack_annotations
from lib.check import assert_store_good, running_daemon, wait_idle
from lib.content import Random, Tar, assert_tree
from lib.disk import MIB, mounted_disk, small_disk_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.kills import PREFIX, Pull, tree_of
from lib.sandbox import wait_for

LARGE = 28 * MIB  # of about 46 that may be used


def artifact(folder, codec="raw", **sizes):
    """A ModelPack of weights, by name."""
    out = Builder(folder)
    for name, size in sizes.items():
        path, blob = f"{name}.safetensors", Random(size, name)
        if codec == "raw":
            out.raw(path, f"{PREFIX}.weight.v1.raw", blob, modelpack_annotations(path, blob))
        else:
            tar = Tar(folder, codec)
            tar.add_file(path, blob)
            out.tar(f"{PREFIX}.weight.v1.{codec}", tar)
    return out.done(f"{PREFIX}.config.v1+json", {"of": list(sizes)}, f"{PREFIX}.manifest.v1+json")


def many_files(folder, n):
    out, tar = Builder(folder), Tar(folder, "tar")
    for i in range(n):
        tar.add_file(f"f{i}", Random(100 + i, f"many{i}"))
    out.tar(f"{PREFIX}.weight.v1.tar", tar)
    return out.done(f"{PREFIX}.config.v1+json", {"of": n}, f"{PREFIX}.manifest.v1+json")


@pytest.fixture(name="daemon")
def daemon_fixture(work, small_disk, faulty):
    with running_daemon(os.path.join(work, "d"), [faulty.config()], config={"pull": {"connections": 2}},
                        store=os.path.join(small_disk, "store")) as daemon:
        yield daemon
        assert_store_good(daemon)


def pulls(daemon):
    return {pull["reference"]: pull for pull in daemon.ctl_json("status").get("pulls", [])}


def bytes_of(daemon, reference):
    return pulls(daemon).get(reference, {}).get("bytes_done", 0)


def is_waiting(daemon, reference):
    return (pulls(daemon).get(reference, {}).get("waiting") or "").startswith("waits for layer")


CODECS = pytest.mark.parametrize("codec", ["raw", "tar", "tar+gzip"])


@CODECS
def test_what_a_running_pull_has_allocated_is_counted_once(daemon, faulty, work, codec):
    """The free space of the file system is without it already."""
    faulty.rate = 2 * MIB
    references = [faulty.add(made, f"team/{tag}", tag) for tag, made in
                  (("large", artifact(work, codec, large=LARGE)), ("other", artifact(work, other=MIB)))]
    large = Pull(daemon, references[0])
    wait_for(lambda: bytes_of(daemon, references[0]) > 3 * MIB, "the first bytes")
    Pull(daemon, references[1]).good()
    assert large.is_alive() and bytes_of(daemon, references[0]) < LARGE
    faulty.rate = 0
    large.good()


def test_what_is_allocated_before_the_first_byte_is_counted_once(daemon, faulty, work):
    large, other = artifact(work, large=LARGE), artifact(work, other=MIB)
    references = [faulty.add(large, "team/large", "v1"), faulty.add(other, "team/other", "v1")]
    answered = threading.Event()
    faulty.fault(f"/blobs/{large.layers[0]['digest']}", "delay", seconds=60, times=1, gate=answered)
    pull = Pull(daemon, references[0])
    try:
        wait_for(lambda: daemon.disk_bytes() > LARGE, "its space")
        # Until that is told, with the next progress, the other one does not fit.
        wait_for(lambda: daemon.ctl("pull", references[1]).code == 0, "the other pull", 10)
        assert pull.is_alive() and bytes_of(daemon, references[0]) == 0
    finally:
        answered.set()
    pull.good()


@CODECS
def test_a_layer_that_is_taken_over_has_its_room(daemon, faulty, work, codec):
    """What the first pull had allocated is the second one's when the first one's worker is killed."""
    faulty.rate = 2 * MIB
    two = artifact(work, codec, large=LARGE, other=MIB)
    references = [faulty.add(made, "team/model", tag) for tag, made in
                  (("one", artifact(work, codec, large=LARGE)), ("two", two))]
    first = Pull(daemon, references[0])
    wait_for(lambda: bytes_of(daemon, references[0]) > 3 * MIB, "the first bytes")
    worker, = daemon.worker_pids()
    second = Pull(daemon, references[1])
    wait_for(lambda: is_waiting(daemon, references[1]), "the wait")
    os.kill(worker, signal.SIGKILL)
    faulty.rate = 0
    first.join()
    assert first.result.code != 0
    second.good()
    assert_tree(tree_of(daemon, references[1]), two.tree)


def test_what_gives_way_is_room_for_the_pull(daemon, faulty, work):
    """A layer of a pull that failed is dropped before the next one begins, which fits then."""
    failing, next_one = artifact(work, large=LARGE, never=MIB), artifact(work, larger=LARGE + MIB)
    reference = faulty.add(failing, "team/failing", "v1")
    faulty.fault(f"/blobs/{failing.layers[1]['digest']}", "status", status=503)
    assert daemon.ctl("pull", reference).code != 0
    wait_idle(daemon)
    assert daemon.disk_bytes() > LARGE
    reference = faulty.add(next_one, "team/next", "v1")
    Pull(daemon, reference).good()
    assert_tree(tree_of(daemon, reference), next_one.tree)


def take_inodes(folder):
    """Takes the last one as well; returns the files that have them."""
    files = []
    while True:
        files.append(os.path.join(folder, f"empty{len(files)}"))
        try:
            open(files[-1], "x", encoding="ascii").close()
        except OSError:
            return files[:-1]


def test_a_disk_without_inodes_says_so(faulty, work):
    """Neither for a tar of many files nor for as many layers; what fits comes all the same."""
    references = [faulty.add(made, f"team/{tag}", tag) for tag, made in
                  (("tar", many_files(work, 600)), ("raw", artifact(work, **{f"f{i}": 100 + i for i in range(600)})),
                   ("few", artifact(work, "tar", few=MIB)))]
    with mounted_disk(work, "-N", "512") as point:
        with running_daemon(os.path.join(work, "d"), [faulty.config()], store=os.path.join(point, "store")) as daemon:
            def lacks_inodes(reference):
                result = daemon.ctl("pull", reference)
                print(result.stderr)
                assert result.code == 6 and "no inodes are left" in result.stderr, result
                wait_idle(daemon)

            lacks_inodes(references[0])
            lacks_inodes(references[1])
            files = take_inodes(point)
            lacks_inodes(references[2])
            for file in files:
                os.unlink(file)
            Pull(daemon, references[2]).good()
            assert_store_good(daemon)


@pytest.mark.parametrize("left", [0, 12], ids=["for nothing", "for the beginning"])
def test_what_only_an_old_tree_holds_is_room(faulty, work, left):
    """Its artifact was removed while a mount of somebody else showed it, and had been taken for gone: nothing else is
    dropped for the pull.  With `left` inodes it begins, and its worker has none for all of its files."""
    old, new = (faulty.add(many_files(work, n), f"team/{n}", "v1") for n in (300, 60))
    shown = os.path.join(work, "shown")
    os.makedirs(shown)
    with mounted_disk(work, "-N", "1024") as point:
        with running_daemon(os.path.join(work, "d"), [faulty.config()], store=os.path.join(point, "store")) as daemon:
            Pull(daemon, old).good()
            subprocess.run(["mount", "--bind", tree_of(daemon, old), shown], check=True)
            try:
                assert daemon.ctl("rm", old).code == 0
            finally:
                subprocess.run(["umount", shown], check=True)
            for file in take_inodes(point)[:left]:
                os.unlink(file)
            Pull(daemon, new).good()
            assert_store_good(daemon)
