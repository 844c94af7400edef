# SPDX-License-Identifier: Apache-2.0
# ctest: refused
"""modelcached-pull alone, with this test as its daemon: real registries, hostile content, every way to end."""
import hashlib
import os
import re
import shutil
import tarfile
import time

import pytest

from lib import artifacts
from lib.content import Bytes, Random, Tar, Text
from lib.sandbox import HUGE_PAGES, IO_URING_REFUSED, buffer_bytes, memory_bytes
from lib.pulling import MIB, pb, pull, start  # noqa: F401 pylint: disable=unused-import

TAR = "application/vnd.oci.image.layer.v1.tar"


def fails(worker, number, *words, plan=True):
    """The pull fails with this errno and sentence, and leaves nothing but layers that it had reported, what can be gone on
    with, and the list of a layer that ended in the same moment (it goes with the folder)."""
    if plan:
        worker.until("resolved")
        worker.plan()
    assert worker.finish() != 0
    assert not worker.done
    assert worker.failed.error == number, worker.failed.text
    for word in words:
        assert word in worker.failed.text
    layers = worker.resolved.layers if worker.resolved else []
    reported = {layers[index].digest.hex()[:16] for index in worker.layers}
    assert all(name.partition("-")[0] in reported for name in os.listdir(worker.folder)
               if not name.endswith((".part", ".map", "-entries")))


def check_tree(worker, artifact):
    """What was sent, merged by a few lines of our own, is the artifact's tree."""
    merged, resolved = {}, worker.resolved
    for index, entries in sorted(worker.layers.items()):
        prefix = resolved.layers[index].path + "/" if resolved.layers[index].kind == 1 and \
            resolved.layers[index].path else ""
        for entry in entries:
            path = prefix + entry.path
            if entry.type == 4:
                merged = {p: e for p, e in merged.items() if p != path and not p.startswith(path + "/")}
            elif entry.type == 5:
                merged = {p: e for p, e in merged.items() if not p.startswith(path + "/")}
        for entry in entries:
            path = prefix + entry.path
            if entry.type == 0:
                merged = {p: e for p, e in merged.items() if not p.startswith(path + "/")}
                data = worker.file(entry)
                assert hashlib.sha256(data).digest() == entry.digest and len(data) == entry.size
                merged[path] = entry
            elif entry.type == 3:
                merged[path] = merged[prefix + entry.target]
            elif entry.type == 2:
                merged[path] = entry
    expected = {p: e for p, e in artifact.tree.items() if e.kind != "directory"}
    assert sorted(merged) == sorted(expected)


def test_probe_says_what_confines_it(start):
    worker = start(probe=True)
    assert worker.finish() == 0
    features = {f.name: f for f in worker.hello.features}
    assert set(features) == {"capabilities", "uid", "no_new_privs", "landlock", "seccomp", "io_uring"}
    assert features["seccomp"].active and features["no_new_privs"].active
    assert all(f.active or f.detail for f in features.values())
    if IO_URING_REFUSED:
        assert "a seccomp filter" in features["io_uring"].detail, features


def test_a_large_raw_layer_and_a_tar(start, registry, module_work):
    artifact = artifacts.modelpack(module_work, sizes=(300 * MIB + 17, 3 * MIB, 0), seed="large")
    worker = start(registry.push(artifact, "team/large"))
    worker.until("resolved")
    assert "sha256:" + worker.resolved.digest.hex() == artifact.digest
    assert worker.resolved.manifest == artifact.manifest
    worker.plan()
    peak = 0
    while worker.receive() is not None:
        peak = max(peak, memory_bytes(worker.process.pid, "VmHWM"))
    assert worker.done, worker.failed
    check_tree(worker, artifact)
    assert max(worker.progress.values()) > 0
    print(f"peak RSS {peak / MIB:.0f} MiB")


@pytest.mark.parametrize("name", artifacts.FORMATS)
@pytest.mark.both_ways
@pytest.mark.parametrize("io", ["IO_URING", "IO_THREADS"])
def test_every_format(start, registry, module_work, name, io):
    artifact = artifacts.FORMATS[name](module_work)
    check_tree(pull(start(registry.push(artifact, f"formats/{name.replace('+', '-')}"), io=io)), artifact)


def test_an_index_leads_to_the_platform(start, registry, module_work):
    amd, arm = (artifacts.image(module_work, architecture=a, seed=a) for a in ("amd64", "arm64"))
    inner = artifacts.index([(arm, "linux/arm64"), (amd, "linux/amd64")])
    reference = registry.push(artifacts.index([(inner, "linux/amd64")]), "team/index")
    worker = pull(start(reference))
    assert worker.resolved.platform == "linux/amd64"
    assert "sha256:" + worker.resolved.digest.hex() == amd.digest
    assert worker.resolved.index_digest
    check_tree(worker, amd)
    fails(start(reference, architecture="riscv64"), 2, "riscv64", plan=False)


def test_only_the_plan_is_fetched(start, registry, module_work):
    artifact = artifacts.modelpack(module_work, seed="plan")
    worker = start(registry.push(artifact, "team/plan") + "@" + artifact.digest)
    worker.until("resolved").plan(1)
    assert worker.finish() == 0
    assert list(worker.layers) == [1] and len(os.listdir(worker.folder)) == 1


def test_small_memory_and_many_layers(start, registry, module_work):
    artifact = artifacts.modelpack(module_work, sizes=(MIB + 5,) * 12, seed="many")
    check_tree(pull(start(registry.push(artifact, "team/many"), memory_bytes=1 << 18, connections=16)), artifact)


@pytest.mark.parametrize("ahead", [None, {}, {"tls": True}])
def test_names_are_resolved_and_tls_is_proved_behind_the_sandbox(start, make_faulty, work, ahead):
    artifact = artifacts.modelpack(work, seed="names")
    plain, tls = make_faulty(), make_faulty(tls=True)
    check_tree(pull(start(plain.add(artifact, "team/names").replace("127.0.0.1", "localhost"), options={"ahead": ahead})), artifact)
    with open(tls.ca_file, "rb") as file:
        ca_pem = file.read()
    reference = tls.add(artifact, "team/names").replace("127.0.0.1", "localhost")
    check_tree(pull(start(reference, ca_pem=ca_pem, options={"ahead": ahead})), artifact)
    worker = start(reference, ca_pem=b"\n", options={"ahead": ahead})
    assert worker.finish() != 0 and "certificate" in worker.failed.text


@pytest.mark.parametrize("io", ["IO_AUTO", "refused"])
@pytest.mark.parametrize("ahead", [16, 128])
def test_memory_that_was_filled_ahead(start, registry, module_work, ahead, io):  # pylint: disable=too-many-arguments
    """It becomes the buffers, or, when the job is to have another size, is given back."""
    if os.geteuid() != 0 or not HUGE_PAGES:
        pytest.skip("needs root, to look at what a process has mapped that hides it, and a kernel with huge pages")
    artifact = artifacts.modelpack(module_work, seed="ahead")
    worker = start(registry.push(artifact, "team/ahead"), memory_bytes=16 * MIB, io=io,
                   options={"ahead": {"memory_bytes": ahead * MIB, "fill_bytes": 12 * MIB}, "meanwhile": lambda: time.sleep(0.5)})
    worker.until("resolved")
    size, filled = buffer_bytes(worker.process.pid)
    assert size == 16 * MIB
    assert filled == 12 * MIB if ahead == 16 else filled < 4 * MIB
    worker.plan()
    assert worker.finish() == 0
    check_tree(worker, artifact)


@pytest.mark.parametrize("rises", [False, True])
@pytest.mark.parametrize("io", ["IO_AUTO", "refused"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_buffers(start, make_faulty, work, n, io, rises):  # pylint: disable=too-many-arguments
    """They are enough for any number of layers, and the others are not touched; more may come in the middle."""
    registry = make_faulty()
    registry.rate = 24 * MIB
    artifact = artifacts.modelpack(work, sizes=(20 * MIB, 5 * MIB, 3 * MIB, 2 * MIB, MIB, 300_000), seed="few")
    limits = {"connections": 8, "memory_bytes": n * MIB}
    worker = start(registry.add(artifact, "team/few"), memory_bytes=16 * MIB, io=io, range_min_bytes=4 * MIB, limits=limits)
    worker.until("resolved").plan()
    while sum(worker.progress.values()) < 12 * MIB:
        worker.until("progress")
    if os.geteuid() == 0 and HUGE_PAGES:
        assert 0 < buffer_bytes(worker.process.pid)[1] <= 4 * MIB
    if rises:
        worker.send(worker.pb.ToWorker(limits=worker.pb.Limits(connections=8, memory_bytes=16 * MIB)))
    assert worker.finish() == 0, worker.failed
    check_tree(worker, artifact)


SYSTEM_CAS = "/etc/ssl/certs/ca-certificates.crt"
BIND = ("unshare", "--mount", "sh", "-c", f'mount --bind "$0" {SYSTEM_CAS} && exec "$1"')


@pytest.mark.parametrize("withdrawn", [False, True])
def test_cas_of_the_system_that_change_before_the_job(start, make_faulty, work, withdrawn):
    """They were read ahead; what they are when the job comes counts."""
    if os.geteuid() != 0 or not os.path.exists(SYSTEM_CAS):
        pytest.skip(f"needs root and {SYSTEM_CAS}, over which it mounts a file of its own")
    artifact, registry, other = artifacts.modelpack(work, seed="cas"), make_faulty(tls=True), make_faulty(tls=True)
    bundle = shutil.copy(registry.ca_file if withdrawn else other.ca_file, os.path.join(work, "bundle"))

    def change():
        time.sleep(0.5)  # it has read them
        shutil.copy(other.ca_file if withdrawn else registry.ca_file, bundle)

    worker = start(registry.add(artifact, "team/cas"), tls=True,
                   options={"ahead": {"tls": True}, "meanwhile": change, "within": (*BIND, bundle)})
    if withdrawn:
        assert worker.finish() != 0 and "certificate" in worker.failed.text
    else:
        check_tree(pull(worker), artifact)


def test_wrong_content(start, make_faulty, work):
    registry = make_faulty()
    artifact = artifacts.modelpack(work, sizes=(8 * MIB,), seed="wrong")
    reference = registry.add(artifact, "team/wrong")
    for layer in (0, len(artifact.layers) - 1):
        digest = artifact.layers[layer]["digest"]
        registry.clear_faults()
        registry.fault(f"/blobs/{digest}", "corrupt", after=100)
        fails(start(reference), 74, f"layer {layer + 1} of", digest)
        registry.clear_faults()
        registry.fault(f"/blobs/{digest}", "size", delta=1)
        fails(start(reference), 74)


def test_trouble_that_passes_is_tried_again(start, make_faulty, work):
    registry = make_faulty()
    artifact = artifacts.modelpack(work, sizes=(4 * MIB,), seed="again")
    reference = registry.add(artifact, "team/again")
    registry.fault("/manifests/", "status", status=503, times=1)
    registry.fault("/blobs/", "truncate", after=MIB, times=2)
    worker = pull(start(reference))
    check_tree(worker, artifact)
    assert any("trying again" in text for text in worker.waiting)


def test_trouble_that_stays_ends_the_pull(start, make_faulty, work):
    registry = make_faulty()
    artifact = artifacts.modelpack(work, sizes=(4 * MIB,), seed="stays")
    reference = registry.add(artifact, "team/stays")
    registry.fault(f"/blobs/{artifact.layers[0]['digest']}", "truncate", after=0)
    fails(start(reference, give_up_seconds=2), 104, "layer 1 of", "gave up after 2 s")
    registry.fault("/manifests/", "status", status=401)
    fails(start(reference), 129, plan=False)


HOSTILE = {
    "absolute": (Tar.info("/etc/evil"), 71, "absolute"),
    "parent": (Tar.info("../evil"), 71, '".."'),
    "symlink": (Tar.info("l", tarfile.SYMTYPE, linkname="../etc"), 71, "leads out"),
    "hardlink": (Tar.info("l", tarfile.LNKTYPE, linkname="/etc/passwd"), 71, "hard link"),
    "device": (Tar.info("d", tarfile.BLKTYPE, devmajor=8), 71, "device"),
    "fifo": (Tar.info("p", tarfile.FIFOTYPE), 71, "FIFO"),
    "root": (Tar.info("."), 71, "root"),
    "whiteout": (Tar.info("a/.wh.."), 71, "whiteout"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tars(start, registry, work, name):
    info, number, word = HOSTILE[name]
    tar = Tar(work, "tar+gzip")
    tar.add_file("fine", Text(1000, name))
    tar.add(info)
    artifact = artifacts.one_tar(work, tar, TAR + "+gzip")
    fails(start(registry.push(artifact, f"hostile/{name}")), number, word)


def limited(worker):
    worker.content_max = 16 * MIB
    return worker


def test_a_bomb_stops_at_the_limit(start, registry, work):
    tar = Tar(work, "tar+zstd")
    tar.add_file("zeros", Bytes(bytes(64 * MIB)))
    artifact = artifacts.one_tar(work, tar, TAR + "+zstd")
    fails(limited(start(registry.push(artifact, "hostile/bomb"))), 28, "no space left")
    raw = artifacts.modelpack(work, sizes=(20 * MIB,), tar_codec=None, seed="big")
    fails(limited(start(registry.push(raw, "hostile/big"))), 28, "no space left")


def test_later_plans_bring_room(start, registry, work):
    """As for layers that were another pull's to bring."""
    artifact = artifacts.modelpack(work, sizes=(12 * MIB, 10 * MIB), tar_codec=None, seed="late")
    worker = limited(start(registry.push(artifact, "team/late")))
    layers = worker.until("resolved").resolved.layers
    large = [i for i, layer in enumerate(layers) if layer.size > MIB]
    worker.plan(large[0], more=True)
    worker.until("layer_done")
    worker.content_max = sum(layer.size for layer in layers)
    worker.plan(*set(range(len(layers))) - {large[0]})
    assert worker.finish() == 0, worker.failed
    check_tree(worker, artifact)


def test_the_kernel_refuses_files_larger_than_the_disk(start, registry, work):
    """Lists of entries may have 512 MiB more."""
    artifact = artifacts.modelpack(work, sizes=(MIB,), tar_codec=None, seed="kernel")
    worker = start(registry.push(artifact, "team/kernel"), file_max_bytes=16 * MIB)
    worker.until("resolved")
    with open(f"/proc/{worker.process.pid}/limits", encoding="ascii") as file:
        assert re.search(r"^Max file size +(\d+) +(\d+) ", file.read(), re.M).groups() == (str(528 * MIB),) * 2


def test_a_daemon_that_goes_ends_the_worker(start, make_faulty, work):
    registry = make_faulty()
    artifact = artifacts.modelpack(work, sizes=(4 * MIB,), seed="goes")
    reference = registry.add(artifact, "team/goes")
    registry.fault("/blobs/", "stall", after=MIB)
    worker = start(reference)
    worker.until("resolved").plan()
    time.sleep(0.3)
    worker.socket.close()
    assert worker.process.wait(timeout=10) != 0
    names = {name.partition(".")[0] for name in os.listdir(worker.folder)}
    raw = {name for name in names if not re.fullmatch(r"[0-9a-f]{16}-(\d+|entries)", name)}  # the others are files of a tar
    assert raw <= {layer.digest.hex() for layer in worker.resolved.layers}


def test_duplicates_are_kept_once(start, registry, work):
    tar = Tar(work)
    blob = Random(3 * MIB, "same")
    for i in range(5):
        tar.add_file(f"copy{i}", blob)
    tar.add_file("run", blob, 0o755)
    artifact = artifacts.one_tar(work, tar)
    worker = pull(start(registry.push(artifact, "team/copies")))
    assert len([name for name in os.listdir(worker.folder) if not name.endswith("-entries")]) == 2
    check_tree(worker, artifact)
