# SPDX-License-Identifier: Apache-2.0
"""What a pull waits for is seen wherever one looks: a layer whose registry says no for now, while others go on, and a
connection that other pulls have."""
import grpc
import pytest

from lib.artifacts import MIB, modelpack
from lib.check import publish, running_daemon
from lib.content import assert_tree
from lib.csi import error_of
from lib.kills import Pull, artifact, tree_of
from lib.sandbox import wait_for


def pulls(daemon):
    """The pulls of cache-ctl status, by reference."""
    return {pull["reference"]: pull for pull in daemon.ctl_json("status").get("pulls", [])}


@pytest.mark.parametrize("repository", ["team/waits", "/".join(["a-team-with-a-long-name"] * 5)], ids=["short", "long"])
def test_what_one_layer_waits_for_while_another_moves(make_faulty, work, repository):
    """The sentence that the kubelet gets has all that matters, also where there is no room for all of it."""
    registry, made = make_faulty(), modelpack(work, sizes=(24 * MIB, MIB), tar_codec=None)
    reference = registry.add(made, repository, "v1")
    registry.rate = 3 * MIB
    registry.fault(f"/blobs/{made.layers[1]['digest']}", "status", status=503, headers={"Retry-After": "5"}, times=1)
    with running_daemon(work, [registry.config()], config={"pull": {"give_up": "30s"}}) as daemon:
        pull = Pull(daemon, reference)
        wait_for(lambda: "503" in (pulls(daemon).get(reference, {}).get("waiting") or ""), "the wait of the second layer")
        before = pulls(daemon)[reference]
        request = daemon.csi().publish_request("pod", daemon.target("pod"), reference)
        code, sentence = error_of(daemon.csi().NodePublishVolume, request, timeout=3.5)
        after = pulls(daemon)[reference]
        for text in before["waiting"], after["waiting"], sentence, daemon.ctl("status").stdout:
            assert f"layer 2 of {len(made.layers)}: " in text and "503" in text and "trying again in 5." in text, text
        assert code == grpc.StatusCode.ABORTED and "iB/s" in sentence, sentence  # it moves
        assert after["bytes_done"] > before["bytes_done"] + MIB
        wait_for(lambda: not pulls(daemon)[reference]["waiting"], "the end of the wait", 15)
        assert reference in pulls(daemon)
        said = pull.good().result.stdout
        assert "layer 2 of" in said and "503" in said and "trying again in 5." in said, said
        assert_tree(publish(daemon, "pod", reference), made.tree)


@pytest.mark.parametrize("limit", ["node", "registry"])
def test_more_pulls_than_connections(make_faulty, work, limit):
    """One transfer at a time, whatever the number of pulls; the others say what they wait for, and get their turn."""
    registry = make_faulty()
    registry.rate = MIB
    made = [artifact(work, [f"one-{i}", f"two-{i}"], 4 * MIB, f"name{i}") for i in range(4)]
    references = [registry.add(one, f"team/{i}", "v1") for i, one in enumerate(made)]
    config, pull = registry.config(), {}
    full = "waits for a connection: other pulls have all that "
    if limit == "node":
        pull, full = {"connections": 1}, full + "pull.connections allows"
    else:
        config["connections"] = 1
        full += f"registries[].connections allows for {config['host']}"
    with running_daemon(work, [config], config={"pull": {"give_up": "1s", "range_min": "1MiB", **pull}}) as daemon:
        running = [Pull(daemon, "--background", reference) for reference in references[:2]]
        wait_for(lambda: sum(p["bytes_done"] > 0 for p in pulls(daemon).values()) == 1, "the first one's bytes")
        running += [Pull(daemon, reference) for reference in references[2:]]
        wait_for(lambda: [p["waiting"] for p in pulls(daemon).values()].count(full) == 3, "three that wait")
        registry.rate = 8 * MIB
        for each in running:
            each.good()
        assert sum(full in each.result.stdout for each in running) >= 3
        for one, reference in zip(made, references):
            assert_tree(tree_of(daemon, reference), one.tree)
    # The registry takes a moment to see that a connection is gone.
    spans = [(r.time, r.ended - 0.2) for r in registry.seen("/blobs/") if r.ended]
    worst = max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)
    assert worst == 1, f"{worst} transfers at a time"
    wanted, background = ([max(r.ended for r in registry.seen(f"team/{i}/blobs/")) for i in numbers]
                          for numbers in ((2, 3), (0, 1)))
    assert max(wanted) < min(background), "a pull that somebody waits for waited for the background"
