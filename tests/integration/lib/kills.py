# SPDX-License-Identifier: Apache-2.0
"""Pulls in the background, and pulls that are killed."""
import os
import signal
import threading
import time

from lib.artifacts import MIB, Builder, modelpack_annotations
from lib.content import Bytes, Random
from lib.sandbox import wait_ended, wait_for

PREFIX = "application/vnd.cncf.model"
SEND_BUFFER = 16 * 1024  # little is lost on the way of each connection


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


def tree_of(daemon, reference):
    digest = daemon.ctl_json("inspect", reference)["digest"]
    return f"{daemon.store}/trees/{digest.removeprefix('sha256:')}"


def wire(registry):
    """Bytes of blobs that went out."""
    return sum(request.sent for request in registry.seen("/blobs/"))


def killed_pull(daemon, registry, reference, victim, more):
    """One pull, whose worker, or whose daemon, is killed as soon as so many `more` bytes went out: a moment that does
    not depend on how busy the machine is."""
    until = wire(registry) + more
    pull = Pull(daemon, reference)
    workers = wait_for(daemon.worker_pids, "the worker")
    wait_for(lambda: wire(registry) >= until, "bytes", 60, 0.005)
    assert daemon.worker_pids() == workers, "the pull has ended: it has to be slower"
    if victim == "daemon":
        daemon.kill9()
        wait_ended(workers, "the worker's end")
        daemon.start()
    else:
        os.kill(workers[0], signal.SIGKILL)
    pull.join()
    assert pull.result.code != 0
