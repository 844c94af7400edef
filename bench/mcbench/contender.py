# SPDX-License-Identifier: Apache-2.0
"""What all contenders have in common, and modelcached and the lower bound themselves."""
import dataclasses
import os
import shutil
import time

from lib.daemon import Daemon, program
from mcbench.meter import Failed, measure, shell


@dataclasses.dataclass
class Place:
    """Where an artifact is to be had."""
    host: str
    repository: str
    artifact: object
    config: dict       # as an entry of the daemon's `registries`
    ca_file: str = ""  # not empty: TLS
    files: bool = False  # an image whose layer is to be unpacked

    @property
    def reference(self):
        return f"{self.host}/{self.repository}:latest"

    @property
    def scheme(self):
        return "https" if self.ca_file else "http"

    def blobs(self):
        """{digest: size} of the layers."""
        return {layer["digest"]: layer["size"] for layer in self.artifact.layers}

    def url(self, digest):
        return f"{self.scheme}://{self.host}/v2/{self.repository}/blobs/{digest}"


class Contender:
    """One way to get an artifact.  cold() begins with nothing, warm() repeats it with all there; clean() drops
    what both left.  warm() may return None: there is no such thing."""

    name = ""

    def __init__(self, bench):
        self.bench = bench
        self.folder = os.path.join(bench.work, "client")

    def able(self):
        """False: its programs are not installed."""
        return True

    def version(self):
        return ""

    def prepare(self, place):
        """Before the clock runs."""
        os.makedirs(self.folder, exist_ok=True)

    def cold(self, place):
        raise NotImplementedError

    def warm(self, place):
        return None

    def clean(self):
        shutil.rmtree(self.folder, ignore_errors=True)


SETTLE_SECONDS = 0.1  # after its start a daemon has a worker stand by, which loads what it can load ahead


class Modelcached(Contender):
    """`cache-ctl pull` of the daemon, which runs already on an empty store."""

    name, settings = "modelcached", {}

    def __init__(self, bench):
        super().__init__(bench)
        self.daemon = None

    def prepare(self, place):
        super().prepare(place)
        settings = {"log": {"level": "info"}, **self.settings}
        self.daemon = Daemon(self.folder, [place.config], settings, release=True)
        self.daemon.start()
        time.sleep(SETTLE_SECONDS)

    def cold(self, place):
        argv = [program("cache-ctl", True), "--socket", self.daemon.control_socket, "pull", "--quiet"]
        return measure([*argv, place.reference], [self.daemon.pid])

    def warm(self, place):
        return self.cold(place)

    def clean(self):
        if self.daemon:
            code = self.daemon.stop()
            self.daemon = None
            if code != 0:
                raise Failed(f"the daemon ended with {code}")
        super().clean()


class ModelcachedThreads(Modelcached):
    """The same where io_uring is refused."""

    name, settings = "modelcached, threads", {"pull": {"io": "threads"}}


class ModelcachedAlone(Modelcached):
    """The same when the last pull is longer ago than pull.standby."""

    name, settings = "modelcached, none stands by", {"pull": {"standby": "0s"}}


class ModelcachedCached(Modelcached):
    """The pull alone, through the page cache."""

    name, settings = "modelcached, page cache", {"pull": {"page_cache": True}}


class ModelcachedRead(Modelcached):
    """A pod that waits: pull, mount, and read all files through the mount."""

    def cold(self, place):
        ctl = f"{program('cache-ctl', True)} --socket {self.daemon.control_socket}"
        mount = os.path.join(self.folder, "mount")
        os.mkdir(mount)
        return shell(f"{ctl} pull --quiet {place.reference}; {ctl} mount {place.reference} {mount} >/dev/null; "
                     f"find {mount} -type f -exec cat {{}} + >/dev/null", [self.daemon.pid])

    def warm(self, place):
        return None

    def clean(self):
        self.bench.unmount(self.folder)
        super().clean()


class ModelcachedReadCached(ModelcachedRead):
    """The same when the pull leaves the files in the page cache."""

    name, settings = ModelcachedCached.name, ModelcachedCached.settings


class Bound(Contender):
    """bound.c, one blob a thread."""

    name, threads, flags = "lower bound", 1, ()

    def cold(self, place):
        argv = [self.bench.helpers["bound"], *self.flags, self.threads, self.folder, place.host.split(":")[1],
                place.repository]
        for digest, size in sorted(place.blobs().items(), key=lambda item: -item[1]):
            argv += [digest, size]
        return measure(argv)


class BoundTwo(Bound):
    """With two threads: two blobs at a time."""

    name, threads = "lower bound, 2 threads", 2


class BoundTwoUnhashed(BoundTwo):
    """What the server and the disk allow: nothing is hashed."""

    name, flags = "lower bound, 2 threads, no SHA-256", ("-n",)


class BoundTwoWrites(BoundTwo):
    """What the disk alone allows: nothing is received."""

    name, flags = "lower bound, 2 threads, writes alone", ("-w",)
