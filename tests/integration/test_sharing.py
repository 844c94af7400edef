# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""One copy of everything: artifacts that share files, tags of one manifest, publishers that come together."""
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from lib.artifacts import Builder, modelpack, modelpack_annotations
from lib.check import assert_store_good, publish, wait_idle
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import Random, Tar, assert_tree

MIB = 1 << 20
FILES, FILE_BYTES = 10, 2 * MIB
PUBLISHERS = 16
PREFIX = "application/vnd.cncf.model"


def ten_files(folder, codec, changed=()):
    """An artifact of ten files; those in `changed` differ from the plain one."""
    out, tar = Builder(folder), Tar(folder, codec) if codec != "raw" else None
    for i in range(FILES):
        path, blob = f"part-{i}.safetensors", Random(FILE_BYTES, f"part{i}{'changed' if i in changed else ''}")
        if tar:
            tar.add_file(path, blob)
        else:
            out.raw(path, f"{PREFIX}.weight.v1.raw", blob, modelpack_annotations(path, blob))
    if tar:
        out.tar(f"{PREFIX}.weight.v1.{codec}", tar)
    return out.done(f"{PREFIX}.config.v1+json", {"changed": list(changed)}, f"{PREFIX}.manifest.v1+json")


@pytest.mark.parametrize("codec", ["raw", "tar", "tar+zstd"])
def test_artifacts_that_share_90_percent_cost_1_1(daemon, registry, work, codec, show):
    repository = f"share/{codec.replace('+', '-')}"
    one, two = ten_files(work, codec), ten_files(work, codec, {3})
    references = [registry.push(one, repository, "one"), registry.push(two, repository, "two")]
    size, empty = FILES * FILE_BYTES, daemon.disk_bytes()
    targets = [publish(daemon, "one", references[0])]
    first = daemon.disk_bytes() - empty
    targets.append(publish(daemon, "two", references[1]))
    wait_idle(daemon)
    both = daemon.disk_bytes() - empty
    show(f"{codec}: one {first / size:.3f}, both {both / size:.3f} of the content of one")
    assert first < 1.02 * size
    assert both < 1.12 * size
    for target, artifact in zip(targets, (one, two)):
        assert_tree(target, artifact.tree)
    listed = {a["digest"]: a for a in daemon.ctl_json("ls")["artifacts"]}
    assert listed[one.digest]["bytes"] == size
    assert listed[one.digest]["unique_bytes"] == listed[two.digest]["unique_bytes"] == FILE_BYTES


def test_shared_raw_layers_are_not_fetched_again(make_daemon, faulty, work):
    daemon = make_daemon([faulty.config()])
    one, two = ten_files(work, "raw"), ten_files(work, "raw", {0})
    publish(daemon, "one", faulty.add(one, "share", "one"))
    before = faulty.blob_gets()
    target = publish(daemon, "two", faulty.add(two, "share", "two"))
    assert faulty.blob_gets() - before <= 2  # the changed layer, and a config if it is read
    assert_tree(target, two.tree)


@pytest.mark.parametrize("codec", ["raw", "tar+zstd"])
def test_content_of_another_repository_comes_again_and_is_stored_once(make_daemon, faulty, work, codec):
    daemon, one = make_daemon([faulty.config()]), ten_files(work, codec)
    publish(daemon, "one", faulty.add(one, "team-a/model", "v1"))
    before, disk = faulty.blob_gets(), daemon.disk_bytes()
    target = publish(daemon, "two", faulty.add(one, "team-b/model", "v1"))
    assert faulty.blob_gets() - before >= len(one.layers)
    wait_idle(daemon)
    assert daemon.disk_bytes() - disk < MIB
    assert_tree(target, one.tree)
    again, before = faulty.add(one, "team-b/model", "v2"), faulty.blob_gets()
    assert_tree(publish(daemon, "three", again), one.tree)
    assert faulty.blob_gets() == before
    assert_store_good(daemon)


def test_a_digest_is_not_given_under_the_name_of_another_repository(make_daemon, faulty, work):
    daemon, one = make_daemon([faulty.config()]), modelpack(work)
    reference = faulty.add(one, "team-a/model", "v1")
    publish(daemon, "one", reference)
    own = daemon.ctl("pull", reference.replace(":v1", f"@{one.digest}"))
    other = daemon.ctl("pull", reference.replace("team-a/model:v1", f"team-b/model@{one.digest}"))
    assert own.code == 0, own
    assert other.code != 0, other


def test_second_tag_of_a_manifest_is_the_same_artifact(make_daemon, faulty, work):
    daemon, artifact = make_daemon([faulty.config()]), modelpack(work)
    references = [faulty.add(artifact, "team/model", tag) for tag in ("v1", "stable")]
    publish(daemon, "one", references[0])
    before, disk = faulty.blob_gets(), daemon.disk_bytes()
    target = publish(daemon, "two", references[1])
    assert faulty.blob_gets() == before
    assert daemon.disk_bytes() - disk < MIB
    assert_tree(target, artifact.tree)
    listed = daemon.ctl_json("ls")["artifacts"]
    assert len(listed) == 1
    assert sorted(listed[0]["references"]) == sorted(references)
    assert listed[0]["volumes"] == 2


def test_tag_that_moves_gives_the_new_artifact_and_leaves_mounted_volumes(make_daemon, faulty, work):
    daemon, old, new = make_daemon([faulty.config()]), modelpack(work, seed="old"), modelpack(work, seed="new")
    reference = faulty.add(old, "team/moving", "v1")
    before = publish(daemon, "before", reference)
    faulty.add(new, "team/moving", "v1")
    kept = publish(daemon, "kept", reference)  # IfNotPresent: what is here
    moved = publish(daemon, "moved", reference, pullPolicy="Always")
    for target, artifact in ((before, old), (kept, old), (moved, new)):
        assert_tree(target, artifact.tree)


@pytest.mark.parametrize("tag", ["latest", "v1"])
def test_sixteen_publishers_at_once_make_one_download(make_daemon, faulty, work, tag):
    daemon, artifact = make_daemon([faulty.config()]), modelpack(work, sizes=(8 * MIB, 4 * MIB))
    reference = faulty.add(artifact, "team/many", tag)
    faulty.rate = 16 * MIB
    csi = daemon.csi()

    def one(i):
        name = f"pod{i}"
        target = daemon.target(name)
        csi.publish(name, target, reference, seconds=60)
        return target

    with ThreadPoolExecutor(PUBLISHERS) as pool:
        targets = list(pool.map(one, range(PUBLISHERS)))
    fetched = faulty.seen("/blobs/")
    assert len({r.path for r in fetched}) == len(fetched), "a blob was asked for twice"
    content = sum(layer["size"] for layer in artifact.layers)
    assert sum(r.sent for r in fetched) <= content + 4096
    assert len({os.stat(os.path.join(target, "tokenizer.json")).st_ino for target in targets}) == 1
    for target in (targets[0], targets[-1]):
        assert_tree(target, artifact.tree)
    assert_store_good(daemon)


def test_cache_ctl_and_pods_join_the_same_pull(make_daemon, faulty, work):
    daemon, artifact = make_daemon([faulty.config()]), modelpack(work, sizes=(6 * MIB,))
    reference = faulty.add(artifact, "team/joined", "v1")
    faulty.rate = 6 * MIB
    with ThreadPoolExecutor(2) as pool:
        pulled = pool.submit(daemon.ctl, "pull", reference)
        target = pool.submit(publish, daemon, "pod", reference).result()
        assert pulled.result().code == 0, pulled.result()
    fetched = faulty.seen("/blobs/")
    assert len({r.path for r in fetched}) == len(fetched)
    assert_tree(target, artifact.tree)
