# SPDX-License-Identifier: Apache-2.0
"""The main job on older kernels, in qemu: what they lack is told and done without.

Linux 5.10 has no mount_setattr (5.12) and no Landlock (5.13), 6.1 has both.  Needs `tools/install-deps soak` and, the
first time, Debian's archive.  The guest's side is lib/guest.py."""
import dataclasses
import json
import os
import shutil

import pytest

from lib.artifacts import MIB, Builder, modelpack_annotations, small_tar
from lib.check import PROGRAMS, need_programs, show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import Bytes, Random, with_parents
from lib.csi import SOURCE
from lib.daemon import program
from lib.qemu import Image, Run, Unavailable, kernel
from lib.registry import Registry
from lib.sandbox import need

SUITES = {"5.10": "bullseye", "6.1": "bookworm"}
LACKS_ALL = "5.10"
SECONDS_MAX = 180
IMAGE_MIB = 512
FLAGS = {"ro", "nosuid", "nodev", "noexec"}
PACKAGES = ("grpc", "google", "six.py", "pytest", "_pytest", "pluggy", "iniconfig", "packaging", "attr", "py.py")


def artifact_of(folder):
    """20 MiB: raw layers, a tar+zstd and a tar+gzip."""
    out, prefix = Builder(folder), "application/vnd.cncf.model"
    for path, kind, blob in (("model.safetensors", "weight", Random(14 * MIB + 17, "weights")),
                             ("config.json", "weight.config", Bytes(json.dumps({"model_type": "test"})))):
        out.raw(path, f"{prefix}.{kind}.v1.raw", blob, modelpack_annotations(path, blob))
    for path, kind, codec in (("code", "code", "tar+zstd"), ("data", "dataset", "tar+gzip")):
        tar = small_tar(out, codec, path, path)
        tar.add_file(f"{path}/large.bin", Random(3 * MIB, path))
        out.tar(f"{prefix}.{kind}.v1.{codec}", tar, {"org.cncf.model.filepath": path})
    return out.done(f"{prefix}.config.v1+json", {"modelfs": {"type": "layers", "diffIds": out.diff_ids}},
                    f"{prefix}.manifest.v1+json")


def image_of(folder, artifact):
    """Python, our programs, these tests' lib, and a docker-registry that holds the artifact."""
    image = Image(folder)
    registry = Registry(os.path.join(folder, "registry"))
    try:
        registry.push(artifact, "team/model", "v1")
    finally:
        registry.stop()
    image.copy(os.path.join(registry.folder, "storage"), "/var/lib/registry/storage")
    image.python(*PACKAGES)
    image.copy(os.path.join(os.path.dirname(__file__), "lib"), "/opt/tests/lib", without=("__pycache__",))
    image.copy(os.path.join(SOURCE, "proto"), "/opt/src/proto")
    for name in PROGRAMS:
        image.program(program(name, release=True), f"/opt/bin/{name}")
    for name in ("docker-registry", "protoc", "zstd"):
        image.program(shutil.which(name), f"/usr/bin/{name}")
    return image.make(IMAGE_MIB)


class Seen:
    """What the guest reported: seen["step"]."""

    def __init__(self, version, run, artifact):
        self.version, self.run, self.lacks = version, run, version == LACKS_ALL
        self.steps = {line["step"]: line for line in run.lines}
        self.tree = {path: list(dataclasses.astuple(e)) for path, e in with_parents(artifact.tree).items()}

    def __getitem__(self, step):
        line = self.steps.get(step, {})
        if "seen" not in line:
            if line:
                pytest.fail(f"Linux {self.version}, {step}:\n{line['error']}", pytrace=False)
            pytest.fail(f"Linux {self.version} did not come to {step!r}, only to {list(self.steps)}; {self.run.end}; the "
                        f"console ends:\n{self.run.console[-2000:]}", pytrace=False)
        return line["seen"]


@pytest.fixture(scope="module", name="image")
def image_fixture(module_work):
    need("qemu-system-x86_64", "docker-registry", "protoc", "mke2fs")
    need_programs(release=True)
    folder = os.path.join(module_work, "image")
    os.makedirs(folder)
    artifact = artifact_of(folder)
    return image_of(folder, artifact), artifact


@pytest.fixture(scope="module", name="seen", params=SUITES)
def seen_fixture(request, image, module_work):
    try:
        path = kernel(SUITES[request.param])
    except Unavailable as error:
        pytest.skip(str(error))
    folder = os.path.join(module_work, request.param)
    os.makedirs(folder)
    run = Run(folder, path, image[0].path, "init=/usr/bin/python3 -- -B /opt/tests/lib/guest.py", SECONDS_MAX)
    return Seen(request.param, run, image[1])


def test_kernel_is_what_the_test_is_about(seen, show):
    kernel_seen = seen["kernel"]
    show(f"Linux {kernel_seen['release']}: {seen.run.seconds:.0f} s; " + ", ".join(
        f"{name} {line['took']:.1f}" for name, line in seen.steps.items() if "took" in line))
    assert kernel_seen["release"].startswith(seen.version + ".")
    lacking = {name for name, there in kernel_seen["syscalls"].items() if not there}
    assert lacking == ({"mount_setattr", "landlock_create_ruleset"} if seen.lacks else set())


def test_status_tells_what_the_kernel_lacks(seen, show):
    status, human = seen["start"]["status"], seen["start"]["human"]
    show(human.replace("\n", "\n  "))
    features = status["features"]
    assert status["kernel"] == seen["kernel"]["release"]
    assert status["mount_shape"] == "tree"
    if seen.lacks:
        assert status["mount_detail"].startswith("bind and remount: ") and "Linux 5.12" in status["mount_detail"]
        assert not features["landlock"]["active"] and "Linux 5.13" in features["landlock"]["detail"]
    else:
        assert status["mount_detail"] == "open_tree"
        assert features["landlock"] == {"active": True, "detail": "ABI 2"}
    assert "Landlock" in human or not seen.lacks
    for name in ("capabilities", "uid", "no_new_privs", "seccomp", "io_uring"):
        assert features[name]["active"], features


def test_log_tells_once_what_the_kernel_lacks(seen):
    lines = [json.loads(line) for line in seen["start"]["log"].splitlines()]
    told = [line for line in lines if "landlock" in json.dumps(line).lower()]
    assert len(told) == (1 if seen.lacks else 0), told
    remount = [line for line in lines if "mount_setattr" in json.dumps(line)]
    assert len(remount) == (1 if seen.lacks else 0), lines


def test_pull(seen):
    assert seen["pull"]["code"] == 0, seen["pull"]
    assert seen["pull"]["left"] == {"ingest": [], "staging": []}


def test_volume_is_the_artifact_and_read_only(seen):
    volume = seen["publish"]
    assert volume["tree"] == seen.tree
    assert set(volume["mounts"]) == {volume["target"]}, "a mount too many"
    assert FLAGS <= set(volume["mounts"][volume["target"]][0])
    assert volume["left"] == {"ingest": [], "staging": []}


def test_volume_is_read_only_where_it_propagates_to(seen):
    volume = seen["publish"]
    assert FLAGS <= set(volume["peers"][volume["peer"]][0]), volume["peers"]


def test_writes_and_programs_are_refused(seen):
    assert seen["writes"] == {"write": "EROFS", "remove": "EROFS", "create": "EROFS", "chmod": "EROFS",
                              "exec": "EACCES", "exec_peer": "EACCES"}


def test_sub_path(seen):
    assert seen["sub_path"]["tree"] == {path.removeprefix("code/"): entry for path, entry in seen.tree.items()
                                        if path.startswith("code/")}
    assert FLAGS <= set(seen["sub_path"]["options"])
    assert seen["sub_path"]["gone"]


def test_mount_and_umount_by_hand(seen):
    by_hand = seen["ctl_mount"]
    assert by_hand["mount"]["code"] == 0, by_hand["mount"]
    assert by_hand["tree"] == seen.tree
    assert FLAGS <= set(by_hand["mounts"]["/var/lib/mc/by-hand"][0])
    assert by_hand["umount"]["code"] == 0, by_hand["umount"]
    assert by_hand["held"] > 0, "a file that was open went with the mount"
    assert set(by_hand["after"]) == {seen["publish"]["target"]}
    assert by_hand["left"]["staging"] == []


@pytest.mark.parametrize("step", ["restart", "kill_daemon"])
def test_volume_outlives_the_daemon(seen, step):
    after = seen[step]
    assert after["down"] == after["tree"] == seen.tree
    [volume] = after["status"]["volume_list"]
    assert (volume["target"], volume["mounted"]) == (seen["publish"]["target"], True)
    assert after.get("code", 0) == 0


def test_publish_again_after_a_restart_mounts_nothing_more(seen):
    assert set(seen["kill_daemon"]["mounts"]) == {seen["publish"]["target"]}


def test_worker_is_confined_without_landlock_too(seen):
    worker = seen["kill_worker"]["worker"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"):
        assert int(worker[name], 16) == 0, f"{name} {worker[name]}"
    assert (worker["NoNewPrivs"], worker["Seccomp"]) == ("1", "2")
    assert "0" not in worker["Uid"].split() + worker["Gid"].split()


def test_worker_killed_in_the_middle(seen):
    killed = seen["kill_worker"]
    assert killed["code"] == 1, killed["text"]
    assert "worker" in killed["text"] and "killed" in killed["text"]
    assert killed["left"]["ingest"] == []
    assert killed["again"]["code"] == 0, killed["again"]
    assert killed["equal"]
    assert killed["removed"]["code"] == 0, killed["removed"]


def test_unpublish_leaves_nothing(seen):
    after = seen["threads"]
    assert after["mounts"] == {} and after["peers"] == {} and after["gone"]
    assert after["removed"]["code"] == 0, after["removed"]


def test_pull_with_threads(seen):
    after = seen["threads"]
    assert after["pull"]["code"] == 0, after["pull"]
    assert after["tree"] == seen.tree
    assert not after["status"]["features"]["io_uring"]["active"]


def test_store_is_good_at_the_end(seen):
    assert seen["verify"]["verify"]["code"] == 0, seen["verify"]
    end = seen["end"]
    assert (end["code"], end["mounts"], end["left"]) == (0, {}, {"ingest": [], "staging": []})


def test_kernel_did_not_complain(seen):
    assert seen["end"] and "exitcode" not in seen.run.console
    for word in ("BUG:", "WARNING:", "Oops"):
        assert word not in seen.run.console, seen.run.console[-3000:]
