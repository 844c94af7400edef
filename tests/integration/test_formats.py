# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Every format of the wild becomes the right tree: of our own making, and pushed by skopeo, oras and crane."""
import functools
import json
import os
import shutil
import subprocess

import pytest

from lib import artifacts
from lib.artifacts import FORMATS, Builder, small_tar
from lib.check import assert_pulls, assert_store_good, publish, running_daemon
from lib.content import Bytes, Entry, File, Random, Text, assert_tree, file_entry
from lib.sandbox import need
from lib.tools import oci_layout, tool

MIB = 1 << 20
TOOLS = os.path.expanduser("~/.cache/modelcached-tests")
GO_TOOLS = {"oras": "oras.land/oras/cmd/oras@v1.3.6",
            "crane": "github.com/google/go-containerregistry/cmd/crane@v0.22.1"}
GO_SECONDS = 120


@pytest.fixture(scope="module", name="node")
def node_fixture(module_work, registry):
    """One daemon for the file."""
    with running_daemon(os.path.join(module_work, "d"), [registry.config()]) as daemon:
        yield daemon


@functools.cache
def find_go_tool(name):
    """(path, why not) of oras or crane: from PATH, our cache, or built with go."""
    path = shutil.which(name) or os.path.join(TOOLS, name)
    if os.access(path, os.X_OK):
        return path, None
    if not shutil.which("go"):
        return None, "there is no go to build it"
    os.makedirs(TOOLS, exist_ok=True)
    try:
        done = subprocess.run(["go", "install", GO_TOOLS[name]], capture_output=True, text=True, check=False,
                              env={**os.environ, "GOBIN": TOOLS}, timeout=GO_SECONDS)
    except subprocess.TimeoutExpired:
        return None, f"building it takes longer than {GO_SECONDS} s"
    return (path, None) if os.access(path, os.X_OK) else (None, done.stderr.strip()[-300:])


def go_tool(name):
    path, why = find_go_tool(name)
    if not path:
        pytest.skip(f"{name} is not installed, and {why}")
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_format_becomes_its_tree(node, registry, work, name):
    artifact = FORMATS[name](work)
    reference = registry.push(artifact, f"formats/{name.replace('+', '-')}", "v1")
    target = publish(node, name, reference)
    assert_tree(target, artifact.tree)
    node.csi().unpublish(name, target)
    shown = node.ctl_json("inspect", reference)
    assert shown["digest"] == artifact.digest
    assert shown["manifest"] == json.loads(artifact.manifest)
    assert [layer["digest"] for layer in shown["layers"]] == [layer["digest"] for layer in artifact.layers]
    files = {f["path"]: f for f in shown["tree"] if f["type"] == "file"}
    for path, entry in artifact.tree.items():
        if entry.kind == "file":
            assert files[path]["digest"] == "sha256:" + entry.sha256
            assert files[path]["bytes"] == entry.size
            assert files[path]["executable"] == entry.executable
    again = node.ctl("--output", "json", "pull", "--policy", "IfNotPresent", reference)
    assert json.loads(again.stdout.splitlines()[-1])["state"] == "done"


FAMILIES = {"modelpack-raw": "modelpack", "cnai": "cnai", "docker-model-runner-0.1": "docker-model",
            "kitops-tar": "kitops", "ollama": "ollama", "oras": "oras", "image-oci-tar+gzip": "image"}


@pytest.mark.parametrize("name", FAMILIES)
def test_family_is_told(node, registry, work, name):
    reference = registry.push(FORMATS[name](work), f"families/{name.replace('+', '-')}", "v1")
    assert node.ctl("pull", reference).code == 0
    assert node.ctl_json("inspect", reference)["family"] == FAMILIES[name]


def test_raw_layer_is_stored_once_under_its_own_digest(node, registry, work):
    out, blob = Builder(work), Random(MIB, "its own digest")
    out.raw("model.safetensors", "application/vnd.cncf.model.weight.v1.raw", blob,
            {"org.cncf.model.filepath": "model.safetensors"})
    artifact = out.done("application/vnd.cncf.model.config.v1+json", {}, "application/vnd.cncf.model.manifest.v1+json")
    target = publish(node, "raw", registry.push(artifact, "formats/own", "v1"))
    stored = os.path.join(node.store, "objects", blob.sha256[:2], blob.sha256[2:])
    assert os.stat(stored).st_ino == os.stat(os.path.join(target, "model.safetensors")).st_ino
    node.csi().unpublish("raw", target)


def platforms(folder):
    arm = artifacts.image(folder, "tar", size=100_000, architecture="arm64", seed="arm")
    amd = artifacts.image(folder, "tar", size=100_000, architecture="amd64", seed="amd")
    return amd, arm


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_index_gives_the_platform(node, registry, work, docker):
    amd, arm = platforms(work)
    index = artifacts.index([(arm, "linux/arm64"), (amd, "linux/amd64")], docker)
    reference = registry.push(index, f"formats/index-{int(docker)}", "v1")
    ours = {"x86_64": amd, "aarch64": arm}.get(os.uname().machine)
    if ours:
        assert_pulls(node, f"native{docker}", reference, ours.tree)
    for platform, artifact in (("linux/arm64", arm), ("linux/amd64", amd)):
        assert_pulls(node, f"{platform.replace('/', '-')}{docker}", reference, artifact.tree, platform=platform)
    assert node.ctl("pull", "--platform", "linux/s390x", reference).code == 4


def test_commands_choose_the_platform_of_a_name(node, registry, work):
    amd, arm = platforms(work)
    index = artifacts.index([(arm, "linux/arm64"), (amd, "linux/amd64")])
    reference, mounted = registry.push(index, "formats/index-ctl", "v1"), os.path.join(work, "mounted")
    os.mkdir(mounted)
    for platform, artifact in (("linux/amd64", amd), ("linux/arm64", arm)):
        assert node.ctl("pull", "--platform", platform, reference).code == 0
        shown = node.ctl_json("inspect", "--platform", platform, reference)
        assert (shown["digest"], shown["platform"]) == (artifact.digest, platform)
        assert node.ctl("mount", "--platform", platform, reference, mounted).code == 0
        assert_tree(mounted, artifact.tree)
        assert node.ctl("umount", mounted).code == 0
    rows = [line.split() for line in node.ctl("ls").stdout.splitlines()]
    assert rows[0][:4] == ["REFERENCE", "DIGEST", "KIND", "PLATFORM"]
    assert sorted(row[3] for row in rows if row[0] == reference) == ["linux/amd64", "linux/arm64"]
    for command in (("inspect",), ("rm",), ("mount",)):
        arguments = (*command, "--platform", "linux/s390x", reference) + ((mounted,) if command == ("mount",) else ())
        result = node.ctl(*arguments)
        assert (result.code, "linux/s390x" in result.stderr) == (4, True), result
        assert node.ctl(*(a.replace("linux/s390x", "s390x") for a in arguments)).code == 2
    assert node.ctl("rm", "--platform", "linux/arm64", reference).code == 0
    assert [a["platform"] for a in node.ctl_json("ls")["artifacts"] if reference in a["references"]] == ["linux/amd64"]
    assert node.ctl("rm", reference).code == 0
    assert node.ctl("inspect", reference).code == 4


def test_digest_references(node, registry, work):
    artifact = artifacts.modelpack(work, sizes=(1000,), seed="by digest")
    registry.push(artifact, "formats/digest", "v1")
    for i, reference in enumerate((f"{registry.host}/formats/digest@{artifact.digest}",
                                   f"{registry.host}/formats/digest:v1@{artifact.digest}")):
        assert_pulls(node, f"digest{i}", reference, artifact.tree)


def test_sub_path_shows_one_directory(node, registry, work):
    artifact = artifacts.modelpack(work, sizes=(1000,), seed="sub path")
    reference = registry.push(artifact, "formats/subpath", "v1")
    tree = {path.removeprefix("code/"): entry for path, entry in artifact.tree.items() if path.startswith("code/")}
    assert tree
    assert_pulls(node, "subpath", reference, tree, subPath="code")


def test_no_layers_is_an_empty_tree(node, registry, work):
    artifact = Builder(work).done("application/vnd.cncf.model.config.v1+json", {})
    assert_pulls(node, "empty", registry.push(artifact, "formats/empty", "v1"), {})


# As others push.

def skopeo_copy(registry, source, name, *options):
    need("skopeo")
    tool("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *options, source,
         f"docker://{registry.host}/{name}")
    return f"{registry.host}/{name}"


@pytest.mark.parametrize("options", [(), ("--format", "v2s2"), ("--format", "oci", "--dest-compress-format", "zstd")],
                         ids=["as-is", "docker", "zstd"])
def test_skopeo_copy_of_a_layout(node, registry, work, options):
    # skopeo remembers blobs of the same content and would not compress those anew: a seed each.
    artifact = artifacts.image(work, "tar" if "zstd" in options else "tar+gzip", seed=f"skopeo{options}")
    layout = oci_layout(os.path.join(work, "layout"), artifact, "v1")
    name = f"skopeo/layout:{'-'.join(o.strip('-') for o in options) or 'plain'}"
    assert_pulls(node, f"skopeo{len(options)}{options[-1:]}".replace("'", ""),
                 skopeo_copy(registry, layout, name, *options), artifact.tree)


def test_skopeo_copy_of_a_docker_archive(node, registry, work):
    artifact, archive = artifacts.image(work), os.path.join(work, "archive.tar")
    need("skopeo")
    tool("skopeo", "--insecure-policy", "copy", oci_layout(os.path.join(work, "layout"), artifact, "v1"),
         f"docker-archive:{archive}:made/by:skopeo")
    assert_pulls(node, "archive", skopeo_copy(registry, f"docker-archive:{archive}", "skopeo/archive:v1"),
                 artifact.tree)


@pytest.mark.parametrize("name", ["modelpack-raw", "oras", "kitops-tar+gzip"])
def test_skopeo_copy_between_repositories(node, registry, work, name):
    """What a mirror does: the artifact is the same afterwards."""
    artifact = FORMATS[name](work)
    source = registry.push(artifact, f"skopeo/source-{name.replace('+', '-')}", "v1")
    copy = skopeo_copy(registry, f"docker://{source}", f"skopeo/copy-{name.replace('+', '-')}:v1",
                       "--src-tls-verify=false", "--preserve-digests")
    assert_pulls(node, f"copy-{name}", copy, artifact.tree)


def write_files(folder, files):
    """Writes {path: (Blob, mode)}; returns the tree."""
    for path, (blob, mode) in files.items():
        full = os.path.join(folder, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as file:
            for chunk in blob.chunks():
                file.write(chunk)
        os.chmod(full, mode)
    return {path: file_entry(blob, mode) for path, (blob, mode) in files.items()}


def test_oras_push_of_files_and_a_directory(node, registry, work):
    oras, source = go_tool("oras"), os.path.join(work, "source")
    tree = write_files(source, {
        "weights.safetensors": (Random(2 * MIB, "oras"), 0o644), "config.json": (Bytes("{}\n"), 0o644),
        "extra/a.txt": (Text(5000, "a"), 0o644), "extra/deep/run.sh": (Bytes("#!/bin/sh\n"), 0o755)})
    os.symlink("a.txt", os.path.join(source, "extra/link"))
    tree["extra/link"] = Entry("symlink", target="a.txt")
    reference = f"{registry.host}/oras/files:v1"
    tool(oras, "push", "--plain-http", "--artifact-type", "application/vnd.example.model", reference,
         "weights.safetensors:application/octet-stream", "config.json:application/json", "extra", cwd=source)
    assert_pulls(node, "oras", reference, tree)


def test_oras_push_of_a_modelpack_with_annotations(node, registry, work):
    """As people without modctl make ModelPack: media types and annotations by hand."""
    oras, source = go_tool("oras"), os.path.join(work, "source")
    tree = write_files(source, {"w.bin": (Random(MIB, "oras modelpack"), 0o644), "c.json": (Bytes("{}"), 0o644)})
    prefix = "application/vnd.cncf.model"
    annotations = {"w.bin": {"org.cncf.model.filepath": "weights/w.safetensors"},
                   "c.json": {"org.cncf.model.filepath": "config.json"}}
    write_files(source, {"annotations.json": (Bytes(json.dumps(annotations)), 0o644),
                         "config-blob.json": (Bytes("{}"), 0o644)})
    reference = f"{registry.host}/oras/modelpack:v1"
    tool(oras, "push", "--plain-http", "--artifact-type", f"{prefix}.manifest.v1+json", "--annotation-file",
         "annotations.json", "--config", f"config-blob.json:{prefix}.config.v1+json", reference,
         f"w.bin:{prefix}.weight.v1.raw", f"c.json:{prefix}.weight.config.v1.raw", cwd=source)
    assert_pulls(node, "oras-modelpack", reference,
                 {"weights/w.safetensors": tree["w.bin"], "config.json": tree["c.json"]})


def test_crane_append_of_a_tar(node, registry, work):
    crane, out = go_tool("crane"), Builder(work)
    layers = [small_tar(out, "tar", "first", 1), small_tar(out, "tar+gzip", "second", 2)]
    reference, tree = f"{registry.host}/crane/append:v1", {}
    for i, tar in enumerate(layers):
        blob, _ = tar.close()
        tree.update(tar.tree)
        base = ["-b", reference] if i else []
        tool(crane, "append", "--insecure", *base, "-f", blob.path, "-t", reference)
    assert_pulls(node, "crane", reference, tree)


def test_crane_push_of_a_layout(node, registry, work):
    crane, artifact = go_tool("crane"), artifacts.modelpack(work, seed="crane")
    layout = os.path.join(work, "layout")
    oci_layout(layout, artifact, "v1")
    reference = f"{registry.host}/crane/layout:v1"
    tool(crane, "push", "--insecure", layout, reference)
    assert_pulls(node, "crane-layout", reference, artifact.tree)


def test_tar_of_pax_gnu_and_ustar_names(node, registry, work):
    """Names that each tar dialect writes in its own way."""
    for dialect in ("gnu", "pax", "ustar", "v7"):
        source = os.path.join(work, dialect)
        deep = "/".join(["directory"] * 3)
        tree = write_files(source, {
            f"{deep}/plain.txt": (Bytes(dialect), 0o644), "run": (Bytes("#!/bin/sh\n"), 0o755)})
        if dialect in ("gnu", "pax"):
            tree.update(write_files(source, {f"{'x' * 200}/{'y' * 120}.txt": (Bytes("long"), 0o644),
                                             "größe/日本.txt": (Bytes("utf-8"), 0o644)}))
        path = os.path.join(work, f"{dialect}.tar")
        tool("tar", f"--format={dialect}", "-cf", path, "-C", source, ".")
        out, blob = Builder(work), File(path)
        out.layer("application/vnd.oci.image.layer.v1.tar", blob)
        config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [blob.digest]}}
        artifact = out.done("application/vnd.oci.image.config.v1+json", config)
        assert_pulls(node, f"tar-{dialect}", registry.push(artifact, f"formats/tar-{dialect}", "v1"), tree)


def test_store_is_good_after_all(node):
    assert_store_good(node)
