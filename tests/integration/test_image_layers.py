# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Layers of images that write through symlinks become the tree that umoci makes of them, and nothing leaves it."""
import os

import pytest

from lib.artifacts import Builder
from lib.check import assert_pulls, assert_store_good, publish, publish_error, running_daemon
from lib.content import Bytes, Tar, assert_tree, tree_at
from lib.sandbox import need
from lib.tools import oci_layout, tool

# One line an entry: "d path", "f path", "x path" (executable), "l path target", "h path target", "w path" (a whiteout),
# "o path" (an opaque mark); layers lowest first.
IMAGES = {
    "usrmerge": ("d usr/lib\nl lib usr/lib\nf usr/lib/libc.so", "f lib/libnew.so\nx lib/deep/er/tool"),
    "usrmerge-in-one-layer": ("d usr/lib\nl lib usr/lib\nf lib/libc.so",),
    "usrmerge-without-a-directory": ("l lib usr/lib", "f lib/libnew.so"),
    "absolute": ("d usr/lib\nl lib /usr/lib\nf usr/lib/a", "f lib/b"),
    "absolute-out": ("l lib /../../../../../../tmp", "f lib/mc-escaped"),
    "absolute-etc": ("l lib /etc", "f lib/passwd"),
    "chain": ("d data/v2\nl current v2\nl v2 data/v2/\nf data/v2/a", "f current/b"),
    "relative-up": ("d srv/a\nd srv/b\nl srv/a/link ../b", "f srv/a/link/x"),
    "the-root": ("l srv/root /\nf a", "f srv/root/b"),
    "directory-replaces": ("d usr/lib\nl lib usr/lib\nf usr/lib/a", "d lib\nf lib/b"),
    "file-replaces": ("d usr/lib\nl lib usr/lib\nf usr/lib/a", "f lib"),
    "symlink-replaces": ("d a\nd b\nl l a\nf a/x", "l l b\nf l/y"),
    "whiteout-through": ("d usr/lib\nl lib usr/lib\nf usr/lib/a\nf usr/lib/b", "w lib/a"),
    "whiteout-of-the-symlink": ("d usr/lib\nl lib usr/lib\nf usr/lib/a", "w lib"),
    "whiteout-then-a-directory": ("d usr/lib\nl lib usr/lib\nf usr/lib/a", "w lib\nf lib/b"),
    "opaque-through": ("d usr/lib\nl lib usr/lib\nf usr/lib/a", "o lib\nf lib/b"),
    "opaque-of-the-new-directory": ("d usr/lib\nl lib usr/lib\nf usr/lib/a", "d lib\no lib\nf lib/b"),
    "hard-link-through": ("d usr/lib\nl lib usr/lib\nf usr/lib/a", "h lib/b lib/a\nh c lib/a"),
    "hard-link-to-a-symlink": ("d usr/lib\nl lib usr/lib\nl usr/lib/s a\nf usr/lib/a", "h t lib/s"),
    "three-layers": ("d usr/lib\nl lib usr/lib\nf lib/a", "f lib/b\nw lib/a", "d usr/lib64\nl lib usr/lib64\nf lib/c"),
}
REFUSED = {
    "circle": ("l a b\nl b a", "f a/x"),
    "itself": ("l a a", "f a/x"),
    "through-a-file": ("f file\nl a file", "f a/x"),
}
CONFIG = "application/vnd.oci.image.config.v1+json"


def add_line(tar, line):
    kind, path, *more = line.split()
    name = os.path.basename(path)
    if kind == "d":
        tar.add_directory(path)
    elif kind in ("f", "x"):
        tar.add_file(path, Bytes(f"content of {path}"), 0o755 if kind == "x" else 0o644)
    elif kind == "l":
        tar.add_symlink(path, more[0])
    elif kind == "h":
        tar.add(Tar.info(path, b"1", linkname=more[0]))
    elif kind == "w":
        tar.add(Tar.info(os.path.join(os.path.dirname(path), f".wh.{name}")))
    else:
        tar.add(Tar.info(f"{path}/.wh..wh..opq"))


def image_of(folder, layers):
    out = Builder(folder)
    for lines in layers:
        tar = Tar(folder)
        for line in lines.splitlines():
            add_line(tar, line)
        out.tar("application/vnd.oci.image.layer.v1.tar", tar)
    return out.done(CONFIG, {"os": "linux", "architecture": "amd64", "config": {},
                             "rootfs": {"type": "layers", "diff_ids": out.diff_ids}})


def umoci_unpack(folder, artifact):
    """The tree that umoci makes of an image."""
    need("umoci")
    layout, bundle = os.path.join(folder, "layout"), os.path.join(folder, "bundle")
    oci_layout(layout, artifact, "v1")
    tool("umoci", "unpack", "--image", f"{layout}:v1", bundle)
    return tree_at(os.path.join(bundle, "rootfs"))


@pytest.fixture(scope="module", name="node")
def node_fixture(module_work, registry):
    """One daemon for the file."""
    with running_daemon(os.path.join(module_work, "d"), [registry.config()]) as daemon:
        yield daemon


@pytest.mark.parametrize("name", IMAGES)
def test_image_is_what_umoci_makes_of_it(node, registry, work, name):
    artifact = image_of(work, IMAGES[name])
    target = publish(node, name, registry.push(artifact, f"layers/{name}", "v1"))
    assert_tree(target, umoci_unpack(work, artifact))
    node.csi().unpublish(name, target)


@pytest.mark.parametrize("name", REFUSED)
def test_image_that_umoci_refuses_is_refused(node, registry, work, name):
    artifact = image_of(work, REFUSED[name])
    with pytest.raises(AssertionError):
        umoci_unpack(work, artifact)
    publish_error(node, name, registry.push(artifact, f"layers/{name}", "v1"))


def test_other_artifacts_put_nothing_through_a_symlink(node, registry, work):
    """As docs/formats.md says: a directory takes the symlink's place."""
    out = Builder(work)
    for lines in IMAGES["usrmerge"]:
        tar = Tar(work)
        for line in lines.splitlines():
            add_line(tar, line)
        out.tar("application/vnd.cncf.model.weight.v1.tar", tar)
        out.tree.update(tar.tree)
    artifact = out.done("application/vnd.cncf.model.config.v1+json", {}, "application/vnd.cncf.model.manifest.v1+json")
    artifact.tree.pop("lib", None)
    assert_pulls(node, "model", registry.push(artifact, "layers/model", "v1"), artifact.tree)


def test_layer_whose_files_came_with_a_larger_one(registry, work):
    """It is decoded while the larger one is still being committed, and waits for it."""
    with running_daemon(os.path.join(work, "d"), [registry.config()],
                        config={"pull": {"connections": 1}}) as daemon:
        for attempt in range(3):
            out, large, small = Builder(work), Tar(work), Tar(work)
            for i in range(3000):
                large.add_file(f"large/{i}", Bytes(f"{attempt} {i}"))
            for i in range(0, 3000, 1000):
                small.add_file(f"small/{i}", Bytes(f"{attempt} {i}"))
            for tar in (large, small):
                out.tar("application/vnd.oci.image.layer.v1.tar", tar)
                out.tree.update(tar.tree)
            artifact = out.done(CONFIG, {"os": "linux", "architecture": "amd64", "config": {},
                                         "rootfs": {"type": "layers", "diff_ids": out.diff_ids}})
            assert_pulls(daemon, f"v{attempt}", registry.push(artifact, "layers/repeats", f"v{attempt}"), artifact.tree)
        assert_store_good(daemon)


def test_store_is_good_after_all(node):
    assert_store_good(node)
