# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""What is kept of interrupted layers: how often it is tried, who sees it, how it goes."""
import glob
import json
import os
import signal

import pytest

from lib import artifacts
from lib.artifacts import MIB
from lib.content import Random, Tar, assert_tree
from lib.kills import SEND_BUFFER, Pull, artifact, killed_pull, tree_of
from lib.metrics import scrape
from lib.sandbox import pick_port, wait_ended, wait_for

SIZE = 24 * MIB
TRIES = 5  # PARTIAL_TRIES
REMOVED = 'modelcached_store_removed_bytes_total{cause="request"}'


class Scene:
    """A daemon, and one layer in a registry, of which a pull had a part when its worker was killed."""

    def __init__(self, work, make_daemon, make_faulty, kind):
        self.registry = make_faulty(send_buffer=SEND_BUFFER)
        if kind == "tar":
            tar = Tar(work, "tar")
            for i in range(3):
                tar.add_file(f"w{i}.bin", Random(SIZE // 3, f"w{i}"))
            self.made = artifacts.one_tar(work, tar, "application/vnd.oci.image.layer.v1.tar")
        else:
            self.made = artifact(work, ["w"], SIZE, "w")
        self.reference = self.registry.add(self.made, "team/part", "v1")
        self.digest = self.made.layers[0]["digest"]
        self.metrics = f"127.0.0.1:{pick_port()}"
        self.daemon = make_daemon([self.registry.config()], config={
            "pull": {"connections": 2, "memory": "16MiB", "range_min": 4 * MIB, "give_up": "1s"},
            "metrics": {"address": self.metrics}})
        self.interrupt()

    def interrupt(self):
        self.registry.rate = 8 * MIB
        killed_pull(self.daemon, self.registry, self.reference, "worker", SIZE // 2)
        self.registry.rate = 0
        assert self.kept() == 1

    def kept(self):
        return self.daemon.ctl_json("status")["partial_layers"]

    def claimed(self):
        return [path for end in ("map", "tar") for path in glob.glob(f"{self.daemon.store}/ingest/*/*.{end}")]

    def fail(self, victim):
        """A pull that gets what is kept, and no byte; then its worker or its daemon is killed, or the daemon stopped."""
        pull = Pull(self.daemon, self.reference)
        wait_for(self.claimed, "the layer in the folder of a pull", 30, 0.005)
        if victim == "worker":
            os.kill(self.daemon.worker_pids()[0], signal.SIGKILL)
        elif victim == "daemon":
            workers = self.daemon.worker_pids()
            self.daemon.kill9()
            wait_ended(workers, "the worker's end")
            self.daemon.start()
        elif victim == "stop":
            self.daemon.restart()
        pull.join()
        assert pull.result.code != 0, pull.result
        assert self.kept() == 1

    def pull(self):
        """The rest; returns how much of it was on disk."""
        result = self.daemon.ctl("--output", "json", "pull", self.reference)
        assert result.code == 0, result
        assert_tree(tree_of(self.daemon, self.reference), self.made.tree)
        assert self.daemon.left_in_ingest() == [] and os.listdir(f"{self.daemon.store}/partial") == []
        return json.loads(result.stdout.splitlines()[-1])["bytes_resumed"]

    def dropped(self):
        """Lines of the log that say so."""
        return [line for line in self.daemon.log().splitlines() if "and the layer begins anew" in line]

    def metric(self, name, value):
        """Of what the store is asked for, a scrape shows what was at the one before."""
        wait_for(lambda: scrape(self.metrics)[name] == value, f"{name} {value}", 20, 0.1)


@pytest.fixture(params=["raw", "tar"], name="scene")
def scene_fixture(work, make_daemon, make_faulty, request):
    return Scene(work, make_daemon, make_faulty, request.param)


@pytest.mark.parametrize("victim", ["worker", "daemon"])
def test_a_layer_that_its_pulls_die_of_begins_anew(scene, victim):
    scene.registry.fault(scene.digest, "delay")
    for _ in range(TRIES):
        scene.fail(victim)
        assert not scene.dropped()
    scene.registry.clear_faults()
    assert scene.pull() == 0
    [line] = scene.dropped()
    assert scene.digest in line and json.loads(line)["pull"]


def test_what_got_further_is_not_counted(scene):
    for _ in range(2):
        scene.registry.fault(scene.digest, "delay")
        for _ in range(TRIES - 1):
            scene.fail("worker")
        scene.registry.clear_faults()
        scene.registry.rate = 2 * MIB
        killed_pull(scene.daemon, scene.registry, scene.reference, "worker", 2 * MIB)
        scene.registry.rate = 0
    assert scene.pull() > 0 and not scene.dropped()


@pytest.mark.parametrize("why", ["registry", "stop"])
def test_ends_that_are_not_for_the_layer_are_not_counted(scene, why):
    scene.registry.fault(scene.digest, "status" if why == "registry" else "delay")
    for _ in range(TRIES + 1):
        scene.fail(why)
    scene.registry.clear_faults()
    assert scene.pull() > 0 and not scene.dropped()


def test_it_is_shown_and_dropped(scene):
    daemon = scene.daemon
    status = daemon.ctl_json("status")
    assert status["partial_layers"] == 1 and status["partial_bytes"] > SIZE // 8
    assert "\npartial     1 layer of interrupted pulls, " in daemon.ctl("status").stdout
    scene.metric("modelcached_store_partial_layers", 1)
    scene.metric("modelcached_store_partial_bytes", status["partial_bytes"])
    freed = daemon.ctl_json("prune")["bytes_freed"]
    assert 0 <= freed - status["partial_bytes"] < 1000  # the small layer was whole, perhaps
    assert scrape(scene.metrics)[REMOVED] == freed
    assert os.listdir(f"{daemon.store}/partial") == []
    status = daemon.ctl_json("status")
    assert (status["partial_layers"], status["partial_bytes"]) == (0, 0)
    assert "interrupted pulls" not in daemon.ctl("status").stdout
    scene.metric("modelcached_store_partial_layers", 0)
    assert daemon.ctl("prune").stdout == "dropped what interrupted pulls had left, 0 B freed\n"
    assert "store.pruned" in daemon.ctl("events").stdout
    assert scene.pull() == 0


def test_a_pull_that_runs_loses_nothing(scene):
    scene.registry.rate = 4 * MIB
    pull = Pull(scene.daemon, "--output", "json", scene.reference)
    wait_for(scene.claimed, "the layer in the folder of a pull", 30, 0.005)
    while pull.is_alive():
        assert scene.daemon.ctl_json("prune") == {"bytes_freed": 0}
    pull.good()
    assert json.loads(pull.result.stdout.splitlines()[-1])["bytes_resumed"] > SIZE // 8
    assert_tree(tree_of(scene.daemon, scene.reference), scene.made.tree)
