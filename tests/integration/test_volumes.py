# SPDX-License-Identifier: Apache-2.0
"""Volumes over time: reboots, kills, cycles, crowds."""
import os
import re
import shutil

import pytest

from lib.artifacts import modelpack
from lib.check import assert_store_good, need_programs, publish
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import assert_tree
from lib.sandbox import mounts_beneath, need
from lib.volumes import Traced, forget_volumes, unmount

RECORDED, LEFT_OVER = 250, 10


# Reboots.

@pytest.mark.parametrize("directories", ["stay", "went"])
def test_reboot_with_stale_records(make_daemon, faulty, work, monkeypatch, show, directories):
    """Mounts are gone, records are not; and, as after an index was put back, there are mounts without records.  How long it
    takes is shown; what is asserted is that the disk is not waited for once a volume."""
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
                     r"([\d.]+ [a-zµ]+)", daemon.log()[before:])
    assert word, daemon.log()[before:][-2000:]
    show(f"directories {directories}: {RECORDED} volumes and {LEFT_OVER} leftovers in {word[4]}")
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
