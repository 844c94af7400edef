# SPDX-License-Identifier: Apache-2.0
"""Makes artifacts of each format of the wild.  Each maker takes a folder for its temporary files and returns an
Artifact: manifest, blobs, and the tree that a correct unpacking gives."""
import dataclasses
import hashlib
import json

from lib.content import Bytes, Random, Tar, Text, file_entry

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
EMPTY = "application/vnd.oci.empty.v1+json"
MIB = 1 << 20


@dataclasses.dataclass
class Artifact:
    """A manifest (or index) with all that it names."""
    manifest: bytes
    media_type: str
    blobs: list = dataclasses.field(default_factory=list)
    tree: dict = dataclasses.field(default_factory=dict)
    children: list = dataclasses.field(default_factory=list)

    @property
    def digest(self):
        return "sha256:" + hashlib.sha256(self.manifest).hexdigest()

    @property
    def layers(self):
        """The descriptors of the layers."""
        return json.loads(self.manifest).get("layers", [])

    def push(self, client, repository, tag=None):
        """Pushes everything with a lib.push.PushClient; returns the digest."""
        for child in self.children:
            child.push(client, repository)
        for blob in self.blobs:
            client.push_blob(repository, blob)
        client.push_manifest(repository, tag or self.digest, self.manifest, self.media_type)
        return self.digest


def descriptor(media_type, blob, **more):
    return {"mediaType": media_type, "digest": blob.digest, "size": blob.size, **more}


class Builder:
    """Collects layers and their tree; done() gives the Artifact."""

    def __init__(self, folder):
        self.folder, self.layers, self.blobs, self.tree, self.diff_ids = folder, [], [], {}, []

    def layer(self, media_type, blob, annotations=None, **more):
        if annotations:
            more["annotations"] = annotations
        self.layers.append(descriptor(media_type, blob, **more))
        if all(blob.digest != other.digest for other in self.blobs):
            self.blobs.append(blob)

    def raw(self, path, media_type, blob, annotations=None, mode=0o644):
        """A layer that is one file."""
        self.layer(media_type, blob, annotations)
        self.tree[path] = file_entry(blob, mode)
        self.diff_ids.append(blob.digest)

    def tar(self, media_type, tar, annotations=None):
        """A layer that is a lib.content.Tar; closes it."""
        blob, diff_id = tar.close()
        self.layer(media_type, blob, annotations)
        self.tree.update(tar.tree)
        self.diff_ids.append(diff_id)

    def done(self, config_type, config, artifact_type=None, media_type=OCI_MANIFEST, **more):
        blob = config if hasattr(config, "chunks") else Bytes(json.dumps(config))
        manifest = {"schemaVersion": 2, "mediaType": media_type}
        if artifact_type:
            manifest["artifactType"] = artifact_type
        manifest.update(config=descriptor(config_type, blob), layers=self.layers, **more)
        return Artifact(json.dumps(manifest, indent=1).encode(), media_type, self.blobs + [blob], self.tree)


def small_tar(builder, codec, top="code", seed=0, count=20):
    """A tar with directories, an executable, a symlink, an empty file and a long name."""
    tar = Tar(builder.folder, codec)
    tar.add_directory(top)
    for i in range(count):
        tar.add_file(f"{top}/part{i % 4}/file{i:03d}.txt", Text(100 + 937 * i, f"{seed}/{top}/{i}"))
    tar.add_file(f"{top}/run.sh", Bytes("#!/bin/sh\necho hello\n"), 0o755)
    tar.add_file(f"{top}/empty", Bytes(b""))
    tar.add_file(f"{top}/{'long-name-' * 12}.py", Text(2000, f"{seed}/long"))
    tar.add_symlink(f"{top}/latest", "part0/file000.txt")
    return tar


def modelpack_annotations(path, blob, mode=0o644):
    metadata = {"name": path.rsplit("/", 1)[-1], "mode": mode, "uid": 0, "gid": 0, "size": blob.size,
                "mtime": "2024-01-01T00:00:00Z", "typeflag": 48}
    return {"org.cncf.model.filepath": path, "org.cncf.model.file.metadata+json": json.dumps(metadata)}


def modelpack(folder, sizes=(3 * MIB + 17, MIB), codec="raw", tar_codec="tar+zstd", seed=0):
    """ModelPack: one weight layer a size (raw, or a tar of one file each), config files raw, one tar of code.

    codec is the weights' (raw, tar, tar+gzip, tar+zstd), tar_codec the code's; tar_codec=None leaves it out."""
    out, prefix = Builder(folder), "application/vnd.cncf.model"
    for i, size in enumerate(sizes):
        path, blob = f"model-{i + 1:05d}-of-{len(sizes):05d}.safetensors", Random(size, f"{seed}/w{i}")
        if codec == "raw":
            out.raw(path, f"{prefix}.weight.v1.raw", blob, modelpack_annotations(path, blob))
        else:
            tar = Tar(folder, codec)
            tar.add_file(path, blob)
            out.tar(f"{prefix}.weight.v1.{codec}", tar, {"org.cncf.model.filepath": path})
    for path, kind, blob in (
            ("config.json", "weight.config", Bytes(json.dumps({"model_type": "test", "seed": str(seed)}))),
            ("tokenizer.json", "weight.config", Text(300_000, f"{seed}/tokenizer")),
            ("docs/README.md", "doc", Text(4000, f"{seed}/readme"))):
        out.raw(path, f"{prefix}.{kind}.v1.raw", blob, modelpack_annotations(path, blob))
    if tar_codec:
        out.tar(f"{prefix}.code.v1.{tar_codec}", small_tar(out, tar_codec, seed=seed),
                {"org.cncf.model.filepath": "code"})
    config = {"descriptor": {"name": "test", "family": "test"}, "config": {"paramSize": "1b"},
              "modelfs": {"type": "layers", "diffIds": out.diff_ids}}
    return out.done(f"{prefix}.config.v1+json", config, f"{prefix}.manifest.v1+json")


def cnai(folder, size=2 * MIB, seed=0):
    """CNAI, ModelPack's predecessor: a raw weight, a tar weight, a tar of code."""
    out, prefix = Builder(folder), "application/vnd.cnai.model"
    out.raw("weights/a.bin", f"{prefix}.weight.v1.raw", Random(size, f"{seed}/a"),
            {"org.cnai.model.filepath": "weights/a.bin"})
    tar = Tar(folder)
    tar.add_file("weights/b.bin", Random(size // 2, f"{seed}/b"))
    out.tar(f"{prefix}.weight.v1.tar", tar, {"org.cnai.model.filepath": "weights/b.bin"})
    out.tar(f"{prefix}.code.v1.tar", small_tar(out, "tar", seed=seed), {"org.cnai.model.filepath": "code"})
    return out.done(f"{prefix}.config.v1+json", {"modelfs": {"type": "layers", "diffIds": out.diff_ids}},
                    f"{prefix}.manifest.v1+json")


def docker_model_runner_v01(folder, sizes=(2 * MIB, MIB), seed=0):
    """Docker Model Runner, config v0.1: no names, so the runner's default ones; one tar of configuration."""
    out, prefix = Builder(folder), "application/vnd.docker.ai"
    for i, size in enumerate(sizes):
        path = "model.gguf" if len(sizes) == 1 else f"model-{i + 1:05d}-of-{len(sizes):05d}.gguf"
        out.raw(path, f"{prefix}.gguf.v3", Random(size, f"{seed}/g{i}"))
    out.raw("model.mmproj", f"{prefix}.mmproj", Random(100_000, f"{seed}/mmproj"))
    out.raw("LICENSE", f"{prefix}.license", Text(1200, f"{seed}/license"))
    out.raw("template.jinja", f"{prefix}.chat.template.jinja", Text(900, f"{seed}/template"))
    tar = Tar(folder)
    tar.add_file("config.json", Bytes('{"model_type": "test"}'))
    tar.add_file("tokenizer.json", Text(50_000, f"{seed}/tokenizer"))
    out.tar(f"{prefix}.vllm.config.tar", tar)
    config = {"config": {"format": "gguf"}, "descriptor": {"created": "2024-01-01T00:00:00Z"},
              "rootfs": {"type": "rootfs", "diff_ids": out.diff_ids}}
    return out.done(f"{prefix}.model.config.v0.1+json", config)


def docker_model_runner_v02(folder, size=2 * MIB, seed=0):
    """Docker Model Runner, config v0.2: one file a layer, named by the ModelPack annotation."""
    out, prefix = Builder(folder), "application/vnd.docker.ai"
    for path, kind, blob in (("model.safetensors", "safetensors", Random(size, f"{seed}/m")),
                             ("sub/config.json", "model.file", Bytes('{"a": 1}')),
                             ("tokenizer.json", "model.file", Text(40_000, f"{seed}/t"))):
        out.raw(path, f"{prefix}.{kind}", blob, {"org.cncf.model.filepath": path})
    config = {"config": {"format": "safetensors"}, "descriptor": {},
              "rootfs": {"type": "rootfs", "diff_ids": out.diff_ids}}
    return out.done(f"{prefix}.model.config.v0.2+json", config)


def docker_model_runner_modelpack(folder, size=2 * MIB, seed=0):
    """What an old Docker Model Runner makes of ModelPack: weight types that the specification does not know."""
    out, prefix = Builder(folder), "application/vnd.cncf.model"
    out.raw("model.gguf", f"{prefix}.weight.v1.gguf", Random(size, f"{seed}/g"))
    out.raw("sub/b.safetensors", f"{prefix}.weight.v1.safetensors", Random(size // 2, f"{seed}/s"),
            {"org.cncf.model.filepath": "sub/b.safetensors"})
    return out.done(f"{prefix}.config.v1+json", {"modelfs": {"type": "layers", "diffIds": out.diff_ids}})


def kitops(folder, size=2 * MIB, codec="tar", seed=0):
    """A KitOps ModelKit: one tar a part, config = Kitfile as JSON.  codec: tar, tar+gzip, tar+zstd."""
    out, prefix = Builder(folder), "application/vnd.kitops.modelkit"
    tar = Tar(folder, codec)
    tar.add_file("model/model.gguf", Random(size, f"{seed}/m"))
    out.tar(f"{prefix}.model.v1.{codec}", tar)
    out.tar(f"{prefix}.code.v1.{codec}", small_tar(out, codec, "src", seed))
    out.tar(f"{prefix}.docs.v1.{codec}", small_tar(out, codec, "docs", seed, 3))
    config = {"manifestVersion": "1.0.0", "package": {"name": "test"},
              "model": {"name": "m", "path": "model/model.gguf"}, "code": [{"path": "src"}]}
    return out.done(f"{prefix}.config.v1+json", config,
                    annotations={"ml.kitops.modelkit.cli-version": "1.15.0"})


def ollama(folder, size=2 * MIB, seed=0):
    """Ollama: a docker manifest, no names; the words of its Modelfile name the files."""
    out, prefix = Builder(folder), "application/vnd.ollama.image"
    for path, kind, blob in (("model.gguf", "model", Random(size, f"{seed}/m")),
                             ("template", "template", Text(500, f"{seed}/t")),
                             ("params.json", "params", Bytes('{"stop": ["x"]}')),
                             ("license", "license", Text(9000, f"{seed}/l"))):
        out.raw(path, f"{prefix}.{kind}", blob)
    config = {"model_format": "gguf", "rootfs": {"type": "layers", "diff_ids": out.diff_ids}}
    return out.done("application/vnd.docker.container.image.v1+json", config, media_type=DOCKER_MANIFEST)




def oras(folder, size=2 * MIB, seed=0, unpack=True):
    """What `oras push` makes: files by title, a directory as tar+gzip that is to be unpacked."""
    out, title = Builder(folder), "org.opencontainers.image.title"
    out.raw("weights.bin", "application/octet-stream", Random(size, f"{seed}/w"), {title: "weights.bin"})
    out.raw("docs/notes.txt", "text/plain", Text(3000, f"{seed}/n"), {title: "docs/notes.txt"})
    if unpack:
        tar = small_tar(out, "tar+gzip", "data", seed)
        blob, diff_id = tar.close()
        out.layer("application/vnd.oci.image.layer.v1.tar+gzip", blob,
                  {title: "data", "io.deis.oras.content.unpack": "true",
                   "io.deis.oras.content.digest": diff_id})
        out.tree.update(tar.tree)
    return out.done(EMPTY, Bytes("{}"), "application/vnd.unknown.artifact.v1",
                    annotations={"org.opencontainers.image.created": "2024-01-01T00:00:00Z"})


def image_layers(folder, codec, size, seed):
    """Three layers with whiteouts: a file, a directory, an opaque directory, a file over a directory."""
    base, middle, top = (Tar(folder, codec) for _ in range(3))
    base.add_directory("models")
    base.add_file("models/model.bin", Random(size, f"{seed}/m"))
    base.add_file("models/old.bin", Random(1000, f"{seed}/old"))
    base.add_file("etc/gone/a", Text(100, f"{seed}/a"))
    base.add_file("etc/opaque/hidden", Text(100, f"{seed}/h"))
    base.add_file("etc/was-directory/x", Text(10, f"{seed}/x"))
    base.add_file("bin/tool", Bytes("#!/bin/sh\n"), 0o755)
    base.add_symlink("models/current", "model.bin")
    middle.add_file("etc/opaque/seen", Text(100, f"{seed}/s"))
    for name in ("models/.wh.old.bin", "etc/.wh.gone", "etc/opaque/.wh..wh..opq"):
        middle.add(Tar.info(name))
    top.add_file("etc/was-directory", Bytes("now a file\n"))
    top.add_hardlink("etc/same", "etc/was-directory")
    top.add_file("models/config.json", Bytes("{}\n"))
    tree = {**base.tree, **middle.tree, **top.tree}
    for path in ("models/old.bin", "etc/gone/a", "etc/opaque/hidden", "etc/was-directory/x"):
        del tree[path]
    return (base, middle, top), tree


def image(folder, codec="tar+gzip", size=2 * MIB, docker=False, architecture="amd64", seed=0):
    """A plain image of three layers with whiteouts; codec: tar, tar+gzip, tar+zstd; docker: docker's types."""
    out = Builder(folder)
    tars, tree = image_layers(folder, codec, size, seed)
    for tar in tars:
        if docker:
            out.tar("application/vnd.docker.image.rootfs.diff.tar" + (".gzip" if codec != "tar" else ""), tar)
        else:
            out.tar(f"application/vnd.oci.image.layer.v1.{codec}", tar)
    out.tree = tree
    config = {"os": "linux", "architecture": architecture, "config": {},
              "rootfs": {"type": "layers", "diff_ids": out.diff_ids}}
    if docker:
        return out.done("application/vnd.docker.container.image.v1+json", config,
                        media_type=DOCKER_MANIFEST)
    return out.done("application/vnd.oci.image.config.v1+json", config)


def index(children, docker=False):
    """An index of [(Artifact, "os/architecture[/variant]" or None)]."""
    entries = []
    for child, platform in children:
        entry = {"mediaType": child.media_type, "digest": child.digest, "size": len(child.manifest)}
        if platform:
            entry["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/")))
        entries.append(entry)
    media_type = DOCKER_LIST if docker else OCI_INDEX
    data = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()
    return Artifact(data, media_type, children=[child for child, _ in children])


def one_tar(folder, tar, media_type="application/vnd.oci.image.layer.v1.tar"):
    """An image of the one layer that the caller built with lib.content.Tar, such as a hostile one."""
    out = Builder(folder)
    out.tar(media_type, tar)
    return out.done("application/vnd.oci.image.config.v1+json",
                    {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers",
                                                                         "diff_ids": out.diff_ids}})


# One small artifact a format: pytest.mark.parametrize("name", FORMATS).
FORMATS = {
    "modelpack-raw": modelpack,
    "modelpack-tar": lambda d: modelpack(d, codec="tar", tar_codec="tar"),
    "modelpack-tar+gzip": lambda d: modelpack(d, codec="tar+gzip", tar_codec="tar+gzip"),
    "modelpack-tar+zstd": lambda d: modelpack(d, codec="tar+zstd", tar_codec="tar+zstd"),
    "cnai": cnai,
    "docker-model-runner-0.1": docker_model_runner_v01,
    "docker-model-runner-0.1-single": lambda d: docker_model_runner_v01(d, (MIB,)),
    "docker-model-runner-0.2": docker_model_runner_v02,
    "docker-model-runner-modelpack": docker_model_runner_modelpack,
    "kitops-tar": kitops,
    "kitops-tar+gzip": lambda d: kitops(d, codec="tar+gzip"),
    "kitops-tar+zstd": lambda d: kitops(d, codec="tar+zstd"),
    "ollama": ollama,
    "oras": oras,
    "image-oci-tar": lambda d: image(d, "tar"),
    "image-oci-tar+gzip": image,
    "image-oci-tar+zstd": lambda d: image(d, "tar+zstd"),
    "image-docker": lambda d: image(d, docker=True),
}
