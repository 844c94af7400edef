# SPDX-License-Identifier: Apache-2.0
"""What people use today, as they use it."""
import os

from lib.sandbox import Process, wait_for
from mcbench.contender import Contender
from mcbench.meter import Failed, measure, shell
from mcbench.setup import version_of

CONNECTIONS = 8  # as many as pull.connections
SYNC_EACH_MAX = 100  # more files than that are synced with their file system
CONTAINERD_CONFIG = """version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.opt"]
[grpc]
address = "{folder}/c.sock"
[ttrpc]
address = "{folder}/t.sock"
"""


class Tool(Contender):
    """A peer that is one program."""

    tool, version_argument = "", "--version"

    def able(self):
        return self.bench.tools.get(self.tool) is not None

    def version(self):
        return version_of([self.bench.tools.get(self.tool), self.version_argument])

    def environment(self, place):
        """Go's programs and skopeo read the CA from here."""
        return {**os.environ, "SSL_CERT_FILE": place.ca_file} if place.ca_file else None


class Curl(Tool):
    """curl, then openssl dgst, then fsync; an image goes through tar instead."""

    name, tool = "curl + openssl + fsync", "curl"

    def prepare(self, place):
        super().prepare(place)
        os.mkdir(os.path.join(self.folder, "f"))
        with open(os.path.join(self.folder, "urls"), "w", encoding="ascii") as file:
            for digest in place.blobs():
                file.write(f"url = {place.url(digest)}\noutput = f/{digest[7:]}\n")

    def cold(self, place):
        trust = f"--cacert {place.ca_file}" if place.ca_file else ""
        if place.files:
            layer = place.artifact.layers[0]
            filters = "--zstd" if layer["mediaType"].endswith("zstd") else "--gzip"
            return shell(f"curl -sSf {trust} {place.url(layer['digest'])} | tee >(openssl dgst -sha256 -r >sum) | "
                         f"tar -x {filters} -C f; sync -f f; grep -q {layer['digest'][7:]} sum", folder=self.folder)
        sync = "sync f/*" if len(place.blobs()) <= SYNC_EACH_MAX else "sync -f f"
        check = "awk '{ sub(/.*\\//, \"\", $2); if ($1 != $2) exit 1 }'"
        return shell(f"curl -sSf {trust} -Z --parallel-max {CONNECTIONS} -K urls; openssl dgst -sha256 -r f/* | {check}; "
                     f"{sync}", folder=self.folder)


class Aria2(Tool):
    """aria2c with several connections and its own check of the digest."""

    name, tool = "aria2c -x8, checksum", "aria2c"

    def prepare(self, place):
        super().prepare(place)
        with open(os.path.join(self.folder, "list"), "w", encoding="ascii") as file:
            for digest in place.blobs():
                file.write(f"{place.url(digest)}\n out={digest[7:]}\n checksum=sha-256={digest[7:]}\n")

    def cold(self, place):
        trust = [f"--ca-certificate={place.ca_file}"] if place.ca_file else []
        return measure([self.bench.tools.get("aria2c"), "-q", f"-x{CONNECTIONS}", f"-s{CONNECTIONS}",
                        f"-j{CONNECTIONS}", "--file-allocation=falloc", "-d", self.folder, *trust,
                        "-i", os.path.join(self.folder, "list")])


class Skopeo(Tool):
    """skopeo copy into an OCI layout."""

    name, tool = "skopeo copy", "skopeo"

    def cold(self, place):
        trust = [] if place.ca_file else ["--src-tls-verify=false"]
        return measure([self.bench.tools.get("skopeo"), "--insecure-policy", "copy", "-q", *trust,
                        "docker://" + place.reference, f"oci:{self.folder}/layout:latest"],
                       env=self.environment(place))

    def warm(self, place):
        return self.cold(place)


class Oras(Tool):
    """oras copy into an OCI layout."""

    name, tool, version_argument = "oras copy", "oras", "version"

    def cold(self, place):
        plain = [] if place.ca_file else ["--from-plain-http"]
        return measure([self.bench.tools.get("oras"), "copy", "--no-tty", *plain, place.reference,
                        "--to-oci-layout", f"{self.folder}/layout:latest"], env=self.environment(place))

    def warm(self, place):
        return self.cold(place)


class Crane(Tool):
    """crane pull into an OCI layout."""

    name, tool, version_argument = "crane pull", "crane", "version"

    def cold(self, place):
        return measure([self.bench.tools.get("crane"), "pull", "--format=oci", place.reference,
                        f"{self.folder}/layout"], env=self.environment(place))


class Containerd(Tool):
    """ctr content fetch, or image pull with unpack; the daemon runs already on an empty root."""

    name, tool = "containerd 1.x", "containerd"

    def __init__(self, bench):
        super().__init__(bench)
        self.process = None

    def version(self):
        return version_of([os.path.join(self.bench.tools.get(self.tool), "containerd"), "--version"])

    def prepare(self, place):
        super().prepare(place)
        config = os.path.join(self.folder, "config.toml")
        with open(config, "w", encoding="ascii") as file:
            file.write(CONTAINERD_CONFIG.format(folder=self.folder))
        programs = self.bench.tools.get(self.tool)
        self.process = Process([os.path.join(programs, "containerd"), "-c", config, "-l", "error"],
                               os.path.join(self.folder, "log"))
        wait_for(self._answers, self.name)

    def _ctr(self, *arguments):
        return [os.path.join(self.bench.tools.get(self.tool), "ctr"), "-a", os.path.join(self.folder, "c.sock"),
                *arguments]

    def _answers(self):
        self.process.check_alive()
        try:
            measure(self._ctr("version"), seconds=10)
            return True
        except Failed:
            return False

    def _trust(self, place):
        """ctr 1.6 speaks http to loopback, whatever CA it is given, unless a hosts.toml says otherwise."""
        if not place.ca_file:
            return ["--plain-http"]
        hosts = os.path.join(self.folder, "hosts")
        os.makedirs(os.path.join(hosts, place.host), exist_ok=True)
        with open(os.path.join(hosts, place.host, "hosts.toml"), "w", encoding="ascii") as file:
            file.write(f'server = "https://{place.host}"\n[host."https://{place.host}"]\nca = "{place.ca_file}"\n')
        return ["--hosts-dir", hosts]

    def cold(self, place):
        trust = self._trust(place)
        what = ["images", "pull"] if place.files else ["content", "fetch"]
        return measure(self._ctr(*what, *trust, place.reference), [self.process.pid])

    def warm(self, place):
        return self.cold(place)

    def clean(self):
        if self.process:
            self.process.stop()
            self.process = None
        self.bench.unmount(self.folder)
        super().clean()


class Containerd2(Containerd):
    """The same with containerd 2.x."""

    name, tool = "containerd 2.x", "containerd2"


