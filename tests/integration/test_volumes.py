# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Volumes over time: reboots, kills, cycles, crowds."""
import collections
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.artifacts import MIB, Builder, image, modelpack, modelpack_annotations
from lib.check import assert_store_good, need_programs, publish, wait_idle
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import Random, assert_tree
from lib.csi import CsiClient
from lib.kubelet import OWN_CONNECTION
from lib.sandbox import mounts_beneath, need, wait_for
from lib.volumes import Traced, cycles_leave_nothing, forget_volumes, kill_with_live_volumes, unmount

RECORDED, LEFT_OVER = 250, 10


# Reboots.

@pytest.mark.parametrize("directories", ["stay", "went"])
def test_reboot_with_stale_records(make_daemon, faulty, work, monkeypatch, show, directories):
    """Mounts are gone, records are not; and, as after an index was put back, there are mounts without records.  All is found
    in under a second, by the daemon's own clock, and the disk is not waited for once a volume."""
    need_programs(release=True)
    need("strace")
    daemon = make_daemon([faulty.config()], release=True, config={"log": {"level": "info"}})
    reference, made = faulty.add(modelpack(work), "team/model", "v1"), modelpack(work)
    targets = {f"v{i}": publish(daemon, f"v{i}", reference) for i in range(RECORDED + LEFT_OVER)}
    daemon.stop_clean()
    stale, kept = list(targets)[:RECORDED], list(targets)[RECORDED:]
    unmount(*(targets[name] for name in stale))
    for name in stale if directories == "went" else []:
        os.rmdir(targets[name])
    forget_volumes(daemon, kept)
    shutil.copy(f"{daemon.store}/index.db", f"{work}/index.db")
    before = len(daemon.log())
    daemon.restart()
    word = re.search(r"found 0 volumes mounted, (\d+) not mounted, (\d+) gone, (\d+) mounts without a volume, in "
                     r"(\d+ ([a-z]+))", daemon.log()[before:])
    assert word, daemon.log()[before:][-2000:]
    show(f"directories {directories}: {RECORDED} volumes and {LEFT_OVER} leftovers in {word[4]}")
    assert word[5] in ("us", "ms"), word[0]
    assert [int(n) for n in word.groups()[:3]] == (
        [0, RECORDED, LEFT_OVER] if directories == "went" else [RECORDED, 0, LEFT_OVER])
    traced = Traced(os.path.join(work, "traced"))
    monkeypatch.setenv("MC_RELEASE_BIN", traced.folder)
    daemon.restart()  # there is nothing stale any more, or it is told of again
    usual = traced.syncs()
    daemon.stop_clean()
    shutil.copy(f"{work}/index.db", f"{daemon.store}/index.db")
    traced.syncs()
    daemon.start()
    assert traced.syncs() <= usual + 20
    for name in [*stale[:5], *kept]:  # as the kubelet does; the leftovers, too
        publish(daemon, name, reference)
        assert len(mounts_beneath(targets[name])) == 1
        assert_tree(targets[name], made.tree)
    for name, target in targets.items():
        daemon.csi().unpublish(name, target)
        assert not os.path.exists(target)
    assert not mounts_beneath(daemon.kubelet_dir) and daemon.ctl_json("status")["volumes"] == 0
    assert_store_good(daemon)


def test_small_artifact_waits_for_its_own_writes(make_daemon, faulty, work, monkeypatch):
    """Not by syncfs(2), which takes as long as all that others wrote to the disk.  Where that must be, it is: symlinks."""
    need_programs(release=True)
    need("strace")
    traced = Traced(os.path.join(work, "traced"))
    monkeypatch.setenv("MC_RELEASE_BIN", traced.folder)
    daemon = make_daemon([faulty.config()], release=True, config={"log": {"level": "info"}})
    traced.syncs()
    publish(daemon, "few", faulty.add(modelpack(work, tar_codec=None), "team/few", "v1"))
    assert traced.syncs("syncfs") == 0
    publish(daemon, "links", faulty.add(image(work), "team/links", "v1"))
    assert traced.syncs("syncfs") > 0


# Kills.

KILLS = 100


def test_kills_with_live_volumes(make_daemon, faulty, work, show):
    need_programs(release=True)
    daemon = make_daemon([faulty.config()], release=True, config={"log": {"level": "warn"}})
    kill_with_live_volumes(daemon, faulty, work, KILLS, show)


# Cycles: 10,000 of them are in test_soak_volumes.py.

CYCLES = 500


def test_cycles_leave_nothing(make_daemon, faulty, work, show):
    need_programs(release=True)
    daemon = make_daemon([faulty.config()], release=True, config={"log": {"level": "warn"}})
    cycles_leave_nothing(daemon, faulty, work, CYCLES, show)


# A crowd.

PUBLISHERS, ARTIFACTS = 64, 8


def family(folder):
    """Artifacts of one repository, which have the half of their bytes in common."""
    made = []
    for number in range(ARTIFACTS):
        out, prefix = Builder(folder), "application/vnd.cncf.model"
        for path, seed in (("base.safetensors", "base"), ("adapter.safetensors", f"adapter{number}")):
            blob = Random(4 * MIB, seed)
            out.raw(path, f"{prefix}.weight.v1.raw", blob, modelpack_annotations(path, blob))
        made.append(out.done(f"{prefix}.config.v1+json", {"number": number}, f"{prefix}.manifest.v1+json"))
    return made


def test_crowd_on_a_cold_cache_downloads_each_blob_once(make_daemon, make_registry, work):
    registry = make_registry()
    made = family(work)
    references = [registry.push(artifact, "team/family", f"v{i}") for i, artifact in enumerate(made)]
    daemon, barrier = make_daemon([registry.config()]), threading.Barrier(PUBLISHERS)

    def one(number):
        target = daemon.target(f"pod{number}")
        with CsiClient(daemon.csi_socket, OWN_CONNECTION) as csi:
            barrier.wait()
            csi.publish(f"pod{number}", target, references[number % ARTIFACTS])
        return target

    with ThreadPoolExecutor(PUBLISHERS) as pool:
        targets = list(pool.map(one, range(PUBLISHERS)))
    blobs = {layer["digest"] for artifact in made for layer in artifact.layers}
    size = len(blobs) * 4 * MIB
    wait_for(lambda: registry.blob_bytes() >= size, "the registry's log")
    wait_idle(daemon)
    gets = collections.Counter(path.rsplit("/", 1)[1] for method, path, _ in registry.requests()
                               if method == "GET" and "/blobs/" in path)
    assert blobs <= set(gets) and set(gets.values()) == {1}, gets
    assert registry.blob_bytes() <= size + 100_000  # the configs
    for number, target in enumerate(targets):
        assert len(mounts_beneath(target)) == 1
        if number < ARTIFACTS:
            assert_tree(target, made[number].tree)
    assert_store_good(daemon)
