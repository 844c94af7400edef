# SPDX-License-Identifier: Apache-2.0
"""The CSI socket as csi-sanity v5.5.0 and the kubelet use it: all specs that apply to Identity and Node, and what
spec.md says beyond them.  One long connection with the authority localhost, as csi-sanity's."""
import os
import re
import statistics
import time

import grpc
import pytest

from lib.artifacts import MIB, modelpack
from lib.check import assert_sentence, mount_options, running_daemon, wait_idle
from lib.content import assert_tree
from lib.csi import CsiClient, GrpcClient, error_of
from lib.faulty import FaultyRegistry
from lib.sandbox import mounts_beneath, wait_for

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
EXISTS, PRECONDITION = grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.FAILED_PRECONDITION
ABORTED, UNIMPLEMENTED = grpc.StatusCode.ABORTED, grpc.StatusCode.UNIMPLEMENTED
SINGLE_WRITER, SINGLE_READER, MULTI_READER, MULTI_SINGLE_WRITER, MULTI_WRITER = 1, 2, 3, 4, 5
SINGLE_SINGLE_WRITER = 6


class Setup:
    """One registry with one artifact, one daemon, one connection, for all tests that do not stop the daemon."""

    def __init__(self, daemon, faulty, made):
        self.daemon, self.faulty, self.made = daemon, faulty, made
        self.reference = faulty.add(made, "team/model", "v1")
        self.client = GrpcClient("csi", daemon.csi_socket, [("grpc.default_authority", "localhost")])
        self.pb = self.client.pb
        self.inline = CsiClient.publish_request

    def request(self, volume_id="vol", target=None, mode=SINGLE_WRITER, flags=(), readonly=False, **options):
        """What csi-sanity sends: SINGLE_NODE_WRITER, readonly false."""
        reference = options.pop("reference", self.reference)
        request = self.inline(self, volume_id, self.daemon.target(volume_id) if target is None else target, reference,
                              readonly=readonly, **options)
        request.volume_capability.access_mode.mode = mode
        request.volume_capability.mount.mount_flags.extend(flags)
        return request

    def publish(self, request, seconds=60):
        return self.client.NodePublishVolume(request, timeout=seconds)

    def refused(self, request, code, text=""):
        got, sentence = error_of(self.publish, request)
        assert got == code, (got, sentence)
        assert_sentence(sentence)
        assert re.search(text, sentence), sentence

    def unpublish(self, volume_id, target):
        self.client.NodeUnpublishVolume(self.pb.NodeUnpublishVolumeRequest(volume_id=volume_id, target_path=target),
                                        timeout=30)

    def stats(self, volume_id, path):
        return self.client.NodeGetVolumeStats(
            self.pb.NodeGetVolumeStatsRequest(volume_id=volume_id, volume_path=path), timeout=30)


@pytest.fixture(scope="module", name="csi")
def csi_fixture(module_work):
    faulty = FaultyRegistry()
    try:
        with running_daemon(os.path.join(module_work, "d"), [faulty.config()]) as daemon:
            setup = Setup(daemon, faulty, modelpack(module_work))
            yield setup
            setup.client.close()
    finally:
        faulty.stop()


@pytest.fixture(name="volume")
def volume_fixture(csi, request):
    """(id, target) of a volume that is unpublished after the test."""
    name = re.sub(r"\W", "-", request.node.name)[:60]
    target = csi.daemon.target(name)
    yield name, target
    csi.unpublish(name, target)
    assert not os.path.exists(target) and not mounts_beneath(target)


# Identity: specs 1 to 3.

def test_01_get_plugin_capabilities(csi):
    assert not csi.client.GetPluginCapabilities(csi.pb.GetPluginCapabilitiesRequest(), timeout=5).capabilities


def test_02_probe(csi):
    assert csi.client.Probe(csi.pb.ProbeRequest(), timeout=5).ready.value


def test_03_get_plugin_info(csi):
    info = csi.client.GetPluginInfo(csi.pb.GetPluginInfoRequest(), timeout=5)
    assert len(info.name) <= 63 and re.fullmatch(r"[a-zA-Z][A-Za-z0-9\-._]{0,61}[a-zA-Z]", info.name)
    assert info.vendor_version


# Node: specs 4 and 5.

def test_04_node_get_capabilities(csi):
    answer = csi.client.NodeGetCapabilities(csi.pb.NodeGetCapabilitiesRequest(), timeout=5)
    assert sorted(c.rpc.type for c in answer.capabilities) == [2, 4]  # GET_VOLUME_STATS, VOLUME_CONDITION
    assert all(c.WhichOneof("type") == "rpc" for c in answer.capabilities)


def test_05_node_get_info(csi):
    info = csi.client.NodeGetInfo(csi.pb.NodeGetInfoRequest(), timeout=5)
    assert info.node_id == "test-node" and info.max_volumes_per_node >= 0
    assert not info.HasField("accessible_topology")


# Specs 6 to 10: what is missing.

def test_06_publish_without_volume_id(csi):
    csi.refused(csi.request("", "/x"), INVALID, "volume_id")


def test_07_publish_without_target_path(csi):
    csi.refused(csi.request("vol", ""), INVALID, "target_path")


def test_08_publish_without_capability(csi):
    request = csi.request("vol")
    request.ClearField("volume_capability")
    csi.refused(request, INVALID, "capability")


def test_09_unpublish_without_volume_id(csi):
    assert error_of(csi.unpublish, "", csi.daemon.target("vol"))[0] == INVALID


def test_10_unpublish_without_target_path(csi):
    assert error_of(csi.unpublish, "vol", "")[0] == INVALID


# Specs 11 to 13: work, and again and again.

def test_11_unpublish_removes_the_target_path(csi):
    target = csi.daemon.target("t11")
    csi.publish(csi.request("t11"))
    assert os.stat(target)
    csi.unpublish("t11", target)
    assert not os.path.lexists(target)
    assert os.path.isdir(os.path.dirname(target))  # the kubelet's own


def test_12_works(csi, volume):
    csi.publish(csi.request(volume[0]))
    assert_tree(volume[1], csi.made.tree)
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(mount_options(volume[1]))
    usage = {u.unit: u for u in csi.stats(*volume).usage}
    assert usage[1].used == usage[1].total > 4 * MIB and usage[1].available == 0
    assert usage[2].used >= 5


def test_13_is_idempotent(csi, volume):
    for _ in range(10):
        csi.publish(csi.request(volume[0]))
    assert len(mounts_beneath(volume[1])) == 1
    for _ in range(10):
        csi.unpublish(*volume)


# Specs 14 to 17: statistics.

def test_14_stats_without_volume_id(csi):
    assert error_of(csi.stats, "", "/some/path")[0] == INVALID


def test_15_stats_without_volume_path(csi):
    assert error_of(csi.stats, "vol", "")[0] == INVALID


def test_16_stats_of_an_unknown_volume(csi):
    assert error_of(csi.stats, "unknown", "some/path")[0] == NOT_FOUND
    assert error_of(csi.stats, "unknown", csi.daemon.target("unknown"))[0] == NOT_FOUND


def test_17_stats_at_another_path(csi, volume):
    csi.publish(csi.request(volume[0]))
    assert error_of(csi.stats, volume[0], "some/path")[0] == NOT_FOUND
    assert error_of(csi.stats, volume[0], volume[1] + "x")[0] == NOT_FOUND


# Specs 18 to 26 are for what we do not advertise: no such method.

@pytest.mark.parametrize("method", ["Node/NodeStageVolume", "Node/NodeUnstageVolume", "Node/NodeExpandVolume",
                                    "Controller/CreateVolume", "Controller/ControllerGetCapabilities"])
def test_18_to_26_unimplemented(csi, method):
    call = csi.client.channel.unary_unary(f"/csi.v1.{method}", bytes, bytes)
    assert error_of(call, b"", timeout=5)[0] == UNIMPLEMENTED


def test_27_a_second_target_of_a_single_node_volume(csi, volume):
    csi.publish(csi.request(volume[0], mode=SINGLE_SINGLE_WRITER))
    csi.refused(csi.request(volume[0], csi.daemon.target("t27"), SINGLE_SINGLE_WRITER), PRECONDITION, "published at")


# spec.md beyond csi-sanity.

def test_publish_table(csi, volume):
    csi.publish(csi.request(volume[0]))
    csi.publish(csi.request(volume[0], secrets={"username": "u", "password": "p"}))  # not part of the comparison
    for other in (csi.request(volume[0], subPath="docs"), csi.request(volume[0], readonly=True),
                  csi.request(volume[0], mode=MULTI_READER), csi.request(volume[0], flags=["noatime"])):
        csi.refused(other, EXISTS, "other attributes")
    csi.refused(csi.request(volume[0], csi.daemon.target("table2")), PRECONDITION, "ReadOnlyMany")
    csi.refused(csi.request("table3", volume[1]), PRECONDITION)  # another volume at the same target
    assert len(mounts_beneath(volume[1])) == 1


def test_many_targets_of_a_multi_node_volume(csi, volume):
    targets = [volume[1], csi.daemon.target("multi2"), csi.daemon.target("multi3")]
    for target in targets:
        csi.publish(csi.request(volume[0], target, MULTI_READER))
    for target in targets[1:]:
        assert_tree(target, csi.made.tree)
        csi.unpublish(volume[0], target)
    assert mounts_beneath(volume[1])


@pytest.mark.parametrize("mode, good", [(SINGLE_WRITER, True), (SINGLE_READER, True), (MULTI_READER, True),
                                        (MULTI_SINGLE_WRITER, False), (MULTI_WRITER, False), (0, False), (99, False)])
def test_access_modes(csi, volume, mode, good):
    request = csi.request(volume[0], mode=mode)
    if good:
        csi.publish(request)
        assert "ro" in mount_options(volume[1])
    else:
        csi.refused(request, INVALID, "access mode")


def test_block_volumes_and_mount_flags(csi, volume):
    request = csi.request(volume[0])
    request.volume_capability.block.SetInParent()
    csi.refused(request, INVALID, "block")
    csi.refused(csi.request(volume[0], flags=["ro", "rw"]), INVALID, '"rw"')
    csi.refused(csi.request(volume[0], flags=["context=secret"]), INVALID, '"context"')
    csi.publish(csi.request(volume[0], flags=["ro", "noatime"], noexec="false"))
    assert "noexec" not in mount_options(volume[1])


ATTRIBUTES = [({"reference": None}, "reference is missing"), ({"image": "other/image"}, "differ"),
              ({"pullPolicy": "Sometimes"}, "IfNotPresent"), ({"platform": "x"}, "platform"),
              ({"noexec": "maybe"}, "noexec"), ({"timeOut": "5m"}, "known are reference"),
              ({"subPath": "../.."}, "subPath"), ({"subPath": "/etc"}, "subPath"),
              ({"subPath": "config.json"}, "is a file"), ({"secrets": {"token": "hunter2"}}, "known are"),
              ({"secrets": {"username": "u"}}, "password"), ({"secrets": {".dockerconfigjson": "{hunter2"}}, "secret")]


@pytest.mark.parametrize("options, text", ATTRIBUTES, ids=[t for _, t in ATTRIBUTES])
def test_bad_attributes(csi, volume, options, text):
    csi.refused(csi.request(volume[0], **options), INVALID, text)
    assert not os.path.exists(volume[1])
    assert "hunter2" not in csi.daemon.log()


def test_sub_path(csi, volume):
    csi.refused(csi.request(volume[0], subPath="nothing/here"), NOT_FOUND, "nothing/here")
    csi.publish(csi.request(volume[0], subPath="docs"))
    assert os.listdir(volume[1]) == ["README.md"]


def test_never_pulled_and_not_there(csi, volume):
    reference = csi.faulty.add(csi.made, "team/other", "v9")
    csi.refused(csi.request(volume[0], reference=reference, pullPolicy="Never"), NOT_FOUND)
    csi.refused(csi.request(volume[0], reference=f"{csi.faulty.host}/team/none:v1"), NOT_FOUND)
    assert not os.path.exists(volume[1])


# Target paths as an attacker would send them.

@pytest.mark.parametrize("path", [
    "/etc/modelcached-attack", "/", "relative/path", "../..", "{k}", "{k}/", "{k}/pods/../../attack", "{k}/pods/./a",
    "{k}//a", "{k}x/a", "{k}/pods/a/", "{k}/pods/a\nb", "{k}/pods/link/a", "{k}/pods/link", "{k}/pods/file",
    "{k}/pods/file/a", "{k}/pods/no/parent", "{k}/" + "a" * 300, "{k}/" + "a/" * 2500 + "a"])
def test_target_attacks(csi, work, path):
    pods = os.path.join(csi.daemon.kubelet_dir, "pods")
    if not os.path.lexists(f"{pods}/link"):
        os.symlink(work, f"{pods}/link")
        with open(f"{pods}/file", "w", encoding="ascii"):
            pass
    before = sorted(os.listdir(csi.daemon.kubelet_dir)), sorted(os.listdir(pods))
    target = path.format(k=csi.daemon.kubelet_dir)
    code, text = error_of(csi.publish, csi.request("attack", target))
    assert code == INVALID or len(os.path.basename(target)) > 255, (code, text)
    error_of_or_ok(csi.unpublish, "attack", target)
    assert before == (sorted(os.listdir(csi.daemon.kubelet_dir)), sorted(os.listdir(pods)))
    assert not os.listdir(work) and not os.path.exists("/etc/modelcached-attack")


def error_of_or_ok(call, *arguments):
    try:
        call(*arguments)
    except grpc.RpcError:
        pass


@pytest.mark.parametrize("volume_id", ["../../etc", "/etc/passwd", "..", "a/b/c", "ctl:/x", "a\nb", "x" * 5000])
def test_hostile_volume_ids_are_no_paths(csi, volume_id):
    target = csi.daemon.target("hostile")
    try:
        csi.publish(csi.request(volume_id, target))
        csi.unpublish(volume_id, target)
    except grpc.RpcError as error:
        assert error.code() == INVALID, error
        assert volume_id.startswith("ctl:") or "\n" in volume_id or len(volume_id) > 1024
    assert not os.path.exists(target)


def test_a_target_that_is_not_empty_is_left_alone(csi):
    target = csi.daemon.target("full")
    os.mkdir(target)
    with open(os.path.join(target, "precious"), "w", encoding="ascii") as file:
        file.write("x")
    csi.refused(csi.request("full"), PRECONDITION, "not empty")
    csi.unpublish("full", target)  # unknown: done, and nothing is removed
    assert os.listdir(target) == ["precious"]


# The pull outlives the call.

def test_deadline_tells_progress_and_the_retry_joins(make_daemon, make_faulty, work):
    faulty = make_faulty()
    made = modelpack(work, sizes=(8 * MIB,), seed="slow")
    reference = faulty.add(made, "team/slow", "v1")
    faulty.rate = 2 * MIB
    daemon = make_daemon([faulty.config()])
    csi, target = daemon.csi(), daemon.target("slow")
    request = csi.publish_request("slow", target, reference)
    begin = time.monotonic()
    code, text = error_of(csi.NodePublishVolume, request, timeout=2.0)
    assert code == ABORTED and time.monotonic() - begin < 2.0, (code, text)
    assert_sentence(text)
    assert reference in text and "the next try joins it" in text, text
    assert not os.path.exists(target)
    gets = len(faulty.seen("/manifests/"))
    csi.publish("slow", target, reference, rpc_seconds=2.0)
    assert_tree(target, made.tree)
    largest = max((b for b in made.blobs), key=lambda b: b.size)
    assert sum(r.sent for r in faulty.seen(largest.digest)) <= largest.size * 1.01, "the layer was loaded twice"
    assert len(faulty.seen("/manifests/")) <= gets + 2
    csi.unpublish("slow", target)


def test_unpublish_ends_a_publish_that_waits(make_daemon, make_faulty, work):
    faulty = make_faulty()
    reference = faulty.add(modelpack(work, sizes=(MIB,)), "team/model", "v1")
    faulty.fault("/blobs/", "stall", after=100)
    daemon = make_daemon([faulty.config()])
    csi, target = daemon.csi(), daemon.target("gone")
    call = csi.NodePublishVolume.future(csi.publish_request("gone", target, reference), timeout=60)
    wait_for(faulty.blob_gets, "the pull")
    csi.unpublish("gone", target, seconds=10)
    assert call.exception(timeout=10).code() in (grpc.StatusCode.CANCELLED, ABORTED)
    assert not os.path.exists(target)


def test_a_cancelled_call_leaves_nothing_mounted(make_daemon, make_faulty, work):
    faulty = make_faulty()
    made = modelpack(work, sizes=(2 * MIB,))
    reference = faulty.add(made, "team/model", "v1")
    faulty.rate = 2 * MIB
    daemon = make_daemon([faulty.config()])
    csi, target = daemon.csi(), daemon.target("cancel")
    call = csi.NodePublishVolume.future(csi.publish_request("cancel", target, reference), timeout=60)
    wait_for(faulty.blob_gets, "the pull")
    call.cancel()
    wait_idle(daemon, 30)  # the pull goes on to its end
    assert not os.path.exists(target)
    gets = faulty.blob_gets()
    csi.publish("cancel", target, reference)
    assert faulty.blob_gets() == gets
    csi.unpublish("cancel", target)


# Restart, registration, speed.

def test_restart_with_volumes(make_daemon, faulty, work):
    made = modelpack(work)
    reference = faulty.add(made, "team/model", "v1")
    daemon = make_daemon([faulty.config()])
    live, lost, gone = (daemon.target(name) for name in ("live", "lost", "gone"))
    for name, target in (("live", live), ("lost", lost), ("gone", gone)):
        daemon.csi().publish(name, target, reference)
    daemon.kill9()
    for target in (lost, gone):
        assert os.system(f"umount '{target}'") == 0
    os.rmdir(gone)
    daemon.start()
    csi = daemon.csi()
    assert_tree(live, made.tree)
    stats = {name: csi.NodeGetVolumeStats(csi.pb.NodeGetVolumeStatsRequest(volume_id=name, volume_path=target))
             for name, target in (("live", live), ("lost", lost))}
    assert not stats["live"].volume_condition.abnormal
    assert stats["lost"].volume_condition.abnormal and "not mounted" in stats["lost"].volume_condition.message
    code, _ = error_of(csi.NodeGetVolumeStats, csi.pb.NodeGetVolumeStatsRequest(volume_id="gone", volume_path=gone))
    assert code == NOT_FOUND
    for name, target in (("live", live), ("lost", lost)):
        csi.publish(name, target, reference)
        assert_tree(target, made.tree)
        csi.unpublish(name, target)
    csi.unpublish("gone", gone)


def test_registration(make_daemon, work):
    folder = os.path.join(work, "registry")
    os.mkdir(folder)
    daemon = make_daemon(config={"csi": {"registration_dir": folder}})
    name = daemon.csi().GetPluginInfo(daemon.csi().pb.GetPluginInfoRequest()).name
    assert os.listdir(folder) == [f"{name}-reg.sock"]
    with GrpcClient("registration", os.path.join(folder, f"{name}-reg.sock")) as kubelet:
        info = kubelet.GetInfo(kubelet.pb.InfoRequest(), timeout=1)
        assert (info.type, info.name, info.endpoint) == ("CSIPlugin", name, daemon.csi_socket)
        assert list(info.supported_versions) == ["1.0.0"]
        kubelet.NotifyRegistrationStatus(kubelet.pb.RegistrationStatus(plugin_registered=False, error="no"), timeout=5)
        kubelet.NotifyRegistrationStatus(kubelet.pb.RegistrationStatus(plugin_registered=True), timeout=5)
        assert kubelet.GetInfo(kubelet.pb.InfoRequest(), timeout=1) == info  # newer kubelets ask every 10 s
    daemon.stop_clean()
    assert not os.listdir(folder) and not os.path.exists(daemon.csi_socket)


def test_warm_publish_is_fast(csi):
    csi.publish(csi.request("warm"))
    times = []
    for i in range(30):
        request = csi.request(f"warm{i}")
        begin = time.monotonic()
        csi.publish(request)
        times.append(time.monotonic() - begin)
        csi.unpublish(f"warm{i}", csi.daemon.target(f"warm{i}"))
    csi.unpublish("warm", csi.daemon.target("warm"))
    print(f"warm publish: median {statistics.median(times) * 1000:.2f} ms (a build with sanitizers)")
    assert statistics.median(times) < 0.1  # test_main_job measures the release build
