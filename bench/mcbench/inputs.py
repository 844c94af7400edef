# SPDX-License-Identifier: Apache-2.0
"""The artifacts of the cases, the same bytes in every run."""
import random

from lib import artifacts
from lib.content import Bytes, Random, Tar, Text

MIB, GIB = 1 << 20, 1 << 30
TITLE = "org.opencontainers.image.title"
WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
POOL_BYTES = 32 * MIB


def model(folder, sizes, small=0, seed="bench"):
    """A ModelPack of raw layers: one of each size, and `small` of some KiB."""
    out = artifacts.Builder(folder)
    for i, size in enumerate(sizes):
        add_raw(out, f"weights-{i:05d}.bin", Random(size, f"{seed}/{size}/{i}"))
    for i in range(small):
        add_raw(out, f"small-{i:05d}.json", Text(4000 + 37 * i, f"{seed}/small/{i}"))
    return done(out)


def many(folder, count, seed="bench"):
    """`count` raw layers of 4 to 28 KiB."""
    out = artifacts.Builder(folder)
    for i in range(count):
        data = random.Random(f"{seed}/{i}").randbytes(4096 + i * 7919 % 24576)
        add_raw(out, f"part{i % 50:02d}/file-{i:05d}.bin", Bytes(data))
    return done(out)


def add_raw(out, path, blob):
    annotations = artifacts.modelpack_annotations(path, blob)
    out.raw(path, WEIGHT, blob, {TITLE: path, **annotations})


def done(out):
    config = {"descriptor": {"name": "bench"}, "modelfs": {"type": "layers", "diffIds": out.diff_ids}}
    return out.done("application/vnd.cncf.model.config.v1+json", config,
                    "application/vnd.cncf.model.manifest.v1+json")


def image(folder, codec, size, files, seed="bench"):
    """An image of one layer with so many files, half compressible."""
    noise = random.Random(seed)
    pool = b"".join(Text(POOL_BYTES, seed).chunks())
    out, tar, each = artifacts.Builder(folder), Tar(folder, codec), max(1, size // files)
    for i in range(files):
        length = each // 2 + noise.randrange(each)
        start = noise.randrange(POOL_BYTES - length)
        blob = Bytes(noise.randbytes(length // 2) + pool[start:start + length - length // 2])
        tar.add_file(f"data/part{i % 200:03d}/file-{i:05d}.bin", blob)
        tar.blobs.clear()
    out.tar(f"application/vnd.oci.image.layer.v1.{codec}", tar)
    return out.done("application/vnd.oci.image.config.v1+json",
                    {"os": "linux", "architecture": "amd64", "config": {},
                     "rootfs": {"type": "layers", "diff_ids": out.diff_ids}})


def unpacked_bytes(artifact):
    """The sizes of the files of its tree."""
    return sum(entry.size for entry in artifact.tree.values() if entry.kind == "file")
