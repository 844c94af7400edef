# SPDX-License-Identifier: Apache-2.0
"""Case (e): how long NodePublishVolume takes when everything is there, also when the registry is asked."""
import contextlib
import os
import shutil
import time

from lib.daemon import Daemon
from lib.sandbox import wait_for
from mcbench import inputs
from mcbench.contender import SETTLE_SECONDS
from mcbench.inputs import MIB
from mcbench.meter import Failed

PUBLISHES = 1000
ASKS = 30  # each takes as long as a worker to stand by again
NAMES = ("publish", "empty RPC (Probe)", "write + fdatasync of 4 KiB")


def quantile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def timed(call, *arguments):
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start


def sync_block(handle):
    os.pwrite(handle, bytes(4096), 0)
    os.fdatasync(handle)


def one_round(daemon, reference, count, number):
    """Seconds of `count` publishes, of as many RPCs that do nothing, and of as many blocks made durable beside the
    store: each publish makes one record durable, so that is the disk's share of it."""
    csi = daemon.csi()
    publishes, probes, syncs = [], [], []
    handle = os.open(os.path.join(daemon.folder, "block"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    for i in range(count):
        volume, target = f"bench-{number}-{i}", daemon.target(f"pod-{number}-{i}")
        publishes.append(timed(csi.NodePublishVolume, csi.publish_request(volume, target, reference)))
        probes.append(timed(csi.Probe, csi.pb.ProbeRequest()))
        syncs.append(timed(sync_block, handle))
        csi.unpublish(volume, target)
    os.close(handle)
    return publishes, probes, syncs


class Asker:
    """A daemon of which each publish has the registry say what the tag is now; nothing is fetched."""

    def __init__(self, name, daemon, reference, stands_by):
        self.name, self.daemon, self.reference, self.stands_by = name, daemon, reference, stands_by
        pull(daemon, reference)

    def one_round(self, count, number):
        """Seconds of `count` publishes; where a worker is to stand by, it does before each."""
        csi, times = self.daemon.csi(), []
        for i in range(count):
            volume, target = f"bench-{number}-{i}", self.daemon.target(f"pod-{number}-{i}")
            if self.stands_by:
                wait_for(self.daemon.standby_pids, "a worker that stands by")
                time.sleep(SETTLE_SECONDS)
            request = csi.publish_request(volume, target, self.reference, pullPolicy="Always")
            times.append(timed(csi.NodePublishVolume, request))
            csi.unpublish(volume, target)
        return times


def pull(daemon, reference):
    pulled = daemon.ctl("pull", "--quiet", reference)
    if pulled.code != 0:
        raise Failed(f"e: {pulled.stderr.strip()}")


def memory_when_idle(daemon):
    wait_for(daemon.standby_pids, "a worker that stands by")
    wait_for(lambda: not daemon.standby_pids(), "its end")
    time.sleep(0.5)
    return daemon.memory()


class Latency:
    """What is measured, and the daemons that it takes."""

    def __init__(self, bench, runs, scale, stack):
        self.bench, self.runs, self.stack = bench, runs, stack
        self.count, self.asks = max(20, int(PUBLISHES * scale)), max(5, int(ASKS * scale))
        self.artifact = inputs.model(bench.work, [int(64 * MIB * scale)], 5)
        self.rows = {}

    def registry(self, wire):
        registry = self.stack.enter_context(self.bench.registry(wire))
        # Not latest, which is resolved again at each publish.
        return registry, registry.push(self.artifact, "bench/e", "v1")

    def daemon(self, name, registry, keep):
        folder = os.path.join(self.bench.work, name)
        settings = {"log": {"level": "info"}, "pull": {"standby": keep}}
        daemon = Daemon(folder, [registry.config()], settings, release=True)
        self.stack.callback(shutil.rmtree, folder, ignore_errors=True)
        self.stack.callback(self.bench.unmount, folder)
        daemon.start()
        self.stack.callback(daemon.stop)
        return daemon

    def warm(self, registry, reference):
        """A daemon that has all, and its memory before that."""
        daemon = self.daemon("client", registry, "1s")  # else the idle state takes a minute to come
        idle = memory_when_idle(daemon)
        pull(daemon, reference)
        return daemon, idle

    def askers(self, wire, registry, reference):
        for keep, name in (("1h", f"publish that asks, {wire}"), ("0s", f"publish that asks, {wire}, none stands by")):
            yield Asker(name, self.daemon(f"client-{wire}-{keep}", registry, keep), reference, keep != "0s")

    def note(self, number, name, values):
        row = self.rows.setdefault(name, {"p50": [], "p99": []})
        if number >= 0:
            row["p50"].append(quantile(values, 0.5))
            row["p99"].append(quantile(values, 0.99))

    def run(self, say):
        registry, reference = self.registry("plain")
        daemon, idle = self.warm(registry, reference)
        for number in range(-1, self.runs):  # the first is the warm-up
            say(f"e: round {number + 1} of {self.runs}")
            for name, values in zip(NAMES, one_round(daemon, reference, self.count, number)):
                self.note(number, name, values)
        askers = [*self.askers("http", registry, reference), *self.askers("TLS", *self.registry("tls"))]
        for number in range(-1, self.runs):
            say(f"e: round {number + 1} of {self.runs}, asking")
            for asker in askers:
                self.note(number, f"{asker.name} (of {self.asks})", asker.one_round(self.asks, number))
        return self.rows, idle, self.count


def run(bench, runs, scale, say):
    """{row name: {"p50": [seconds a round], "p99": […]}}, the memory of the idle daemon in bytes, and how many
    publishes a round has."""
    with contextlib.ExitStack() as stack:
        return Latency(bench, runs, scale, stack).run(say)
