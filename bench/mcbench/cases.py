# SPDX-License-Identifier: Apache-2.0
"""The cases: what is pulled, from where, by whom."""
import dataclasses

from mcbench import inputs, peers
from mcbench.contender import (Bound, BoundTwo, BoundTwoUnhashed, BoundTwoWrites, Modelcached, ModelcachedAlone,
                               ModelcachedCached, ModelcachedRead, ModelcachedReadCached, ModelcachedThreads)
from mcbench.inputs import GIB, MIB

OURS = (Modelcached, ModelcachedThreads)
CONTAINERDS = (peers.Containerd, peers.Containerd2)
SLOW_DELAY_MS, SLOW_MIB = 20, 50


@dataclasses.dataclass
class Point:
    """One artifact of a case: make(folder, scale) builds it."""
    label: str
    make: object


@dataclasses.dataclass
class Case:
    """All its points are measured in the same rounds.  wire: "plain", "tls" or "slow"."""
    name: str
    title: str
    points: list
    contenders: tuple
    wire: str = "plain"
    files: bool = False  # unpack


def raw(*sizes, small=0):
    return lambda folder, scale: inputs.model(folder, [int(size * scale) for size in sizes], small)


def image(codec):
    return lambda folder, scale: inputs.image(folder, codec, int(GIB * scale), max(10, int(20000 * scale)))


CASES = (
    Case("a", "one raw layer of 1.5 GiB and 5 small ones", [Point("", raw(1536 * MIB, small=5))],
         (*OURS, ModelcachedCached, Bound, peers.Curl, peers.Skopeo, *CONTAINERDS, peers.Aria2, peers.Crane, peers.Oras)),
    Case("b", "8 raw layers of 256 MiB", [Point("", raw(*[256 * MIB] * 8))],
         (*OURS, BoundTwo, BoundTwoUnhashed, BoundTwoWrites, peers.Curl, peers.Skopeo, *CONTAINERDS, peers.Aria2,
          peers.Crane, peers.Oras)),
    Case("c", "an image of 1 GiB in 20,000 files, half compressible, pull to mountable",
         [Point("gzip", image("tar+gzip")), Point("zstd", image("tar+zstd"))],
         (*OURS, *CONTAINERDS, peers.Curl), files=True),
    Case("d", "5,000 small files, each a layer",
         [Point("", lambda folder, scale: inputs.many(folder, max(10, int(5000 * scale))))],
         (*OURS, peers.Curl, peers.Containerd2, peers.Aria2, peers.Oras)),  # the others take many minutes
    Case("f", "how the cost grows: one raw layer of 0.25 to 4 GiB",
         [Point(f"{size:g} GiB", raw(int(size * GIB))) for size in (0.25, 0.5, 1, 2, 4)],
         (*OURS, ModelcachedAlone, Bound)),
    Case("g", "(a) over TLS, nginx in front of the registry", [Point("", raw(1536 * MIB, small=5))],
         (*OURS, peers.Curl, peers.Skopeo, *CONTAINERDS, peers.Aria2, peers.Crane, peers.Oras), wire="tls"),
    Case("h", f"one raw layer of 1 GiB, {SLOW_DELAY_MS} ms away, {SLOW_MIB} MiB/s a connection",
         [Point("", raw(GIB))],
         (*OURS, peers.Curl, peers.Aria2, peers.Containerd2), wire="slow"),
    Case("i", "around the page cache or through it: pull, mount, read all of it through the mount",
         [Point(f"{size:g} GiB", raw(int(size * GIB), small=5)) for size in (1, 4)],
         (ModelcachedRead, ModelcachedReadCached)),
)
LATENCY = ("e", "warm publish, the RPC of the kubelet")
