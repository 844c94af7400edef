# SPDX-License-Identifier: Apache-2.0
"""A stand-in kubelet: registration whoever of the two comes first, goes, or is killed; and pods as it mounts them."""
import os
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from lib.artifacts import MIB, Builder, modelpack, modelpack_annotations
from lib.check import assert_store_good, show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import Random, assert_tree
from lib.csi import CsiClient
from lib.kubelet import Kubelet, Pod
from lib.sandbox import mounts_beneath, wait_for

DRIVER = "csi.modelcached.dev"
PODS, RPC_SECONDS, PULL_SECONDS, VOLUMES = 50, 1.0, 10, 300


@pytest.fixture(name="kubelet")
def kubelet_fixture(work):
    """A kubelet, not started, whose folder is not there."""
    kubelet = Kubelet(os.path.join(work, "k"))
    yield kubelet
    kubelet.stop()


@pytest.fixture(name="make")
def make_fixture(make_daemon, kubelet):
    """make(registries): a daemon, not started, whose sockets and targets are in the kubelet's folder."""
    def make(registries=(), **options):
        daemon = make_daemon(registries, start=False, **options)
        daemon.csi_socket = f"{kubelet.root}/plugins/{DRIVER}/csi.sock"
        daemon.config["csi"] = {"driver": DRIVER, "endpoint": f"unix://{daemon.csi_socket}",
                                "kubelet_dir": f"{kubelet.root}/pods", "registration_dir": kubelet.registry}
        return daemon

    return make


def wait_registered(kubelet, seconds=15):
    wait_for(lambda: DRIVER in kubelet.drivers and kubelet.happened[-1:] == [("registered", DRIVER)],
             f"the registration; until now: {kubelet.happened}", seconds)
    assert os.listdir(kubelet.registry) == [f"{DRIVER}-reg.sock"]
    assert kubelet.nodes[DRIVER] == "test-node"


def wait_unregistered(kubelet, seconds=15):
    wait_for(lambda: DRIVER not in kubelet.drivers, "the end of the registration", seconds)


def assert_mounts_and_unmounts(kubelet, name, reference, tree):
    """The kubelet's calls for a pod, in their order."""
    pod = Pod(kubelet, DRIVER, name, {"reference": reference})
    pod.mount()
    assert_tree(pod.path, tree)
    assert not pod.stats().volume_condition.abnormal
    pod.tear_down_at()
    assert pod.is_gone()


# Registration.

def test_kubelet_first(kubelet, make, faulty, work):
    kubelet.start()
    daemon, made = make([faulty.config()]).start(), modelpack(work)
    wait_registered(kubelet)
    assert kubelet.happened == [("registered", DRIVER)], "CSI has to answer before the registration socket is there"
    wait_for(lambda: f"the kubelet registered the driver {DRIVER}" in daemon.log(), "a word about it")
    assert_mounts_and_unmounts(kubelet, "pod", faulty.add(made, "team/model", "v1"), made.tree)
    daemon.stop_clean()
    wait_unregistered(kubelet, 2)
    assert not os.listdir(kubelet.registry) and not os.path.exists(daemon.csi_socket)


def test_daemon_first(kubelet, make, faulty, work):
    """As a service of the host that starts before the kubelet has ever been there."""
    daemon, made = make([faulty.config()]).start(), modelpack(work)
    for socket_name in ("the CSI socket (csi.endpoint)", "the registration socket (csi.registration_dir; "):
        assert socket_name in daemon.log(), "no word about what is waited for"
    assert daemon.ctl("status").code == 0
    kubelet.start()
    wait_registered(kubelet)
    assert_mounts_and_unmounts(kubelet, "pod", faulty.add(made, "team/model", "v1"), made.tree)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_restart_of_the_daemon(kubelet, make, faulty, work, how):
    daemon, made = make([faulty.config()]), modelpack(work)
    pod = Pod(kubelet.start(), DRIVER, "pod", {"reference": faulty.add(made, "team/model", "v1")})
    for turn in range(3):
        daemon.start()
        wait_registered(kubelet)
        pod.set_up_at()
        assert_tree(pod.path, made.tree)
        assert len(mounts_beneath(pod.path)) == 1
        if how == "SIGTERM":
            daemon.stop_clean()
        else:
            daemon.kill9()  # the sockets stay; its GetInfo fails
        wait_unregistered(kubelet)
        assert [what for what, _ in kubelet.happened].count("unregistered") == turn + 1
    daemon.start()
    wait_registered(kubelet)
    pod.tear_down_at()
    assert pod.is_gone()


def test_killed_daemon_and_a_kubelet_that_does_not_ask(kubelet, make):
    """Those before 1.34 only watch the folder: the stale socket goes, and a new one comes."""
    kubelet.poll = 3600
    daemon = make()
    kubelet.start()
    daemon.start()
    wait_registered(kubelet)
    daemon.kill9()
    assert DRIVER in kubelet.drivers
    daemon.start()
    wait_for(lambda: len(kubelet.happened) >= 3, "the second registration")
    assert kubelet.happened == [("registered", DRIVER), ("unregistered", DRIVER), ("registered", DRIVER)]


def test_restart_of_the_kubelet(kubelet, make, faulty, work):
    daemon, made = make([faulty.config()]), modelpack(work)
    pod = Pod(kubelet.start(), DRIVER, "pod", {"reference": faulty.add(made, "team/model", "v1")})
    daemon.start()
    for _ in range(3):
        wait_registered(kubelet)
        pod.set_up_at()
        assert len(mounts_beneath(pod.path)) == 1
        kubelet.restart()
        assert_tree(pod.path, made.tree)
    wait_registered(kubelet)
    assert not [why for what, why in kubelet.happened if what == "failed"]
    pod.tear_down_at()
    assert pod.is_gone()


def test_stale_sockets_are_replaced(kubelet, make):
    kubelet.start()
    daemon = make()
    os.makedirs(os.path.dirname(daemon.csi_socket))
    for path in (daemon.csi_socket, os.path.join(kubelet.registry, f"{DRIVER}-reg.sock")):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
    daemon.start()
    wait_registered(kubelet)


@pytest.mark.parametrize("what", ["registration", "csi", "both folders"])
def test_removed_sockets_come_again(kubelet, make, faulty, work, what):
    """Such as by somebody who tidies up, or by kubeadm reset and join."""
    kubelet.start()
    daemon, made = make([faulty.config()]).start(), modelpack(work)
    reference = faulty.add(made, "team/model", "v1")
    wait_registered(kubelet)
    if what == "registration":
        os.unlink(os.path.join(kubelet.registry, f"{DRIVER}-reg.sock"))
        wait_unregistered(kubelet)
    elif what == "csi":
        os.unlink(daemon.csi_socket)
        wait_for(lambda: os.path.exists(daemon.csi_socket), "the CSI socket")
    else:
        kubelet.stop()
        shutil.rmtree(kubelet.root)
        kubelet.start()
    wait_registered(kubelet)
    assert_mounts_and_unmounts(kubelet, "pod", reference, made.tree)
    wait_for(daemon.standby_pids, "the worker that stands by, which has descriptors")
    fds = len(os.listdir(f"/proc/{daemon.pid}/fd"))
    os.unlink(os.path.join(kubelet.registry, f"{DRIVER}-reg.sock"))
    wait_unregistered(kubelet)
    wait_registered(kubelet)
    wait_for(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) <= fds, "the end of the old socket")


def test_place_that_another_takes_is_left_to_it(kubelet, make):
    """Two with one name would take the kubelet from each other for ever."""
    kubelet.start()
    daemon, path = make().start(), os.path.join(kubelet.registry, f"{DRIVER}-reg.sock")
    wait_registered(kubelet)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen()
        wait_for(lambda: f"another process listens on {path}" in daemon.log(), "a word about the other")
        os.stat(path)
        os.unlink(path)
    wait_registered(kubelet)


def test_refused_and_then_taken(kubelet, make):
    kubelet.refuse = "the cluster has no such CSIDriver"
    kubelet.start()
    daemon = make().start()
    wait_for(lambda: "the cluster has no such CSIDriver; it tries again by itself" in daemon.log(), "a word about it")
    assert daemon.alive() and DRIVER not in kubelet.drivers
    kubelet.refuse = None
    wait_registered(kubelet)


# Pods.

def slow_artifact(folder, seed, size):
    """Two raw layers; the larger takes PULL_SECONDS at a rate of size / PULL_SECONDS."""
    out, prefix = Builder(folder), "application/vnd.cncf.model"
    for path, n in (("model.safetensors", size), ("config.bin", 1000)):
        blob = Random(n, f"{seed}/{path}")
        out.raw(path, f"{prefix}.weight.v1.raw", blob, modelpack_annotations(path, blob))
    return out.done(f"{prefix}.config.v1+json", {"seed": seed}, f"{prefix}.manifest.v1+json")


def test_fifty_pods_with_deadlines_of_a_second_and_pulls_of_ten(kubelet, make, faulty, work, show):
    """No answer is final, most come before the deadline, each blob comes once, and every pod has its volume."""
    kubelet.start()
    daemon = make([faulty.config()]).start()
    wait_registered(kubelet)
    size = 2 * MIB
    artifacts = [slow_artifact(work, f"slow{i}", size) for i in range(4)]
    references = [faulty.add(made, f"team/slow{i}", "v1") for i, made in enumerate(artifacts)]
    faulty.rate = size // PULL_SECONDS
    pods = [Pod(kubelet, DRIVER, f"pod{i}", {"reference": references[i % 4]}) for i in range(PODS)]
    with ThreadPoolExecutor(PODS) as pool:
        list(pool.map(lambda pod: pod.mount(RPC_SECONDS, seconds=90, longest=2), pods))
    answers = [answer for pod in pods for answer in pod.answers]
    waited = [answer for answer in answers if answer[0] is not None]
    show(f"{PODS} pods: {len(answers)} calls, {len(waited)} of them told to wait, the slowest answer after "
         f"{max(seconds for _, _, seconds in answers):.2f} s")
    assert kubelet.happened == [("registered", DRIVER)], "GetInfo was not answered meanwhile"
    assert {code for code, _, _ in waited} <= {grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED}
    aborted = [text for code, text, _ in waited if code == grpc.StatusCode.ABORTED]
    assert len(aborted) > len(waited) / 2 and len(waited) >= 2 * PODS
    assert all("the pull goes on, the next try joins it" in text for text in aborted)
    fetched = faulty.seen("/blobs/")
    assert len({request.path for request in fetched}) == len(fetched), "a blob was asked for twice"
    for i, pod in enumerate(pods):
        assert len(mounts_beneath(pod.path)) == 1
        if i < 4:
            assert_tree(pod.path, artifacts[i].tree)
    with ThreadPoolExecutor(PODS) as pool:
        list(pool.map(Pod.tear_down_at, pods))
    assert all(pod.is_gone() for pod in pods) and not mounts_beneath(kubelet.root)
    assert daemon.ctl_json("status")["volumes"] == 0
    assert_store_good(daemon)


def test_all_volumes_of_a_large_node_at_once(kubelet, make, make_registry, work):
    """After a reboot the kubelet asks for all of its volumes, with a connection for each call, and they wait for a pull;
    meanwhile other calls are answered."""
    registry = make_registry()
    reference = registry.push(modelpack(work), "team/all", "v1")
    kubelet.start()
    daemon = make([registry.config()]).start()
    wait_registered(kubelet)
    os.kill(registry.processes[0].pid, signal.SIGSTOP)
    pods = [Pod(kubelet, DRIVER, f"pod{i}", {"reference": reference}) for i in range(VOLUMES)]
    clients = [kubelet.csi(DRIVER) for _ in pods]
    calls = []
    for pod, client in zip(pods, clients):
        os.makedirs(os.path.dirname(pod.path), 0o750)
        calls.append(client.NodePublishVolume.future(pod.request(client), timeout=60))
    wait_for(lambda: len(os.listdir(f"/proc/{daemon.pid}/fd")) > VOLUMES, "all connections")
    Pod(kubelet, DRIVER, "other", {"reference": reference}).tear_down_at(5)
    assert not any(call.done() for call in calls)
    os.kill(registry.processes[0].pid, signal.SIGCONT)
    for call in calls:
        call.result()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda client: client.close(), clients))
        list(pool.map(Pod.tear_down_at, pods))
    assert all(pod.is_gone() for pod in pods)
    assert kubelet.happened == [("registered", DRIVER)]


def test_final_answer_lets_the_kubelet_tidy_up(kubelet, make, faulty, work):
    """NOT_FOUND is final: the kubelet removes its directories and begins anew; then the artifact is there."""
    kubelet.start()
    make([faulty.config()]).start()
    wait_registered(kubelet)
    made = modelpack(work)
    pod = Pod(kubelet, DRIVER, "early", {"reference": f"{faulty.host}/team/early:v1"})
    with pytest.raises(grpc.RpcError):
        pod.set_up_at()
    assert pod.answers[0][0] == grpc.StatusCode.NOT_FOUND and pod.is_gone()
    faulty.add(made, "team/early", "v1")
    pod.mount()
    assert_tree(pod.path, made.tree)
    pod.tear_down_at()
    assert pod.is_gone()


def test_unpublish_of_what_never_was_published(kubelet, make, faulty, work):
    """The kubelet is never sure: with the directory, without it, without its parent, and a second time."""
    kubelet.start()
    daemon = make([faulty.config()]).start()
    wait_registered(kubelet)
    pod = Pod(kubelet, DRIVER, "never", {"reference": faulty.add(modelpack(work), "team/model", "v1")})
    pod.tear_down_at()
    assert pod.is_gone()
    os.makedirs(pod.path)
    pod.tear_down_at()
    assert pod.is_gone()
    os.makedirs(os.path.dirname(pod.path))
    pod.tear_down_at()
    pod.mount()
    pod.tear_down_at()
    pod.tear_down_at()
    assert pod.is_gone() and daemon.ctl_json("status")["volumes"] == 0


def test_pod_that_is_deleted_while_its_pull_goes_on(kubelet, make, faulty, work):
    """The volume manager ends one call before it makes the next: unpublish comes between two tries."""
    kubelet.start()
    daemon = make([faulty.config()]).start()
    wait_registered(kubelet)
    made = slow_artifact(work, "deleted", 2 * MIB)
    reference = faulty.add(made, "team/deleted", "v1")
    faulty.rate = MIB
    pod = Pod(kubelet, DRIVER, "deleted", {"reference": reference})
    with pytest.raises(grpc.RpcError):
        pod.set_up_at(RPC_SECONDS)
    assert pod.answers[0][0] == grpc.StatusCode.ABORTED and not pod.is_gone()
    pod.tear_down_at()
    assert pod.is_gone()
    wait_for(lambda: not daemon.worker_pids(), "the end of the pull")
    assert pod.is_gone() and not mounts_beneath(kubelet.root)
    gets = faulty.blob_gets()
    again = Pod(kubelet, DRIVER, "again", {"reference": reference})
    again.set_up_at(RPC_SECONDS * 10)
    assert faulty.blob_gets() == gets, "what the deleted pod had asked for was thrown away"
    again.tear_down_at()


def test_kubelet_that_restarts_while_a_pull_goes_on(kubelet, make, faulty, work):
    """Its connections break in the middle of a call; the next kubelet's call joins the pull."""
    kubelet.start()
    daemon = make([faulty.config()]).start()
    wait_registered(kubelet)
    made = slow_artifact(work, "restart", 3 * MIB)
    pod = Pod(kubelet, DRIVER, "pod", {"reference": faulty.add(made, "team/restart", "v1")})
    faulty.rate = MIB
    client = CsiClient(daemon.csi_socket)
    os.makedirs(os.path.dirname(pod.path), 0o750)
    call = client.NodePublishVolume.future(pod.request(client), timeout=60)
    wait_for(faulty.blob_gets, "the pull")
    client.close()
    assert call.exception(timeout=5)
    kubelet.restart()
    wait_registered(kubelet)
    pod.mount(RPC_SECONDS)
    assert_tree(pod.path, made.tree)
    fetched = faulty.seen("/blobs/")
    assert len({request.path for request in fetched}) == len(fetched), "a blob was asked for twice"
    pod.tear_down_at()
    assert pod.is_gone()
