# SPDX-License-Identifier: Apache-2.0
"""What CSI's spec.md and the kubelet expect of the Node service beyond csi-sanity, and target paths under attack."""
import base64
import json
import os
import re
import shutil
import threading

import grpc
import pytest

from lib.artifacts import MIB, modelpack
from lib.check import assert_sentence, mount_options, running_daemon
from lib.content import assert_tree
from lib.csi import CsiClient, error_of
from lib.deploy import known_attributes
from lib.faulty import FaultyRegistry
from lib.sandbox import mounts_beneath, wait_for

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
EXISTS, PRECONDITION = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION
ABORTED = grpc.StatusCode.ABORTED
PATH_MAX = 4096


class Node:
    """A daemon, an artifact, and the CSI client."""

    def __init__(self, daemon, reference, tree):
        self.daemon, self.reference, self.tree = daemon, reference, tree
        self.client = CsiClient(daemon.csi_socket)

    def request(self, name, target=None, **options):
        return self.client.publish_request(name, target or self.daemon.target(name),
                                           options.pop("reference", self.reference), **options)

    def publish(self, name, target=None, **options):
        self.client.NodePublishVolume(self.request(name, target, **options), timeout=60)

    def refused(self, request, code, word):
        """Refused with code and sentence, and without details, which CSI forbids."""
        with pytest.raises(grpc.RpcError) as caught:
            self.client.NodePublishVolume(request, timeout=60)
        error = caught.value
        assert error.code() == code and re.search(word, error.details()), (error.code(), error.details())
        assert_sentence(error.details())
        assert "grpc-status-details-bin" not in dict(error.trailing_metadata() or ())

    def unpublish(self, name, target=None):
        self.client.unpublish(name, target or self.daemon.target(name))

    def stats(self, name, path):
        pb = self.client.pb
        return self.client.NodeGetVolumeStats(pb.NodeGetVolumeStatsRequest(volume_id=name, volume_path=path), timeout=30)


@pytest.fixture(scope="module", name="node")
def node_fixture(module_work):
    registry = FaultyRegistry()
    try:
        with running_daemon(os.path.join(module_work, "d"), [registry.config()]) as daemon:
            made = modelpack(module_work, sizes=(MIB,))
            node = Node(daemon, registry.add(made, "team/model", "v1"), made.tree)
            yield node
            node.client.close()
    finally:
        registry.stop()


# The kubelet's requests.

def test_the_kubelet_unpublishes_what_never_was_published(node):
    """Also with the directory that it made, and with a pod whose folder is gone."""
    target = node.daemon.target("never")
    node.unpublish("never")
    os.mkdir(target)
    node.unpublish("never")
    assert not os.path.exists(target)
    shutil.rmtree(os.path.join(node.daemon.kubelet_dir, "pods/never"))
    node.client.unpublish("never", target)
    assert not os.path.exists(os.path.dirname(target))


@pytest.mark.parametrize("readonly", [False, True])
def test_always_read_only(node, readonly):
    target = node.daemon.target("ro")
    node.publish("ro", readonly=readonly)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount_options(target))
    for attempt in (lambda: open(f"{target}/new", "xb"), lambda: open(f"{target}/config.json", "ab"),
                    lambda: os.unlink(f"{target}/config.json"), lambda: os.mkdir(f"{target}/new")):
        with pytest.raises(OSError, match="Read-only file system"):
            attempt()
    node.unpublish("ro")


def test_fs_type_and_what_the_kubelet_adds(node):
    request = node.request("extra", secrets={"username": "u", "password": "p"})
    request.volume_capability.mount.fs_type = "ext4"  # csi.fsType of a PersistentVolume
    request.publish_context["anything"] = "x"
    for key in ("pod.name", "pod.namespace", "pod.uid", "serviceAccount.name", "serviceAccount.tokens", "new.in.1.99"):
        request.volume_context[f"csi.storage.k8s.io/{key}"] = "x"
    node.client.NodePublishVolume(request, timeout=60)
    node.unpublish("extra")


@pytest.mark.parametrize("flags", [["ro"], ["nosuid", "nodev", "noexec"], ["noatime", "nodiratime"],
                                   ["relatime"], ["norelatime"], ["defaults"]])
def test_mount_flags_that_can_be_had(node, flags):
    request = node.request("flags", noexec="false")
    request.volume_capability.mount.mount_flags.extend(flags)
    node.client.NodePublishVolume(request, timeout=60)
    options = mount_options(node.daemon.target("flags"))
    assert {"ro", "nosuid", "nodev"} <= set(options) and ("noexec" in options) == ("noexec" in flags), options
    node.unpublish("flags")


@pytest.mark.parametrize("flag", ["rw", "exec", "suid", "dev", "bind", "rbind", "remount", "move", "shared", "uid=0",
                                  "umask=0", "loop", "data=x", "user", "nofail", "", "ro,rw", "X-mount.mkdir", "sync"])
def test_mount_flags_that_cannot(node, flag):
    request = node.request("flags")
    request.volume_capability.mount.mount_flags.append(flag)
    node.refused(request, INVALID, "possible are noexec, ro, nosuid")
    assert not os.path.exists(node.daemon.target("flags"))


@pytest.mark.parametrize("flag", ["context", "fscontext", "defcontext", "rootcontext"])
def test_a_label_has_no_effect_on_a_bind_mount(node, flag):
    request = node.request("flags")
    request.volume_capability.mount.mount_flags.append(f'{flag}="system_u:object_r:container_file_t:s0:c1,c2"')
    node.refused(request, INVALID, f'"{flag}" has no effect .* store.selinux_label')


def test_without_selinux_nothing_is_labelled(node):
    """Where the kernel has it, tests/unit/test_label.c says what is."""
    with open("/proc/filesystems", encoding="ascii") as file:
        if "selinuxfs" in file.read():
            pytest.skip("this kernel has SELinux")
    for folder in ("ingest", "objects", "partial", "trees"):
        assert "security.selinux" not in os.listxattr(os.path.join(node.daemon.store, folder))


def test_unknown_attributes_name_all_that_are_known(node):
    code, text = error_of(node.publish, "typo", refrence="x")
    assert code == INVALID and '"refrence" is not known' in text, (code, text)
    listed = set(re.findall(r"\w+", text.split("known are", 1)[1])) - {"or"}
    assert listed == known_attributes(), text


# Long things.

def test_long_secrets(node):
    """Pull secrets exceed the 4 KiB that CSI speaks of; the limit here is 1 MiB."""
    auths = {f"registry{i}.example": {"auth": base64.b64encode(b"user:" + b"canary" * 100).decode()} for i in range(900)}
    config = json.dumps({"auths": auths})
    assert 600_000 < len(config) < MIB
    node.publish("secret", secrets={".dockerconfigjson": config})
    node.unpublish("secret")
    node.refused(node.request("secret", secrets={".dockerconfigjson": config + " " * MIB}), INVALID, "at most 1048576")
    log = node.daemon.log()
    assert "canary" not in log and next(iter(auths.values()))["auth"] not in log


def test_long_attributes_and_ids(node):
    name = "v" * 1024
    patterns = ",".join(f"{i:060d}" for i in range(64))
    target = node.daemon.target("long")
    node.publish(name, target, exclude=patterns)
    assert_tree(target, node.tree)
    node.unpublish(name, target)
    node.refused(node.request("v" * 1025, target), INVALID, "at most 1024")


@pytest.mark.parametrize("length", [128, 1000, PATH_MAX - 1])
def test_long_target_paths(node, length):
    """As long as a path can be, and names that mountinfo has to escape."""
    parent = os.path.join(node.daemon.kubelet_dir, "pods", "a b\\c")
    while len(parent) < length - 203:
        parent += "/" + "d" * min(200, length - len(parent) - 3)
    target = parent + "/" + "m" * (length - len(parent) - 1)
    assert len(target) == length
    folder = os.open(node.daemon.kubelet_dir, os.O_RDONLY)
    for part in parent[len(node.daemon.kubelet_dir) + 1:].split("/"):  # the whole path is too long for mkdir -p
        try:
            os.mkdir(part, dir_fd=folder)
        except FileExistsError:
            pass
        folder, old = os.open(part, os.O_RDONLY, dir_fd=folder), folder
        os.close(old)
    os.close(folder)
    node.publish("long", target)
    assert not node.stats("long", target).volume_condition.abnormal
    assert os.path.exists(f"{target}"[:PATH_MAX - 1])
    node.publish("long", target)
    node.unpublish("long", target)
    assert not os.path.lexists(target)
    code, _ = error_of(node.publish, "long", target + "m" * PATH_MAX)
    assert code == INVALID


# While something is going on.

def test_aborted_while_another_operation_works_on_the_target(make_daemon, faulty, work):
    made = modelpack(work, sizes=(4 * MIB,))
    reference = faulty.add(made, "team/model", "v1")
    fault = faulty.fault("/blobs/", "stall", after=100)
    node = Node(make_daemon([faulty.config()]), reference, made.tree)
    target = node.daemon.target("one")
    call = node.client.NodePublishVolume.future(node.request("one"), timeout=60)
    wait_for(faulty.blob_gets, "the pull")
    node.refused(node.request("one", subPath="docs"), ABORTED, "is being published with other attributes")
    node.refused(node.request("two", target), ABORTED, "as another volume")
    assert not call.done()
    code, _ = error_of(node.stats, "one", target)
    assert code == NOT_FOUND
    code, text = error_of(node.unpublish, "two", target)  # not its operation to cancel
    assert code == ABORTED and not call.done(), text
    node.unpublish("one")
    assert call.exception(10).code() in (grpc.StatusCode.CANCELLED, ABORTED)
    assert not os.path.exists(target)
    fault.times = 0
    node.client.close()


def test_volume_condition(node):
    target = node.daemon.target("state")
    node.publish("state")
    stats = node.stats("state", target)
    assert not stats.volume_condition.abnormal and node.reference in stats.volume_condition.message
    assert [u.used for u in stats.usage if u.unit == 1] == [
        sum(e.size for e in node.tree.values() if e.kind == "file")]
    assert os.system(f"umount '{target}'") == 0
    stats = node.stats("state", target)
    assert stats.volume_condition.abnormal and "is not mounted" in stats.volume_condition.message
    assert os.system(f"mount -t tmpfs none '{target}'") == 0  # somebody else's
    stats = node.stats("state", target)
    assert stats.volume_condition.abnormal and "something else" in stats.volume_condition.message
    node.refused(node.request("state"), PRECONDITION, "something else is mounted")
    code, text = error_of(node.unpublish, "state")
    assert code == PRECONDITION and "left alone" in text, text
    assert os.system(f"umount '{target}'") == 0
    node.publish("state")
    assert_tree(target, node.tree)
    node.unpublish("state")


# Attacks on target paths.

def test_unpublish_does_not_follow_a_symlink_to_another_volume(node):
    """CVE-2021-25741 and its kind: the attacker's target leads to the victim's."""
    victim, pods = node.daemon.target("victim"), os.path.join(node.daemon.kubelet_dir, "pods")
    node.publish("victim")
    attacker = node.daemon.target("attacker")
    node.publish("attacker")
    volumes = os.path.dirname(attacker)
    os.rename(volumes, volumes + ".moved")
    os.symlink(os.path.relpath(os.path.dirname(victim), os.path.dirname(volumes)), volumes)
    code, _ = error_of(node.unpublish, "attacker", attacker)
    assert code == INVALID
    node.unpublish("victim", attacker)  # it is published elsewhere: nothing is done
    code, _ = error_of(node.publish, "attacker", attacker)
    assert code == INVALID
    os.symlink("victim", os.path.join(pods, "through"))
    code, _ = error_of(node.unpublish, "victim", victim.replace("/victim/", "/through/"))
    assert code == INVALID
    assert_tree(victim, node.tree)
    os.unlink(os.path.join(pods, "through"))
    os.unlink(volumes)
    os.rename(volumes + ".moved", volumes)
    for name in ("attacker", "victim"):
        node.unpublish(name)
    assert not mounts_beneath(pods)


def test_a_parent_that_becomes_a_symlink_in_between(node, work):
    """CVE-2021-30465 and its kind: what was checked is what is mounted on, whatever the name means by then."""
    parent = os.path.dirname(node.daemon.target("race"))
    outside, aside = os.path.join(work, "outside"), parent + ".aside"
    os.makedirs(os.path.join(outside, "mount"))
    os.symlink(os.path.relpath(outside, os.path.dirname(parent)), aside)
    stop, turns = threading.Event(), [0]

    def exchange():  # renameat2(RENAME_EXCHANGE): the name is a directory or a symlink, and nothing else
        import ctypes  # pylint: disable=import-outside-toplevel
        libc = ctypes.CDLL(None, use_errno=True)
        while not stop.is_set():
            assert libc.renameat2(-100, parent.encode(), -100, aside.encode(), 2) == 0
            turns[0] += 1

    thread = threading.Thread(target=exchange)
    node.publish("kept")  # so that nothing has to be fetched
    thread.start()
    target, done = os.path.join(parent, "mount"), 0
    try:
        for i in range(200):
            try:
                node.publish(f"race{i}", target)
                done += 1
            except grpc.RpcError as error:
                assert error.code() in (INVALID, PRECONDITION, ABORTED, grpc.StatusCode.INTERNAL), error
            assert not mounts_beneath(outside), i
            for _ in range(50):
                try:
                    node.unpublish(f"race{i}", target)
                    break
                except grpc.RpcError:
                    pass
    finally:
        stop.set()
        thread.join()
    assert turns[0] > 100 and done > 5, (turns, done)
    assert os.path.isdir(os.path.join(outside, "mount"))
    node.unpublish("kept")


def test_unpublish_removes_an_empty_directory_and_nothing_more(node):
    target = node.daemon.target("more")
    node.publish("more")
    assert os.system(f"umount '{target}'") == 0
    os.makedirs(f"{target}/precious/deep")
    code, text = error_of(node.unpublish, "more")
    assert code == PRECONDITION and "not an empty directory" in text, (code, text)
    assert os.path.isdir(f"{target}/precious/deep")
    shutil.rmtree(f"{target}/precious")
    node.unpublish("more")
    assert not os.path.exists(target) and os.path.isdir(os.path.dirname(target))
