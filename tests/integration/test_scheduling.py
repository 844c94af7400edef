# SPDX-License-Identifier: Apache-2.0
"""Several pulls at a time, and pulls that are interrupted: each blob is fetched once, pulls that somebody waits for go
first, and what was fetched before a kill -9 is not fetched again."""
import os
import random
import re
import signal
import threading
import time

import pytest

from lib.artifacts import MIB, Builder, modelpack_annotations
from lib.check import running_daemon
from lib.content import Bytes, Random, assert_tree
from lib.sandbox import wait_for

PREFIX = "application/vnd.cncf.model"
TURN = "waits for a turn"


def artifact(work, seeds, size, name):
    """A ModelPack of one raw weight a seed; `name` makes it an artifact of its own."""
    out = Builder(work)
    for seed in seeds:
        path, blob = f"{seed}.safetensors", Random(size, seed)
        out.raw(path, f"{PREFIX}.weight.v1.raw", blob, modelpack_annotations(path, blob))
    path, blob = "config.json", Bytes('{"name": "%s"}' % name)
    out.raw(path, f"{PREFIX}.weight.config.v1.raw", blob, modelpack_annotations(path, blob))
    return out.done(f"{PREFIX}.config.v1+json", {"name": name}, f"{PREFIX}.manifest.v1+json")


class Pull(threading.Thread):
    """cache-ctl pull in a thread of its own."""

    def __init__(self, daemon, *arguments):
        super().__init__()
        self.daemon_under_test, self.arguments, self.result, self.seconds = daemon, arguments, None, None
        self.start()

    def run(self):
        start = time.monotonic()
        self.result = self.daemon_under_test.ctl("pull", *self.arguments)
        self.seconds = time.monotonic() - start

    def good(self):
        self.join()
        assert self.result.code == 0, self.result
        return self


def pulls(daemon):
    """The pulls of cache-ctl status, by reference."""
    return {pull["reference"]: pull for pull in daemon.ctl_json("status").get("pulls", [])}


def starts_of(registry, blob):
    """How often the blob was asked for from its first byte."""
    return [r for r in registry.seen(f"/blobs/{blob.digest}") if
            re.match(r"bytes=0-", r.headers.get("range", "bytes=0-"))]


def tree_of(daemon, reference):
    digest = daemon.ctl_json("inspect", reference)["digest"]
    return f"{daemon.store}/trees/{digest.removeprefix('sha256:')}"


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


def test_background_bandwidth(work, make_faulty):
    registry = make_faulty()
    made = artifact(work, ["limited"], 4 * MIB, "limited")
    reference = registry.add(made, "team/limited", "v1")
    with running_daemon(work, [registry.config()], config={"pull": {"background_bandwidth": "2MiB"}}) as daemon:
        limited = Pull(daemon, "--background", reference).good()
        assert limited.seconds >= 1, limited.seconds
        assert_tree(tree_of(daemon, reference), made.tree)


@pytest.mark.parametrize("victim", ["daemon", "worker"])
def test_kill_9_and_go_on(work, make_faulty, victim):
    """Ten times at a random moment, then to the end: little more than the size goes over the wire."""
    registry = make_faulty()
    registry.rate = 16 * MIB
    made = artifact(work, ["big-1", "big-2", "big-3"], 40 * MIB, "big")
    reference = registry.add(made, "team/big", "v1")
    size = sum(blob.size for blob in made.blobs)
    chance = random.Random(f"kill {victim}")
    with running_daemon(work, [registry.config()]) as daemon:
        for _ in range(10):
            pull = Pull(daemon, reference)
            time.sleep(chance.uniform(0.05, 0.5))
            if victim == "daemon":
                daemon.kill9()
                daemon.start()
            else:
                for pid in daemon.worker_pids():
                    os.kill(pid, signal.SIGKILL)
            pull.join()
        Pull(daemon, reference).good()
        assert_tree(tree_of(daemon, reference), made.tree)
        assert daemon.left_in_ingest() == []
    sent = sum(r.sent for r in registry.seen("/blobs/"))
    assert sent <= 1.2 * size, f"{sent / size:.2f} of the size"
