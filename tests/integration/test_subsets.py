# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""The attributes include and exclude: what is left out is not shown, and not downloaded where it is a layer."""
import os
import re
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from lib.artifacts import MIB, modelpack
from lib.check import (assert_pulls, assert_sentence, assert_store_good, publish, publish_error, store_names,
                       wait_idle)
from lib.content import assert_tree
from lib.csi import error_of
from lib.sandbox import wait_for

LARGE = "model-00001-of-00002.safetensors"
SMALL = ("config.json", "tokenizer.json", "docs/README.md")


def fetched(faulty, made):
    """The paths of the raw layers of which bytes came, and "tar" for the tar."""
    names = {layer["digest"]: layer.get("annotations", {}).get("org.cncf.model.filepath", "?")
             if layer["mediaType"].endswith("raw") else "tar" for layer in made.layers}
    return {names[d] for d in (r.path.rsplit("/", 1)[1] for r in faulty.seen("/blobs/")) if d in names}


def part(tree, keep):
    """What of a tree's files and symlinks has a path for which `keep` holds."""
    return {path: entry for path, entry in tree.items() if entry.kind != "directory" and keep(path)}


@pytest.fixture(name="case")
def case_fixture(make_daemon, faulty, work):
    class Case:
        made = modelpack(work)
        registry = faulty
        daemon = make_daemon([faulty.config()])
        reference = faulty.add(made, "team/model", "v1")
    return Case


@pytest.mark.parametrize("options, keep, comes", [
    ({"include": "*.json"}, lambda p: p.endswith(".json"), {"config.json", "tokenizer.json", "tar"}),
    ({"exclude": "*.safetensors\ncode/\n"}, lambda p: p in SMALL, {*SMALL, "tar"}),
    ({"include": "/*.json, docs, code/part1/*", "exclude": "tokenizer.*"},
     lambda p: p in ("config.json", "docs/README.md") or p.startswith("code/part1/"),
     {"config.json", "docs/README.md", "tar"}),
    ({"include": "**/file00?.txt"}, lambda p: re.search(r"/file00.\.txt$", p), {"tar"}),
])
def test_what_is_left_out_does_not_come(case, options, keep, comes):
    target = publish(case.daemon, "part", case.reference, **options)
    assert_tree(target, part(case.made.tree, keep))
    assert fetched(case.registry, case.made) == comes
    stats = case.daemon.csi()
    usage = stats.NodeGetVolumeStats(stats.pb.NodeGetVolumeStatsRequest(volume_id="part", volume_path=target))
    assert not usage.volume_condition.abnormal
    files = [e for e in part(case.made.tree, keep).values() if e.kind == "file"]
    assert [u.used for u in usage.usage if u.unit == 2] == [len(files)]
    assert [u.used for u in usage.usage if u.unit == 1] == [sum(e.size for e in files)]
    assert_store_good(case.daemon)


def test_the_whole_serves_subsets_without_the_registry(case):
    whole = publish(case.daemon, "whole", case.reference)
    digest = f"{case.reference.rsplit(':', 1)[0]}@{case.made.digest}"
    case.registry.stop()
    for name, reference, policy in (("a", case.reference, "IfNotPresent"), ("b", case.reference, "Never"),
                                    ("c", digest, "Never"), ("d", digest, "Always")):
        target = publish(case.daemon, name, reference, pullPolicy=policy, include="*.json")
        assert_tree(target, part(case.made.tree, lambda p: p.endswith(".json")))
        assert os.stat(f"{target}/config.json").st_ino == os.stat(f"{whole}/config.json").st_ino
    assert len(case.daemon.ctl_json("ls")["artifacts"]) == 2
    assert_store_good(case.daemon)


def test_the_whole_after_a_subset_fetches_the_rest(case):
    target = publish(case.daemon, "part", case.reference, include="*.json")
    code, text = publish_error(case.daemon, "never", case.reference, pullPolicy="Never")
    assert code == grpc.StatusCode.NOT_FOUND, text
    before = fetched(case.registry, case.made)
    whole = publish(case.daemon, "whole", case.reference)
    assert_tree(whole, case.made.tree)
    assert_tree(target, part(case.made.tree, lambda p: p.endswith(".json")))
    for layer in case.made.layers:
        assert sum(r.sent for r in case.registry.seen(layer["digest"])) <= layer["size"] * 1.05 + 1000, layer
    assert before == {"config.json", "tokenizer.json", "tar"}
    assert_store_good(case.daemon)


def test_two_subsets_at_once_share_what_both_have(case):
    case.registry.rate = 4 * MIB
    options = [{"include": "*.safetensors"}, {"exclude": "*.json"}, {"include": "*-00001-*"}, {}]
    with ThreadPoolExecutor(len(options)) as pool:
        targets = list(pool.map(lambda i: publish(case.daemon, f"p{i}", case.reference, **options[i]),
                                range(len(options))))
    keeps = [lambda p: p.endswith(".safetensors"), lambda p: not p.endswith(".json"), lambda p: "-00001-" in p]
    for target, keep in zip(targets, keeps):
        assert_tree(target, part(case.made.tree, keep))
    assert_tree(targets[3], case.made.tree)
    for layer in case.made.layers:
        assert sum(r.sent for r in case.registry.seen(layer["digest"])) <= layer["size"] * 1.05 + 1000, layer
    assert_store_good(case.daemon)


def test_inspect_of_the_whole_names_the_volumes_that_keep_it(case):
    publish(case.daemon, "whole", case.reference)
    target = publish(case.daemon, "part", case.reference, include="*.json")
    case.daemon.csi().unpublish("whole", case.daemon.target("whole"))
    result = case.daemon.ctl("rm", case.reference)
    assert result.code == 1 and "cache-ctl inspect shows which" in result.stderr, result
    shown = case.daemon.ctl_json("inspect", case.reference)
    assert shown["subset"] is None and [v["target"] for v in shown["volumes"]] == [target]


def test_equal_filters_are_one_tree(case):
    for i, include in enumerate(("*.json,docs", "docs\n*.json\n", "**/*.json , docs/,docs", "/docs,*.json")):
        publish(case.daemon, f"v{i}", case.reference, include=include)
    assert len(store_names(case.daemon)[1]) == 2  # the last one means docs at the root alone
    request = case.daemon.csi().publish_request("v0", case.daemon.target("v0"), case.reference, include="docs,*.json")
    case.daemon.csi().NodePublishVolume(request)  # nothing has changed
    request.volume_context["include"] = "docs"
    code, text = error_of(case.daemon.csi().NodePublishVolume, request)
    assert code == grpc.StatusCode.ALREADY_EXISTS, text


def test_cache_ctl_is_truthful(case):
    """ls, inspect, verify and rm of an artifact of which only subsets are here."""
    daemon, ref = case.daemon, case.reference
    assert daemon.ctl("pull", "--include", "*.json", "--quiet", ref).stdout.strip() == case.made.digest
    (listed,) = daemon.ctl_json("ls")["artifacts"]
    assert listed["digest"] == case.made.digest and listed["references"] == [ref] and listed["complete"]
    assert listed["subset"]["include"] == "*.json" and listed["subset"]["exclude"] is None
    assert ", subset" in daemon.ctl("ls").stdout
    for name in (ref, case.made.digest, listed["subset"]["id"]):
        shown = daemon.ctl_json("inspect", name)
        assert {e["path"] for e in shown["tree"] if e["type"] == "file"} == {"config.json", "tokenizer.json"}
        assert {la["path"] for la in shown["layers"] if la["left_out"]} == {
            LARGE, LARGE.replace("00001-", "00002-"), "docs/README.md"}
    assert "left out" in daemon.ctl("inspect", ref).stdout
    assert daemon.ctl("verify", ref).code == 0
    directory = os.path.join(daemon.folder, "mnt")
    os.mkdir(directory)
    assert daemon.ctl("mount", ref, directory).code == 4  # all of it is not here
    assert daemon.ctl("mount", "--include", "*.json", ref, directory).code == 0
    assert_tree(directory, part(case.made.tree, lambda p: p.endswith(".json")))
    assert daemon.ctl("rm", ref).code == 1
    assert daemon.ctl("umount", directory).code == 0
    assert daemon.ctl("pull", "--exclude", "*.safetensors", ref).code == 0
    result = daemon.ctl("inspect", ref)
    assert result.code == 2 and "only subsets" in result.stderr, result
    result = daemon.ctl("rm", case.made.digest)
    assert result.code == 2 and "only subsets" in result.stderr, result
    assert daemon.ctl("verify", ref).code == 0
    assert daemon.ctl("pull", ref).code == 0
    assert daemon.ctl("rm", case.made.digest).code == 0  # the whole alone
    artifacts = daemon.ctl_json("ls")["artifacts"]
    assert len(artifacts) == 2 and all(a["subset"] and a["references"] == [ref] for a in artifacts)
    assert daemon.ctl("rm", artifacts[0]["subset"]["id"]).code == 0
    assert len(daemon.ctl_json("ls")["artifacts"]) == 1
    assert daemon.ctl("rm", ref).code == 0
    assert not daemon.ctl_json("ls")["artifacts"]
    assert store_names(daemon) == (set(), set())


def test_damage_and_loss_of_a_subset(case):
    """verify finds it, says what is lacking (not what was left out), a pull repairs; recovery knows the tree."""
    daemon, ref = case.daemon, case.reference
    target = publish(daemon, "part", ref, include="*.json")
    path = next(os.path.join(f, n) for f, _, names in os.walk(os.path.join(daemon.store, "objects")) for n in names
                if os.stat(os.path.join(f, n)).st_size == os.stat(f"{target}/tokenizer.json").st_size)
    with open(path, "r+b") as file:
        file.write(b"#")
    assert daemon.ctl("verify", ref).code == 7
    result = daemon.ctl("verify", ref)
    assert result.code == 7 and "lacks tokenizer.json:" in result.stdout + result.stderr, result
    daemon.restart()
    assert daemon.ctl("pull", "--include", "*.json", ref).code == 0
    assert_tree(target, part(case.made.tree, lambda p: p.endswith(".json")))
    daemon.csi().unpublish("part", target)
    assert_pulls(daemon, "again", ref, part(case.made.tree, lambda p: p.endswith(".json")), include="*.json")
    assert_store_good(daemon)


def test_a_tag_that_moves_takes_its_subsets_along(case, work):
    other = modelpack(work, seed="other")
    publish(case.daemon, "old", case.reference, include="*.json")
    case.registry.add(other, "team/model", "v1")
    assert_tree(publish(case.daemon, "new", case.reference, pullPolicy="Always"), other.tree)
    case.registry.stop()
    assert_tree(publish(case.daemon, "part", case.reference, include="*.json"),
                part(other.tree, lambda p: p.endswith(".json")))


def test_killed_while_a_subset_comes(case):
    case.registry.rate = MIB // 2
    request = case.daemon.csi().publish_request("k", case.daemon.target("k"), case.reference, include="*-00001-*")
    call = case.daemon.csi().NodePublishVolume.future(request, timeout=60)
    wait_for(case.registry.blob_gets, "the pull")
    case.daemon.kill9()
    call.exception(timeout=10)
    case.registry.rate = 0
    case.daemon.start()
    assert_pulls(case.daemon, "k", case.reference, part(case.made.tree, lambda p: "-00001-" in p),
                 include="*-00001-*")
    assert_store_good(case.daemon)


@pytest.mark.parametrize("options, word", [
    ({"include": "a[bc]"}, "'\\['"), ({"exclude": "../x"}, "\"\\.\\.\""), ({"include": "a**"}, "whole component"),
    ({"exclude": ",".join(f"p{i}" for i in range(65))}, "64 patterns"), ({"include": "a" * 5000}, "4096 bytes"),
    ({"include": "a\tb\x07"}, "control character"),
])
def test_bad_patterns(case, options, word):
    code, text = publish_error(case.daemon, "bad", case.reference, **options)
    assert code == grpc.StatusCode.INVALID_ARGUMENT, (code, text)
    assert re.search(word, text) and next(iter(options)) in text, text
    assert not case.registry.seen("/manifests/")


@pytest.mark.parametrize("first", [False, True])
def test_nothing_is_left(case, first):
    if first:
        assert case.daemon.ctl("pull", case.reference).code == 0
        case.registry.stop()
    code, text = publish_error(case.daemon, "empty", case.reference, include="*.gguf")
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "leave no file" in text, (code, text)
    assert_sentence(text)
    wait_idle(case.daemon)
    assert len(store_names(case.daemon)[1]) == first
