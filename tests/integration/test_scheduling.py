# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Several pulls at a time: each blob is fetched once, and pulls that somebody waits for go first."""
import re

from lib.artifacts import MIB
from lib.check import publish, running_daemon
from lib.content import assert_tree
from lib.kills import Pull, artifact, tree_of
from lib.sandbox import wait_for

TURN = "waits for a turn"


def pulls(daemon):
    """The pulls of cache-ctl status, by reference."""
    return {pull["reference"]: pull for pull in daemon.ctl_json("status").get("pulls", [])}


def starts_of(registry, blob):
    """How often the blob was asked for from its first byte."""
    return [r for r in registry.seen(f"/blobs/{blob.digest}") if
            re.match(r"bytes=0-", r.headers.get("range", "bytes=0-"))]


def test_two_pulls_that_share_blobs_fetch_each_once(work, make_faulty):
    registry = make_faulty()
    registry.rate = 4 * MIB
    one = artifact(work, ["shared-1", "shared-2", "only-one"], 2 * MIB, "one")
    two = artifact(work, ["only-two", "shared-2", "shared-1"], 2 * MIB, "two")
    references = [registry.add(made, "team/shared", tag) for made, tag in ((one, "one"), (two, "two"))]
    with running_daemon(work, [registry.config()]) as daemon:
        running = [Pull(daemon, reference) for reference in references]
        for pull in running:
            pull.good()
        for made, reference in zip((one, two), references):
            assert_tree(tree_of(daemon, reference), made.tree)
    for blob in {b.digest: b for b in one.blobs + two.blobs}.values():
        assert len(starts_of(registry, blob)) <= 1, blob.digest
    total = sum({b.digest: b.size for b in one.blobs + two.blobs}.values())
    assert sum(r.sent for r in registry.seen("/blobs/")) <= total


def test_the_second_pull_fetches_what_the_first_one_could_not(work, make_faulty):
    registry = make_faulty()
    registry.rate = 2 * MIB
    one = artifact(work, ["shared"], 3 * MIB, "one")
    two = artifact(work, ["shared"], 3 * MIB, "two")
    references = [registry.add(made, "team/shared", tag) for made, tag in ((one, "one"), (two, "two"))]
    registry.fault(f"/blobs/{one.blobs[0].digest}", "corrupt", after=MIB, times=1)
    with running_daemon(work, [registry.config()]) as daemon:
        first = Pull(daemon, references[0])
        wait_for(lambda: registry.seen(f"/blobs/{one.blobs[0].digest}"), "the first pull")
        second = Pull(daemon, references[1])
        first.join()
        second.good()
        assert first.result.code != 0
        assert_tree(tree_of(daemon, references[1]), two.tree)


def test_a_pull_that_somebody_waits_for_does_not_wait_for_the_background(work, make_faulty):
    registry = make_faulty()
    registry.rate = MIB
    slow = artifact(work, ["slow-1"], 6 * MIB, "slow")
    queued = artifact(work, ["queued-1"], MIB, "queued")
    wanted = artifact(work, ["wanted-1"], MIB // 2, "wanted")
    references = [registry.add(made, f"team/{i}", "v1") for i, made in enumerate((slow, queued, wanted))]
    with running_daemon(work, [registry.config()], config={"pull": {"concurrent": 1}}) as daemon:
        background = [Pull(daemon, "--background", reference) for reference in references[:1]]
        wait_for(lambda: pulls(daemon).get(references[0], {}).get("bytes_total"), "the first pull")
        background.append(Pull(daemon, "--background", references[1]))
        wait_for(lambda: references[1] in pulls(daemon), "the second pull")
        assert pulls(daemon)[references[1]]["waiting"] == TURN
        Pull(daemon, references[2]).good()
        state = pulls(daemon)
        assert references[0] in state
        assert state[references[1]]["waiting"] == TURN
        lifted = Pull(daemon, references[1])  # somebody waits for it now
        wait_for(lambda: references[1] not in pulls(daemon) or
                 pulls(daemon)[references[1]]["waiting"] != TURN, "the lifted pull")
        lifted.good()
        assert references[0] in pulls(daemon)
        for pull in background:
            pull.good()


def test_a_pod_lifts_the_background_pull_it_waits_for(work, make_faulty):
    """One that waits for its turn, and one that runs and would take 24 s."""
    registry = make_faulty()
    slow, queued = artifact(work, ["slow-2"], 12 * MIB, "slow"), artifact(work, ["queued-2"], MIB, "queued")
    references = [registry.add(made, f"team/{i}", "v1") for i, made in enumerate((slow, queued))]
    config = {"pull": {"concurrent": 1, "background_bandwidth": "512KiB"}}
    with running_daemon(work, [registry.config()], config=config) as daemon:
        background = [Pull(daemon, "--background", references[0])]
        wait_for(lambda: pulls(daemon).get(references[0], {}).get("bytes_done"), "the first pull")
        background.append(Pull(daemon, "--background", references[1]))
        wait_for(lambda: pulls(daemon).get(references[1], {}).get("waiting") == TURN, "the second pull")
        assert_tree(publish(daemon, "queued", references[1], seconds=8), queued.tree)
        state = pulls(daemon)[references[0]]
        assert state["bytes_done"] < 6 * MIB, "it was to be slow"
        assert_tree(publish(daemon, "slow", references[0], seconds=8), slow.tree)
        for pull in background:
            pull.good()


def test_background_bandwidth(work, make_faulty):
    registry = make_faulty()
    made = artifact(work, ["limited"], 4 * MIB, "limited")
    reference = registry.add(made, "team/limited", "v1")
    with running_daemon(work, [registry.config()], config={"pull": {"background_bandwidth": "2MiB"}}) as daemon:
        limited = Pull(daemon, "--background", reference).good()
        assert limited.seconds >= 1, limited.seconds
        assert_tree(tree_of(daemon, reference), made.tree)
