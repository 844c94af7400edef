# SPDX-License-Identifier: Apache-2.0
"""Runs a case: pushes its artifacts, then round after round lets each contender do each point once."""
import contextlib
import os
import shutil
import subprocess

from lib.registry import Registry
from lib.sandbox import Process, answers, mounts_beneath, pick_port, wait_for
from mcbench import cases, inputs
from mcbench.contender import Modelcached, Place
from mcbench.meter import Failed


class Bench:
    """What all cases share."""

    def __init__(self, work, helpers, tools, say):
        self.work, self.helpers, self.tools, self.say = work, helpers, tools, say
        self.versions = {}

    @contextlib.contextmanager
    def registry(self, wire):
        """A registry of our own, removed with all it stores."""
        folder = os.path.join(self.work, f"registry-{wire}")
        registry = Registry(folder, tls=wire == "tls")
        try:
            yield registry
        finally:
            registry.stop()
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def slow(self, registry):
        """The same content from slow.c; gives its host."""
        port = pick_port()
        process = Process([self.helpers["slow"], port, os.path.join(registry.folder, "storage"),
                           cases.SLOW_DELAY_MS, cases.SLOW_MIB], os.path.join(self.work, "slow.log"))
        try:
            wait_for(lambda: process.check_alive() or answers(port), "the slow registry")
            yield f"127.0.0.1:{port}"
        finally:
            process.stop()

    @staticmethod
    def unmount(folder):
        for point in mounts_beneath(folder):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def write_file(path, chunks):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        for chunk in chunks:
            file.write(chunk)


def store(registry, artifact, repository):
    """Puts the blobs where docker-registry keeps them (5,000 uploads would take minutes) and pushes the manifest."""
    root = os.path.join(registry.folder, "storage/docker/registry/v2")
    for blob in artifact.blobs:
        write_file(os.path.join(root, "blobs/sha256", blob.sha256[:2], blob.sha256, "data"), blob.chunks())
        write_file(os.path.join(root, "repositories", repository, "_layers/sha256", blob.sha256, "link"),
                   [blob.digest.encode()])
    registry.client().push_manifest(repository, "latest", artifact.manifest, artifact.media_type)


def warm_server(place):
    """Reads each blob once, so that the server has it in memory for all."""
    trust = ["--cacert", place.ca_file] if place.ca_file else []
    for digest, _ in sorted(place.blobs().items(), key=lambda item: -item[1])[:50]:
        subprocess.run(["curl", "-sSf", *trust, "-o", "/dev/null", place.url(digest)], check=True)


class Rounds:
    """The rounds of one case; .rows {(point, contender, mode): [Sample]} fills up."""

    def __init__(self, bench, case, only):
        self.bench, self.case = bench, case
        self.contenders = [c for c in (kind(bench) for kind in case.contenders)
                           if (not only or c.name in only) and c.able()]
        self.rows, self.failed, self.bytes = {}, {}, {}

    def one(self, contender, label, place, keep=True):
        """One contender, cold and warm."""
        if (label, contender.name) in self.failed:
            return
        try:
            try:
                contender.prepare(place)
                samples = {"cold": contender.cold(place), "warm": contender.warm(place)}
            except BaseException:  # ^C, too: a clean-up that fails then must not hide it
                with contextlib.suppress(Failed, RuntimeError, TimeoutError):
                    contender.clean()
                raise
            contender.clean()
        except (Failed, RuntimeError, TimeoutError) as error:
            self.failed[label, contender.name] = str(error)
            self.bench.say(f"{self.case.name} {label}: {contender.name} failed: {error}")
            return
        finally:
            os.sync()  # what it left to be written is not the next one's burden
        for mode, sample in samples.items():
            if sample and keep:
                self.rows.setdefault((label, contender.name, mode), []).append(sample)
        self.bench.say(f"{self.case.name} {label} {contender.name}: {samples['cold'].wall:.2f} s")

    def run(self, places, runs):
        for label, place in places.items():
            for contender in self.contenders:
                if isinstance(contender, Modelcached):
                    self.one(contender, label, place, keep=False)
                    break
        for number in range(runs):
            turn = number % max(1, len(self.contenders))
            for label, place in places.items():
                for contender in self.contenders[turn:] + self.contenders[:turn]:
                    self.one(contender, label, place)


def run_case(bench, case, runs, scale, only):
    """Measures; returns the finished Rounds."""
    rounds, places = Rounds(bench, case, only), {}
    with contextlib.ExitStack() as stack:
        registry = stack.enter_context(bench.registry(case.wire))
        for i, point in enumerate(case.points):
            bench.say(f"{case.name} {point.label}: making and pushing the artifact")
            folder = os.path.join(bench.work, "make")
            os.makedirs(folder, exist_ok=True)
            artifact = point.make(folder, scale)
            rounds.bytes[point.label] = inputs.unpacked_bytes(artifact)
            repository = f"bench/{case.name}{i}"
            store(registry, artifact, repository)
            shutil.rmtree(folder)
            places[point.label] = Place(registry.host, repository, artifact, registry.config(),
                                        registry.ca_file or "", case.files)
            warm_server(places[point.label])
        os.sync()
        if case.wire == "slow":
            host = stack.enter_context(bench.slow(registry))
            for place in places.values():
                place.host, place.config = host, {"host": host, "plain_http": True}
        rounds.run(places, runs)
    return rounds
