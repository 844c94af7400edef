# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Every failure of a pull: one clear sentence, the right code, nothing left behind, nothing outside the store, and the
daemon goes on."""
import dataclasses
import gzip
import json
import os
import re
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from typing import Callable

import grpc
import pytest

from lib.artifacts import OCI_MANIFEST, Builder, index, modelpack, one_tar
from lib.check import (EXIT_OF, assert_pulls, assert_sentence, assert_store_good, names_beneath, publish,
                       publish_error, running_daemon, store_names, wait_idle)
from lib.content import Bytes, File, Random, Tar
from lib.daemon import program, run
from lib.disk import small_disk_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.faulty import FaultyRegistry
from lib.sandbox import mounts_beneath, need, wait_for

Code = grpc.StatusCode
MIB = 1 << 20
BLOB, MANIFEST = "/blobs/sha256:", "/manifests/v1$"
OUTSIDE = "/tmp/modelcached-escaped"  # where hostile tars aim


class Place:
    """A daemon, a FaultyRegistry, and one good artifact that is always there."""

    def __init__(self, folder, faulty, daemon):
        self.folder, self.faulty, self.daemon, self.count = folder, faulty, daemon, 0
        self.good = modelpack(folder, sizes=(50_000,), seed="good")
        self.good_reference = faulty.add(self.good, "good/model", "v1")
        assert_pulls(daemon, "good", self.good_reference, self.good.tree)

    def repository(self):
        self.count += 1
        return f"case/number{self.count}"

    def artifact(self, size=300_000):
        return modelpack(self.folder, sizes=(size,), seed=f"case{self.count}")


@pytest.fixture(scope="module", name="place")
def place_fixture(module_work):
    folder = os.path.join(module_work, "faulty")
    os.makedirs(folder)
    faulty = FaultyRegistry(folder)
    try:
        with running_daemon(os.path.join(module_work, "d"),
                            [faulty.config(), {"host": "127.0.0.1:1", "plain_http": True}]) as daemon:
            yield Place(folder, faulty, daemon)
    finally:
        faulty.stop()


def assert_fails(place, reference, code, words, exit_code=None):
    """CSI and cache-ctl fail alike and leave nothing; afterwards the good artifact is still pulled."""
    daemon = place.daemon
    wait_idle(daemon)
    before, names = store_names(daemon), names_beneath(daemon.folder)
    place.count += 1
    with ThreadPoolExecutor(1) as pool:
        # What is tried again takes its seconds: both wait for the same pull then.
        joined = pool.submit(daemon.ctl, "pull", reference) if code == Code.UNAVAILABLE else None
        got, text = publish_error(daemon, f"bad{place.count}", reference)
        result = joined.result() if joined else daemon.ctl("pull", reference)
    assert got == code, f"{got}: {text}"
    assert re.search(words, text, re.I), text
    assert result.code == (EXIT_OF.get(code, 1) if exit_code is None else exit_code), result
    sentence = result.stderr.strip().removeprefix("cache-ctl: ")
    assert_sentence(sentence)
    assert re.search(words, sentence, re.I), result
    wait_idle(daemon)
    assert store_names(daemon) == before, "something became visible"
    new = names_beneath(daemon.folder) - names
    assert not [n for n in new if not re.match(r"kubelet/pods/bad|store/objects/..$|store/index\.db-", n)], new
    assert daemon.alive()
    place.faulty.clear_faults()
    artifact = place.artifact(1000)
    assert_pulls(daemon, "after", place.faulty.add(artifact, place.repository(), "v1"), artifact.tree)
    return text


@dataclasses.dataclass
class Case:
    """A fault of the registry and what it must become."""
    path: str
    kind: str
    code: Code
    words: str
    options: dict = dataclasses.field(default_factory=dict)


WEIGHT_SIZE = 300_000
CASES = {
    "blob-digest": Case(BLOB, "corrupt", Code.DATA_LOSS, "digest", {"after": 5}),
    "blob-too-long": Case(BLOB, "size", Code.DATA_LOSS, "size|longer|bytes", {"delta": 5}),
    "blob-too-short": Case(BLOB, "size", Code.DATA_LOSS, "size|shorter|bytes", {"delta": -1}),
    "blob-truncated": Case(BLOB, "truncate", Code.UNAVAILABLE, "ended|truncated|closed|short|bytes", {"after": 0}),
    "blob-reset": Case(BLOB, "reset", Code.UNAVAILABLE, "reset|closed|connection", {"after": 0}),
    "blob-404": Case(BLOB, "status", Code.NOT_FOUND, "404|not found", {"status": 404}),
    "blob-401": Case(BLOB, "status", Code.UNAUTHENTICATED, "401|credential", {"status": 401}),
    "blob-403": Case(BLOB, "status", Code.PERMISSION_DENIED, "403|not allowed|denied", {"status": 403}),
    "blob-500": Case(BLOB, "status", Code.UNAVAILABLE, "500", {"status": 500}),
    "manifest-404": Case(MANIFEST, "status", Code.NOT_FOUND, "404|not found", {"status": 404}),
    "manifest-401": Case(MANIFEST, "status", Code.UNAUTHENTICATED, "401|credential", {"status": 401}),
    "manifest-403": Case(MANIFEST, "status", Code.PERMISSION_DENIED, "403|not allowed|denied", {"status": 403}),
    "manifest-500": Case(MANIFEST, "status", Code.UNAVAILABLE, "500", {"status": 500}),
    "manifest-503": Case(MANIFEST, "status", Code.UNAVAILABLE, "503", {"status": 503}),
    "manifest-truncated": Case(MANIFEST, "truncate", Code.UNAVAILABLE, "ended|truncated|closed|short|bytes",
                               {"after": 20}),
    "manifest-html": Case(MANIFEST, "status", Code.FAILED_PRECONDITION, "manifest|JSON",
                          {"status": 200, "body": b"<html>login</html>"}),
    "manifest-garbage": Case(MANIFEST, "garbage", Code.FAILED_PRECONDITION, "HTTP|answer|registry",
                             {"body": b"\x00\x01garbage\r\n\r\n"}),
    "teapot": Case(MANIFEST, "status", Code.FAILED_PRECONDITION, "418", {"status": 418}),
}


@pytest.mark.parametrize("name", CASES)
def test_fault_of_the_registry(place, name):
    case, repository = CASES[name], place.repository()
    reference = place.faulty.add(place.artifact(WEIGHT_SIZE), repository, "v1")
    place.faulty.fault(f"{repository}{case.path}", case.kind, **case.options)
    text = assert_fails(place, reference, case.code, case.words)
    assert repository in text or place.faulty.host in text, f"it does not say on what: {text}"


def test_a_passing_fault_is_survived(place):
    """One 503 and one reset are retried, not told."""
    repository, artifact = place.repository(), place.artifact()
    reference = place.faulty.add(artifact, repository, "v1")
    place.faulty.fault(f"{repository}{MANIFEST}", "status", status=503, times=1)
    place.faulty.fault(f"{repository}{BLOB}", "reset", after=1000, times=1)
    try:
        assert_pulls(place.daemon, "retried", reference, artifact.tree)
    finally:
        place.faulty.clear_faults()


def test_manifest_that_is_not_its_digest(place):
    artifact, repository = place.artifact(), place.repository()
    place.faulty.add(artifact, repository, "v1")
    wrong = "sha256:" + "0" * 64
    place.faulty.add_manifest(repository, wrong, artifact.manifest, artifact.media_type)
    assert_fails(place, f"{place.faulty.host}/{repository}@{wrong}", Code.DATA_LOSS, "digest")


def test_raw_layer_whose_descriptor_says_another_size(place):
    out, blob, repository = Builder(place.folder), Random(5000, "lies"), place.repository()
    out.raw("w.bin", "application/vnd.cncf.model.weight.v1.raw", blob, {"org.cncf.model.filepath": "w.bin"})
    out.layers[0]["size"] = 4000
    artifact = out.done("application/vnd.cncf.model.config.v1+json", {})
    assert_fails(place, place.faulty.add(artifact, repository, "v1"), Code.DATA_LOSS, "size|bytes|longer")


def test_refused_connection(place):
    assert_fails(place, "127.0.0.1:1/team/model:v1", Code.UNAVAILABLE, "refused|connect|reach")


def test_unknown_host(make_daemon):
    daemon = make_daemon([])
    code, text = publish_error(daemon, "unknown", "registry.invalid/team/model:v1")
    assert code == Code.UNAVAILABLE, text
    assert "registry.invalid" in text


def test_never_pulls_what_is_not_here(place):
    reference = place.faulty.add(place.artifact(), place.repository(), "v1")
    code, text = publish_error(place.daemon, "never", reference, pullPolicy="Never")
    assert code == Code.NOT_FOUND, text
    assert place.daemon.ctl("pull", "--policy", "Never", reference).code == 4


@pytest.mark.parametrize("reference", ["", "UPPER/case:v1", "host/repo:bad tag", "host/repo@sha256:1234", "../up:v1",
                                       "host:99999/repo:v1", "host/repo:" + "x" * 200, "http://host/repo:v1",
                                       "host/repo@md5:" + "0" * 32, "host/re\x01po:v1", "a" * 3000])
def test_bad_reference(place, reference):
    code, text = publish_error(place.daemon, "bad-reference", reference)
    assert code == Code.INVALID_ARGUMENT, text
    result = place.daemon.ctl("pull", reference)
    assert result.code == 2, result
    assert_sentence(result.stderr.strip())


MANIFESTS = {
    "no-json": b"{", "list": b"[]", "no-layers": b'{"schemaVersion":2}', "layers-no-list": b'{"layers": {}}',
    "version-1": b'{"schemaVersion":1,"name":"x","fsLayers":[]}', "null": b"null",
    "nested": b'{"layers":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "bad-digest": json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {
        "mediaType": "x/y", "digest": "sha256:zz", "size": 1}, "layers": []}).encode(),
    "traversal": json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {
        "mediaType": "application/vnd.oci.empty.v1+json", "digest": Bytes("{}").digest, "size": 2}, "layers": [
            {"mediaType": "a/b", "digest": "sha256:../../../../../../../etc/passwd", "size": 5}]}).encode(),
    "negative-size": json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": {
        "mediaType": "application/vnd.oci.empty.v1+json", "digest": Bytes("{}").digest, "size": 2}, "layers": [
            {"mediaType": "a/b", "digest": Bytes("{}").digest, "size": -2}]}).encode(),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_malformed_manifest(place, name):
    repository = place.repository()
    place.faulty.add_manifest(repository, "v1", MANIFESTS[name], OCI_MANIFEST)
    assert_fails(place, f"{place.faulty.host}/{repository}:v1", Code.FAILED_PRECONDITION,
                 "manifest|JSON|schema|digest|size")


def test_manifest_beyond_the_limit(place):
    repository = place.repository()
    place.faulty.add_manifest(repository, "v1", b"{" + b" " * (5 * MIB) + b"}", OCI_MANIFEST)
    assert_fails(place, f"{place.faulty.host}/{repository}:v1", Code.FAILED_PRECONDITION, "MiB|large|limit|bytes")


def test_index_that_holds_itself_ends(place):
    repository, inner = place.repository(), place.artifact()
    for _ in range(8):
        inner = index([(inner, "linux/amd64")])
    assert_fails(place, place.faulty.add(inner, repository, "v1"), Code.FAILED_PRECONDITION, "index|deep|nest|levels")


# Names that annotations give to raw layers.

@pytest.mark.parametrize("path", ["../up", "/etc/passwd", "a/../../b", "a//b", "", ".", "a/./b", "x" * 300, "a\0b"])
def test_hostile_name_of_a_raw_layer(place, path):
    out, blob = Builder(place.folder), Random(100, path)
    out.layer("application/vnd.cncf.model.weight.v1.raw", blob, {"org.cncf.model.filepath": path})
    artifact = out.done("application/vnd.cncf.model.config.v1+json", {})
    reference = place.faulty.add(artifact, place.repository(), "v1")
    wait_idle(place.daemon)
    before = store_names(place.daemon)
    result = place.daemon.ctl("pull", reference)
    wait_idle(place.daemon)
    if result.code == 0:  # a name that says nothing may be ignored
        assert path in ("", ".", "a//b", "a/./b")
        files = [f["path"] for f in place.daemon.ctl_json("inspect", reference)["tree"] if f["type"] == "file"]
        assert len(files) == 1 and ".." not in files[0]
    else:
        assert result.code == 1, result
        assert_sentence(result.stderr.strip())
        assert store_names(place.daemon) == before


# Hostile tars.

def special(kind, **fields):
    def make(tar):
        tar.add(Tar.info("dir/special", kind, 0o666, **fields))
    return make


def one_file(name):
    def make(tar):
        tar.add(Tar.info(name), Bytes("escaped"))
    return make


def link(kind, target, then=None):
    """A link, and a file that would go through it."""
    def make(tar):
        tar.add(Tar.info("link", kind, 0o777, linkname=target))
        if then:
            tar.add(Tar.info(then), Bytes("escaped"))
    return make


SYMLINK, HARDLINK = tarfile.SYMTYPE, tarfile.LNKTYPE
HOSTILE: dict[str, tuple[Callable, str]] = {
    "absolute": (one_file(OUTSIDE), "refused|absolute|name"),
    "dot-dot": (one_file(f"../../../../../../../../../..{OUTSIDE}"), r"\.\.|refused|name"),
    "dot-dot-inside": (one_file("a/b/../../../escaped"), r"\.\.|refused|name"),
    "symlink-absolute": (link(SYMLINK, "/etc/passwd"), "link"),
    "symlink-up": (link(SYMLINK, "../../../../../../etc/passwd"), "link"),
    "through-a-symlink": (link(SYMLINK, "/tmp", "link/modelcached-escaped"), "link"),
    "hardlink-absolute": (link(HARDLINK, "/etc/passwd"), "link|absolute"),
    "hardlink-up": (link(HARDLINK, "../../../../../../etc/passwd"), "link|name"),
    "hardlink-to-nothing": (link(HARDLINK, "no/such/file"), "link"),
    "block-device": (special(tarfile.BLKTYPE, devmajor=8, devminor=0), "device"),
    "character-device": (special(tarfile.CHRTYPE, devmajor=1, devminor=1), "device"),
    "fifo": (special(tarfile.FIFOTYPE), "FIFO|pipe"),
    "root-is-a-symlink": (lambda tar: tar.add(Tar.info(".", SYMLINK, 0o777, linkname="/etc")), "root|link|refused"),
}


def image_of(place, tar):
    return one_tar(place.folder, tar, f"application/vnd.oci.image.layer.v1.{tar.codec}")


def modelpack_of(place, tar):
    out = Builder(place.folder)
    out.tar(f"application/vnd.cncf.model.code.v1.{tar.codec}", tar)
    return out.done("application/vnd.cncf.model.config.v1+json", {}, "application/vnd.cncf.model.manifest.v1+json")


def assert_host_is_untouched(before):
    assert not os.path.lexists(OUTSIDE)
    after = os.stat("/etc/passwd")
    assert (before.st_mtime_ns, before.st_nlink, before.st_mode) == (after.st_mtime_ns, after.st_nlink, after.st_mode)


@pytest.mark.parametrize("make_artifact", [image_of, modelpack_of])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tar(place, name, make_artifact):
    if make_artifact is image_of and name in ("symlink-absolute", "through-a-symlink"):
        pytest.skip("images are full of absolute links: see test_absolute_symlinks_of_images_are_kept_and_not_followed")
    make, words = HOSTILE[name]
    tar = Tar(place.folder, "tar" if make_artifact is image_of else "tar+gzip")
    tar.add_file("innocent.txt", Random(70_000, f"innocent {name} {make_artifact}"))
    make(tar)
    passwd, artifact = os.stat("/etc/passwd"), make_artifact(place, tar)
    assert_fails(place, place.faulty.add(artifact, place.repository(), "v1"), Code.FAILED_PRECONDITION, words)
    assert_host_is_untouched(passwd)


def test_absolute_symlinks_of_images_are_kept_and_not_followed(place):
    tar, passwd = Tar(place.folder), os.stat("/etc/passwd")
    tar.add(Tar.info("etc/passwd", SYMLINK, 0o777, linkname="/etc/passwd"))
    tar.add(Tar.info("link", SYMLINK, 0o777, linkname=os.path.dirname(OUTSIDE)))
    tar.add(Tar.info(f"link/{os.path.basename(OUTSIDE)}"), Bytes("escaped"))
    reference = place.faulty.add(image_of(place, tar), place.repository(), "v1")
    target = publish(place.daemon, "links", reference)
    assert os.readlink(os.path.join(target, "etc/passwd")) == "/etc/passwd"
    assert os.readlink(os.path.join(target, "link")) == os.path.dirname(OUTSIDE)
    with open(os.path.join(target, OUTSIDE[1:]), encoding="ascii") as file:
        assert file.read() == "escaped", "the link leads from the root of the tree"
    place.daemon.csi().unpublish("links", target)
    assert_host_is_untouched(passwd)


def test_symlink_chain_does_not_lead_out(place):
    """Each link looks harmless; a file is put "through" them."""
    tar = Tar(place.folder)
    tar.add(Tar.info("a", SYMLINK, 0o777, linkname="b"))
    tar.add(Tar.info("b", SYMLINK, 0o777, linkname="c"))
    tar.add(Tar.info("c", tarfile.DIRTYPE, 0o755))
    tar.add(Tar.info("a/file"), Bytes("beneath a"))
    reference = place.faulty.add(modelpack_of(place, tar), place.repository(), "v1")
    if place.daemon.ctl("pull", reference).code == 0:
        target = publish(place.daemon, "chain", reference)
        for folder, _, names in os.walk(target):
            for name in names:
                path = os.path.realpath(os.path.join(folder, name))
                assert path.startswith(os.path.realpath(target) + "/"), path
        place.daemon.csi().unpublish("chain", target)
    wait_idle(place.daemon)


def test_setuid_bits_owners_and_times_are_not_taken(place):
    tar = Tar(place.folder)
    tar.add(Tar.info("tool", mode=0o6755, uid=1000, gid=1000, mtime=12345), Bytes("#!/bin/sh\n"))
    reference = place.faulty.add(one_tar(place.folder, tar), place.repository(), "v1")
    target = publish(place.daemon, "setuid", reference)
    st = os.stat(os.path.join(target, "tool"))
    assert (st.st_mode & 0o7777, st.st_uid, st.st_gid) == (0o555, 0, 0)
    place.daemon.csi().unpublish("setuid", target)


def layer_of(place, blob, media_type):
    out = Builder(place.folder)
    out.layer(media_type, blob)
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [blob.digest]}}
    artifact = out.done("application/vnd.oci.image.config.v1+json", config)
    return place.faulty.add(artifact, place.repository(), "v1")


def tar_header(name, size):
    """A ustar header that may claim any size (base-256)."""
    info = Tar.info(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


BROKEN_STREAMS = {
    "not-a-tar": (Random(5000, "no tar"), "tar", "tar"),
    "not-gzip": (Bytes(b"\x1f\x8b" + b"no gzip at all" * 30), "tar+gzip", "gzip|malformed"),
    "not-zstd": (Bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 200), "tar+zstd", "zstd|malformed|window"),
    "half-gzip": (Bytes(gzip.compress(tar_header("a", 100_000) + os.urandom(100_000))[:50_000]), "tar+gzip",
                  "gzip|end|malformed"),
    "half-tar": (Bytes(tar_header("a", 100_000) + bytes(1000)), "tar", "ends early|malformed|truncated"),
    "exbibyte-in-a-header": (Bytes(tar_header("huge", 1 << 60) + bytes(1024)), "tar", "size|large|space|early|malformed"),
    "zstd-window-2GiB": (Bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([21 << 3]) + b"\x01\x00\x00"), "tar+zstd", "window"),
}


@pytest.mark.parametrize("name", BROKEN_STREAMS)
def test_broken_stream(place, name):
    blob, codec, words = BROKEN_STREAMS[name]
    reference = layer_of(place, blob, f"application/vnd.oci.image.layer.v1.{codec}")
    code = Code.RESOURCE_EXHAUSTED if name.startswith("exbibyte") else Code.FAILED_PRECONDITION
    assert_fails(place, reference, code, words)


# No space, and stores that cannot be used.

def assert_no_space(place, reference, words="space|room|free"):
    assert_fails(place, reference, Code.RESOURCE_EXHAUSTED, words)


@pytest.fixture(name="full")
def full_fixture(work, small_disk, faulty):
    """A layer takes its space when it starts; with one connection the next one starts later."""
    with running_daemon(os.path.join(work, "d"), [faulty.config()], config={"pull": {"connections": 1}},
                        store=os.path.join(small_disk, "store")) as daemon:
        place = Place(work, faulty, daemon)
        yield place
        assert_store_good(daemon)


def test_no_space_for_a_raw_layer(full):
    assert_no_space(full, full.faulty.add(full.artifact(100 * MIB), full.repository(), "v1"))


def test_no_space_for_a_bomb(full):
    """A small gzip of 400 MiB of zeros."""
    path = os.path.join(full.folder, "bomb.tar.gz")
    with gzip.open(path, "wb", 6) as file:
        file.write(tar_header("zeros", 400 * MIB))
        for _ in range(400):
            file.write(bytes(MIB))
        file.write(bytes(1024))
    assert os.path.getsize(path) < MIB
    assert_no_space(full, layer_of(full, File(path), "application/vnd.oci.image.layer.v1.tar+gzip"))


def test_no_space_when_another_takes_it_meanwhile(full):
    """The check at the beginning passes, the disk becomes full while the first layer comes."""
    artifact = modelpack(full.folder, sizes=(16 * MIB, 8 * MIB), seed="meanwhile")
    reference = full.faulty.add(artifact, full.repository(), "v1")
    full.faulty.rate = MIB  # until the disk is full
    filler = os.path.join(os.path.dirname(full.daemon.store), "filler")
    pulling = subprocess.Popen([program("cache-ctl"), "--socket", full.daemon.control_socket, "pull",
                                reference],
                               stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    with pulling:
        wait_for(lambda: full.daemon.in_ingest() or pulling.poll() is not None, "the pull's folder")
        with open(filler, "wb") as file:
            try:
                while True:
                    file.write(bytes(MIB))
            except OSError:
                pass
        full.faulty.rate = 0
        text = pulling.communicate(timeout=60)[1]
    assert pulling.returncode == 6, text
    assert_sentence(text.strip())
    wait_idle(full.daemon)
    os.unlink(filler)
    assert_pulls(full.daemon, "later", reference, artifact.tree)


def fill(folder):
    """Takes all the space of the file system, to the last block; returns the file that has it."""
    path = os.path.join(folder, "filler")
    with open(path, "wb", buffering=0) as file:
        for size in (MIB, 4096, 512):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
    return path


def test_a_full_disk_keeps_nothing_from_being_removed(full, small_disk):
    """Volumes are published until not even that is possible; then all goes, also after a restart, without new space."""
    daemon = full.daemon
    reference = full.faulty.add(full.artifact(300000), full.repository(), "v1")
    other = full.faulty.add(full.artifact(200000), full.repository(), "v1")
    publish(daemon, "first", reference)
    assert daemon.ctl("pull", other).code == 0
    filler, names = fill(small_disk), ["first"]
    while len(names) < 2000:
        try:
            publish(daemon, f"pod{len(names)}", reference)
        except grpc.RpcError as error:
            assert error.code() == Code.RESOURCE_EXHAUSTED, error
            assert_sentence(error.details())
            break
        names.append(f"pod{len(names)}")
    assert len(names) < 2000, "the disk never became full"
    recorded = {v["volume_id"] for v in daemon.ctl_json("status")["volume_list"]}
    assert recorded == set(names), "a publish that failed left a record"
    half = len(names) // 2
    for name in names[:half]:
        daemon.csi().unpublish(name, daemon.target(name))
    assert daemon.ctl("rm", other).code == 0
    gone = daemon.target(names[half])
    daemon.stop_clean()
    subprocess.run(["umount", gone], check=True)
    os.rmdir(gone)
    daemon.start()
    assert {v["volume_id"] for v in daemon.ctl_json("status")["volume_list"]} == set(names[half + 1:])
    for name in names[half:]:
        daemon.csi().unpublish(name, daemon.target(name))
        assert not mounts_beneath(daemon.target(name))
    assert daemon.ctl("rm", reference).code == 0
    os.unlink(filler)
    publish(daemon, "later", other)
    daemon.csi().unpublish("later", daemon.target("later"))


def start_fails(daemon, *words, code=1):
    """The daemon refuses to start, in one sentence."""
    result = daemon.run_to_end()
    assert result.code == code, result
    text = result.stdout + result.stderr
    for word in words:
        assert re.search(word, text, re.I), text
    assert "Sanitizer" not in text
    return text


def test_store_on_a_read_only_file_system(make_daemon, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    start_fails(make_daemon([], start=False, store=os.path.join(small_disk, "store")), "read-only|EROFS|write",
                "store")


def test_store_that_becomes_unwritable(place, small_disk, work, faulty):
    need("chattr")
    with running_daemon(os.path.join(work, "d"), [faulty.config()], store=os.path.join(small_disk, "store")) as daemon:
        other = Place(work, faulty, daemon)
        artifact = other.artifact(1000)
        reference = faulty.add(artifact, other.repository(), "v1")
        ingest = os.path.join(daemon.store, "ingest")
        subprocess.run(["chattr", "+i", ingest], check=True)
        try:
            code, text = publish_error(daemon, "bad", reference)
            assert code in (Code.INTERNAL, Code.FAILED_PRECONDITION, Code.PERMISSION_DENIED), text
            assert "ingest" in text or "store" in text, text
        finally:
            subprocess.run(["chattr", "-i", ingest], check=True)
        assert_pulls(daemon, "good", reference, artifact.tree)
    assert place.daemon.alive()


def test_store_on_tmpfs_is_refused(make_daemon, work):
    point = os.path.join(work, "tmpfs")
    os.makedirs(point)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", point], check=True)
    start_fails(make_daemon([], start=False, store=os.path.join(point, "store")), "ext4", "xfs", "btrfs", "tmpfs")
    assert not [n for n in names_beneath(point) if not n.endswith("store")]


def test_foreign_directory_is_refused_and_left_alone(make_daemon, work):
    store = os.path.join(work, "photos")
    os.makedirs(os.path.join(store, "objects"))
    with open(os.path.join(store, "cat.jpg"), "w", encoding="ascii") as file:
        file.write("meow")
    text = start_fails(make_daemon([], start=False, store=store), "photos")
    assert names_beneath(store) == {"objects", "cat.jpg"}, text


@pytest.mark.parametrize("content,word", [("modelcached store\nversion 99\nid " + "0" * 32 + "\n", "99|newer|version"),
                                          ("ollama store v3\n", "format"), ("", "format"), ("\0" * 5000, "format")],
                         ids=["newer", "foreign", "empty", "garbage"])
def test_foreign_or_newer_format_is_refused_and_left_alone(make_daemon, work, content, word):
    store = os.path.join(work, "store")
    os.makedirs(os.path.join(store, "ingest/unfinished"))
    with open(os.path.join(store, "format"), "w", encoding="ascii") as file:
        file.write(content)
    start_fails(make_daemon([], start=False, store=store), word, re.escape(store))
    assert "ingest/unfinished" in names_beneath(store), "it was cleaned although it is not ours"


# Bad configs.

CONFIGS = {
    "unknown-key": ("pull:\n  speed: 3\n", 2, "speed"),
    "wrong-type": ("pull:\n  concurrent: many\n", 2, "concurrent"),
    "out-of-range": ("node: x\npull:\n  concurrent: 0\n", 3, "1 to 64"),
    "relative-path": ("store:\n  path: here\n", 2, "absolute"),
    "bad-size": ("pull:\n\n  memory: 5 parsecs\n", 3, "memory"),
    "syntax": ("pull: [\n", None, ""),
    "duplicate": ("node: a\nnode: b\n", 2, "node"),
    "bad-bool": ("registries:\n  - host: a.example\n    plain_http: perhaps\n", 3, "true"),
    "no-host": ("registries:\n  - { plain_http: true }\n", 2, "host"),
    "bad-word": ("log:\n  level: loud\n", 2, "error, warn, info, debug|error.*debug"),
}


def run_config(daemon, work, text, *arguments):
    path = os.path.join(work, "config.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path, run([program("modelcached"), "--config", path, *arguments], 20, daemon.env)


@pytest.mark.parametrize("check", [(), ("--check-config",)], ids=["start", "check"])
@pytest.mark.parametrize("name", CONFIGS)
def test_bad_config(make_daemon, work, name, check):
    text, line, word = CONFIGS[name]
    path, result = run_config(make_daemon(start=False), work, text, *check)
    assert result.code == 2, result
    assert f"{path}:{line}" in result.stderr if line else f"{path}:" in result.stderr, result
    assert re.search(word, result.stderr), result
    assert len(result.stderr.strip().splitlines()) <= 2, result


@pytest.mark.parametrize("setting", ["nonsense=1", "pull.concurrent=0", "pull.concurrent", "=", "store.path=x"])
def test_bad_set(make_daemon, work, setting):
    result = run_config(make_daemon(start=False), work, "node: x\n", "--set", setting)[1]
    assert result.code == 2, result
    assert_sentence(result.stderr.strip().splitlines()[0])


def test_missing_config(make_daemon, work):
    daemon = make_daemon(start=False)
    path = os.path.join(work, "nowhere.yaml")
    result = run([program("modelcached"), "--config", path], 20, daemon.env)
    assert result.code == 2, result
    assert path in result.stderr


def test_one_socket_for_both(make_daemon, work):
    result = run_config(make_daemon(start=False), work, "node: x\n", "--set", "csi.endpoint=unix:///run/x.sock", "--set",
                        "control.socket=/run/x.sock", "--check-config")[1]
    assert result.code == 2 and "they need a socket each" in result.stderr, result


def test_check_config_of_a_good_one(make_daemon, work):
    result = run_config(make_daemon(start=False), work, "node: x\n", "--check-config")[1]
    assert result.code == 0, result


def test_store_is_good_after_all(place):
    assert_store_good(place.daemon)
