# SPDX-License-Identifier: Apache-2.0
"""The demonstration behind ./quickstart: argument: the folder of the built programs."""
# pylint: disable=wrong-import-position
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupted(number, _frame):
    sys.exit(128 + number)


for each in SIGNALS:
    signal.signal(each, interrupted)  # before the slow imports, which an interrupt would fill the terminal with

import hashlib
import json
import os
import random
import struct
import subprocess
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True  # perhaps root in somebody's checkout
sys.path.insert(0, os.path.join(SOURCE, "tests/integration"))
if len(sys.argv) != 2:
    sys.exit("usage: quickstart.py FOLDER_OF_PROGRAMS (./quickstart runs it)")
os.environ["MC_BIN"] = os.path.abspath(sys.argv[1])

from lib import artifacts, sandbox
from lib.content import Blob, Bytes, Text
from lib.daemon import Daemon, program
from lib.registry import Registry

MIB = 1 << 20


class Safetensors(Blob):
    """A shard with a real safetensors header and one tensor of random float16."""

    def __init__(self, name, mib):
        self.name, self.payload = name, mib * MIB
        header = {name: {"dtype": "F16", "shape": [self.payload // 2], "data_offsets": [0, self.payload]}}
        text = json.dumps(header).encode()
        self.header = struct.pack("<Q", len(text)) + text
        super().__init__(len(self.header) + self.payload)

    def chunks(self):
        yield self.header
        block = random.Random(self.name).randbytes(MIB)
        for number in range(self.payload // MIB):
            yield number.to_bytes(8, "little") + block[8:]


def make_model(folder):
    """A ModelPack artifact of about 300 MiB: two shards, tokenizer and config raw, code as tar+zstd."""
    out, prefix = artifacts.Builder(folder), "application/vnd.cncf.model"
    files = [("weight", f"model-{i:05d}-of-00002.safetensors", Safetensors(f"layer.{i}", 145)) for i in (1, 2)]
    files += [("weight.config", "config.json", Bytes(json.dumps({"model_type": "demo"}))),
              ("weight.config", "tokenizer.json", Text(2 * MIB, "tokenizer"))]
    for kind, path, blob in files:
        out.raw(path, f"{prefix}.{kind}.v1.raw", blob, artifacts.modelpack_annotations(path, blob))
    out.tar(f"{prefix}.code.v1.tar+zstd", artifacts.small_tar(out, "tar+zstd"))
    config = {"descriptor": {"name": "demo"}, "modelfs": {"type": "layers", "diffIds": out.diff_ids}}
    return out.done(f"{prefix}.config.v1+json", config, f"{prefix}.manifest.v1+json")


def step(number, text):
    print(f"\n== {number}. {text}", flush=True)


def ctl(daemon, *arguments):
    """Runs cache-ctl with our output as its own, so that its progress bar shows."""
    print(f"$ cache-ctl {' '.join(arguments)}", flush=True)
    subprocess.run([program("cache-ctl"), "--socket", daemon.control_socket, *arguments], check=True)


def compare(target, tree):
    """Reads every file of the mount and compares its digest; returns (files, bytes)."""
    files = size = 0
    for path, entry in tree.items():
        if entry.kind != "file":
            continue
        state = hashlib.sha256()
        with open(os.path.join(target, path), "rb") as file:
            while chunk := file.read(MIB):
                state.update(chunk)
                size += len(chunk)
        if state.hexdigest() != entry.sha256:
            sys.exit(f"quickstart: {path} differs from what was pushed")
        files += 1
    return files, size


def timed(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def demonstrate(work, registry, daemon):
    step(2, "a registry on loopback with a model of 300 MiB")
    model = make_model(work)
    reference = registry.push(model, "demo/model", "v1")
    print(f"{reference} ({len(model.layers)} layers)")

    step(3, "modelcached on a temporary store")
    daemon.start()
    print(f"ready; store {daemon.store}")

    step(4, "pull it, as a prefetch would")
    cold = timed(ctl, daemon, "pull", reference)

    step(5, "publish it as a volume, as the kubelet would (CSI NodePublishVolume)")
    csi, first, second = daemon.csi(), daemon.target("pod-1"), daemon.target("pod-2")
    publish = timed(csi.publish, "csi-demo-1", first, reference)
    print(f"published at {first}")

    step(6, "read it back through the mount and compare digests")
    files, size = compare(first, model.tree)
    print(f"{files} files, {size / MIB:.1f} MiB: all equal")

    step(7, "what the node knows")
    ctl(daemon, "status")
    print()
    ctl(daemon, "ls")

    step(8, "publish the same model for a second pod")
    before = registry.blob_gets()
    warm = timed(csi.publish, "csi-demo-2", second, reference)
    compare(second, {"config.json": model.tree["config.json"]})
    fetched = registry.blob_gets() - before
    for volume, target in (("csi-demo-1", first), ("csi-demo-2", second)):
        csi.unpublish(volume, target)

    print(f"\n   cold  {cold * 1000:9.1f} ms   pull of {size / MIB:.0f} MiB ({size / MIB / cold:.0f} MiB/s)"
          f"\n   warm  {publish * 1000:9.1f} ms   publish, first volume"
          f"\n   warm  {warm * 1000:9.1f} ms   publish, second volume; {fetched} blobs fetched, no byte copied")
    daemon.stop_clean()


def main():
    try:
        sandbox.sweep()  # of a run that was killed
    except (OSError, RuntimeError) as error:
        print(f"quickstart: what a killed run left in {sandbox.PARENT} cannot be removed: {error}", file=sys.stderr)
    work = sandbox.make_work_dir()
    registry = daemon = None
    try:
        registry = Registry(os.path.join(work, "registry"))
        daemon = Daemon(os.path.join(work, "node"), [registry.config()], {"log": {"level": "warn"}})
        demonstrate(work, registry, daemon)
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # cleaning up is not interrupted
        if daemon:
            daemon.close()
        if registry:
            registry.stop()
        sandbox.remove_work_dir(work)
    print("\nEverything is cleaned up.  Next: README.md, `man docs/man/cache-ctl.1`, deploy/config.yaml.")


main()
