# SPDX-License-Identifier: Apache-2.0
"""Case (e): how long NodePublishVolume takes when everything is there."""
import os
import shutil
import time

from lib.daemon import Daemon
from lib.sandbox import wait_for
from mcbench import inputs
from mcbench.inputs import MIB

PUBLISHES = 1000


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


def run(bench, runs, scale, say):
    """{row name: {"p50": [seconds a round], "p99": […]}}, and the memory of the idle daemon in bytes."""
    rows = {name: {"p50": [], "p99": []} for name in ("publish", "empty RPC (Probe)", "write + fdatasync of 4 KiB")}
    folder, count = os.path.join(bench.work, "client"), max(20, int(PUBLISHES * scale))
    with bench.registry("plain") as registry:
        artifact = inputs.model(bench.work, [int(64 * MIB * scale)], 5)
        reference = registry.push(artifact, "bench/e", "v1")  # not latest, which is resolved again at each publish
        settings = {"log": {"level": "info"}, "pull": {"standby": "1s"}}  # else the idle state takes a minute to come
        daemon = Daemon(folder, [registry.config()], settings, release=True)
        daemon.start()
        try:
            wait_for(daemon.standby_pids, "a worker that stands by")
            wait_for(lambda: not daemon.standby_pids(), "its end")
            time.sleep(0.5)
            idle = daemon.memory()
            pulled = daemon.ctl("pull", "--quiet", reference)
            if pulled.code != 0:
                raise RuntimeError(f"e: {pulled.stderr.strip()}")
            for number in range(-1, runs):  # the first is the warm-up
                say(f"e: round {number + 1} of {runs}")
                for name, values in zip(rows, one_round(daemon, reference, count, number)):
                    if number >= 0:
                        rows[name]["p50"].append(quantile(values, 0.5))
                        rows[name]["p99"].append(quantile(values, 0.99))
        finally:
            daemon.stop()
            bench.unmount(folder)
            shutil.rmtree(folder, ignore_errors=True)
    return rows, idle, count
