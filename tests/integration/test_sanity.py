# SPDX-License-Identifier: Apache-2.0
"""The real csi-sanity v5.5.0 against the daemon, where Go is found; and that each of its specs that apply is also a test
of our own in test_csi.py, which needs no Go."""
import os

import pytest

import test_csi
from lib.artifacts import modelpack
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.sandbox import mounts_beneath
from lib.sanity import WholeDriver, csi_sanity, run_sanity

# csi-sanity's specs that apply to a plugin of Identity and Node with GET_VOLUME_STATS, and our own test of each.
SPECS = {
    "Identity Service GetPluginCapabilities should return appropriate capabilities":
        test_csi.test_01_get_plugin_capabilities,
    "Identity Service Probe should return appropriate information": test_csi.test_02_probe,
    "Identity Service GetPluginInfo should return appropriate information": test_csi.test_03_get_plugin_info,
    "Node Service NodeGetCapabilities should return appropriate capabilities": test_csi.test_04_node_get_capabilities,
    "Node Service NodeGetInfo should return appropriate values": test_csi.test_05_node_get_info,
    "Node Service NodePublishVolume should fail when no volume id is provided":
        test_csi.test_06_publish_without_volume_id,
    "Node Service NodePublishVolume should fail when no target path is provided":
        test_csi.test_07_publish_without_target_path,
    "Node Service NodePublishVolume should fail when no volume capability is provided":
        test_csi.test_08_publish_without_capability,
    "Node Service NodeUnpublishVolume should fail when no volume id is provided":
        test_csi.test_09_unpublish_without_volume_id,
    "Node Service NodeUnpublishVolume should fail when no target path is provided":
        test_csi.test_10_unpublish_without_target_path,
    "Node Service NodeUnpublishVolume should remove target path": test_csi.test_11_unpublish_removes_the_target_path,
    "Node Service should work": test_csi.test_12_works,
    "Node Service should be idempotent": test_csi.test_13_is_idempotent,
    "Node Service NodeGetVolumeStats should fail when no volume id is provided":
        test_csi.test_14_stats_without_volume_id,
    "Node Service NodeGetVolumeStats should fail when no volume path is provided":
        test_csi.test_15_stats_without_volume_path,
    "Node Service NodeGetVolumeStats should fail when volume is not found": test_csi.test_16_stats_of_an_unknown_volume,
    "Node Service NodeGetVolumeStats should fail when volume does not exist on the specified path":
        test_csi.test_17_stats_at_another_path,
}
# Those that need a volume, which only a Controller makes.
OF_A_CONTROLLER = {spec for spec in SPECS if spec.endswith(("work", "idempotent", "remove target path", "specified path"))}
CONTROLLER = "Controller Server|GroupController"


def test_each_spec_has_a_test_of_our_own():
    assert len(SPECS) == len(set(SPECS.values())) == 17


@pytest.fixture(name="sanity")
def sanity_fixture(make_daemon, faulty, work, show):
    """(daemon, run); run(socket, skip, specs): just these specs run, all pass, and nothing is left behind."""
    csi_sanity()
    daemon = make_daemon([faulty.config()])
    parameters = {"reference": faulty.add(modelpack(work), "team/model", "v1")}

    def run(socket_path, skip, specs):
        pods = os.path.join(daemon.kubelet_dir, "pods")
        ran = run_sanity(work, pods, socket_path, skip, parameters)
        show(f"csi-sanity: {sum(why is None for why in ran.values())} of {len(ran)} specs passed")
        assert not {spec: why for spec, why in ran.items() if why is not None}
        assert set(ran) == specs
        assert not os.listdir(pods) and not mounts_beneath(pods)
        assert daemon.ctl_json("status")["volumes"] == 0

    return daemon, run


def test_csi_sanity_straight_at_the_daemon(sanity):
    """grpc-go, on its one connection."""
    daemon, run = sanity
    names = [spec.rsplit(" should ", 1)[1] for spec in sorted(OF_A_CONTROLLER)]
    run(daemon.csi_socket, "|".join([CONTROLLER, *(f"should {name}$" for name in names)]),
        set(SPECS) - OF_A_CONTROLLER)


def test_csi_sanity_of_a_whole_driver(sanity, work):
    daemon, run = sanity
    driver = WholeDriver(os.path.join(work, "driver.sock"), daemon.csi_socket)
    try:
        run(os.path.join(work, "driver.sock"), CONTROLLER, set(SPECS))
    finally:
        driver.close()
