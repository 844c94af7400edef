# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""kill -9 of the worker or the daemon at 50 random moments of one pull: little more than its size goes over the wire;
MC_SEED chooses the moments."""
import os
import random

import pytest

from lib.artifacts import MIB
from lib.check import running_daemon
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import assert_tree
from lib.kills import SEND_BUFFER, Pull, artifact, killed_pull, tree_of, wire

KILLS = 50


@pytest.mark.parametrize("victim", ["worker", "daemon"])
def test_kill_at_fifty_moments_of_one_pull(work, make_faulty, show, victim):
    """The release build: it starts more quickly."""
    registry = make_faulty(send_buffer=SEND_BUFFER)
    registry.rate = 2 * MIB  # little is on its way to the disk at a kill, also when the machine is busy
    made = artifact(work, ["big-1", "big-2", "big-3"], 64 * MIB, "big")
    reference = registry.add(made, "team/big", "v1")
    size = sum(blob.size for blob in made.blobs)
    seed = os.environ.get("MC_SEED", f"kill {victim}")
    chance = random.Random(seed)
    config = {"pull": {"connections": 4, "range_min": 8 * MIB}}
    with running_daemon(work, [registry.config()], config=config, release=True) as daemon:
        for _ in range(KILLS):
            killed_pull(daemon, registry, reference, victim, chance.randrange(size // KILLS))
        before = wire(registry)
        registry.rate = 0
        Pull(daemon, reference).good()
        assert_tree(tree_of(daemon, reference), made.tree)
        assert daemon.left_in_ingest() == []
    sent = wire(registry)
    show(f"MC_SEED={seed!r}, {victim}, {KILLS} kills: {before / size:.2f} of the size came before the last pull, "
         f"{sent / size:.3f} in all")
    assert size <= sent <= 1.2 * size
    assert before > 0.3 * size, "there was little to go on with"
