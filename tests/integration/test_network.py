# SPDX-License-Identifier: Apache-2.0
"""A network that goes and comes back in the middle of a pull, and one that breaks all the time: it goes on where it was."""
import pytest

from lib.artifacts import MIB, one_tar
from lib.check import running_daemon
from lib.content import Random, Tar, assert_tree
from lib.kills import SEND_BUFFER, Pull, artifact, tree_of, wire
from lib.sandbox import wait_for

SIZE = 16 * MIB


def made_of(work, kind):
    if kind == "raw":
        return artifact(work, ["w"], SIZE, "w")
    tar = Tar(work, kind)
    for i in range(2):
        tar.add_file(f"w{i}.bin", Random(SIZE // 2, f"w{i}"))
    return one_tar(work, tar, f"application/vnd.oci.image.layer.v1.{kind}")


def state_of(daemon):
    """The only pull."""
    [pull] = daemon.ctl_json("status")["pulls"]
    return pull


@pytest.mark.parametrize("kind", ["raw", "tar+gzip"])
def test_a_registry_that_is_gone_for_seconds(work, make_faulty, kind):
    registry, made = make_faulty(send_buffer=SEND_BUFFER), made_of(work, kind)
    reference = registry.add(made, "team/model", "v1")
    registry.rate = 4 * MIB
    config = {"pull": {"connections": 4, "range_min": MIB, "memory": "16MiB", "give_up": "30s"}}
    with running_daemon(work, [registry.config()], config=config) as daemon:
        pull, told = Pull(daemon, "--output", "json", reference), set()
        wait_for(lambda: wire(registry) > SIZE // 3, "a part of it")
        registry.cut()

        def tries_in_vain():
            told.add(state_of(daemon)["waiting"])
            return sum("trying again in" in (text or "") for text in told) >= 3

        wait_for(tries_in_vain, "tries")
        there, before = state_of(daemon)["bytes_done"], len(registry.seen("/blobs/"))
        assert there > SIZE // 4
        registry.rate = 0
        registry.mend()
        pull.good()
        assert_tree(tree_of(daemon, reference), made.tree)
    size = sum(layer["size"] for layer in made.layers)
    again = registry.seen("/blobs/")[before:]
    assert sum(r.sent for r in again) <= size - there, "what was there came again"
    assert wire(registry) <= 1.05 * size
    assert any("connect to server" in (text or "") for text in told), told


def test_slow_is_no_reason_to_give_up(work, make_faulty):
    """No connection brings much, and all together take several times as long as a pull may go on without a byte."""
    registry, made = make_faulty(send_buffer=SEND_BUFFER), artifact(work, ["w"], MIB + MIB // 4, "w")
    reference = registry.add(made, "team/model", "v1")
    registry.rate = MIB // 2
    registry.fault(f"/blobs/{made.layers[0]['digest']}", "truncate", after=300_000)
    with running_daemon(work, [registry.config()], config={"pull": {"connections": 1, "give_up": "1s"}}) as daemon:
        pull = Pull(daemon, reference).good()
        assert_tree(tree_of(daemon, reference), made.tree)
    assert len(registry.seen(made.layers[0]["digest"])) > 3
    assert pull.seconds > 3
