# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""The attribute timeout: how long a volume waits for its artifact, over all tries of the kubelet."""
import json
import time

import grpc
import pytest

from lib.artifacts import MIB, modelpack
from lib.check import assert_sentence, publish, publish_error, wait_idle
from lib.content import assert_tree
from lib.csi import error_of
from lib.sandbox import mounts_beneath, wait_for

ABORTED, DEADLINE = grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.fixture(name="slow")
def slow_fixture(make_daemon, faulty, work):
    class Slow:
        made = modelpack(work, sizes=(24 * MIB,))
        registry = faulty
        daemon = make_daemon([faulty.config()])
        reference = faulty.add(made, "team/slow", "v1")
    faulty.rate = 2 * MIB
    return Slow


def gives_up(daemon, name, reference, seconds, **options):
    begin = time.monotonic()
    code, text = error_of(daemon.csi().publish, name, daemon.target(name), reference, timeout="2s", **options)
    assert code == DEADLINE and "gave up after 2 s, the volume's timeout: " in text, (code, text)
    assert reference in text
    assert_sentence(text)
    assert seconds - 0.2 <= time.monotonic() - begin < seconds + 2
    return text


def test_a_volume_gives_up_and_so_does_the_pull(slow):
    text = gives_up(slow.daemon, "one", slow.reference, 2)
    assert "is not here in time" in text and " of 24." in text, text
    assert not mounts_beneath(slow.daemon.kubelet_dir)
    wait_idle(slow.daemon, 5)  # nobody else wanted it
    gets = slow.registry.blob_gets()
    text = gives_up(slow.daemon, "one", slow.reference, 0)  # the kubelet's next try
    assert "cache-ctl pull brings it" in text, text
    assert slow.registry.blob_gets() == gets
    events = [json.loads(line) for line in slow.daemon.ctl("--output", "json", "events").stdout.splitlines()]
    events = [event["text"] for event in events if event["type"] == "volume.failed"]
    assert any("gave up after 2 s" in text for text in events), events
    slow.registry.rate = 0
    assert slow.daemon.ctl("pull", slow.reference).code == 0
    assert_tree(publish(slow.daemon, "one", slow.reference, timeout="2s"), slow.made.tree)


def test_the_time_is_counted_over_all_tries(slow):
    """Nobody waits when it is over: the pull ends all the same, and the next try is told."""
    daemon = slow.daemon
    request = daemon.csi().publish_request("one", daemon.target("one"), slow.reference, timeout="3s")
    code, text = error_of(daemon.csi().NodePublishVolume, request, timeout=2.0)
    assert code == ABORTED and "the next try joins it" in text, (code, text)
    assert daemon.worker_pids()
    wait_for(lambda: not daemon.worker_pids(), "the end of the pull", 5)
    code, text = error_of(daemon.csi().NodePublishVolume, request, timeout=2.0)
    assert code == DEADLINE and "gave up after 3 s" in text, (code, text)
    daemon.csi().unpublish("one", daemon.target("one"))
    slow.registry.rate = 0
    publish(daemon, "one", slow.reference, timeout="3s")  # it begins anew


def test_the_pull_goes_on_for_who_waits_longer(slow):
    daemon = slow.daemon
    slow.registry.rate = 6 * MIB
    request = daemon.csi().publish_request("long", daemon.target("long"), slow.reference)
    call = daemon.csi().NodePublishVolume.future(request, timeout=60)
    gives_up(daemon, "short", slow.reference, 2)
    assert not call.done()
    call.result(30)
    assert_tree(daemon.target("long"), slow.made.tree)
    assert_tree(publish(daemon, "short", slow.reference, timeout="2s"), slow.made.tree)
    for layer in slow.made.layers:
        assert sum(r.sent for r in slow.registry.seen(layer["digest"])) <= layer["size"] * 1.05 + 1000


def test_in_time(slow):
    slow.registry.rate = 0
    assert_tree(publish(slow.daemon, "one", slow.reference, timeout="1m"), slow.made.tree)


@pytest.mark.parametrize("value", ["0s", "soon", "25h", "-1s"])
def test_times_that_cannot_be(slow, value):
    code, text = publish_error(slow.daemon, "bad", slow.reference, timeout=value)
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "from 1s to 24h" in text, (code, text)
