# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""Starts and ends of the daemon: what survives, what is refused, how fast it ends."""
import os
import signal
import socket
import stat
import subprocess
import threading
import time

import grpc
import pytest

from lib.artifacts import MIB, modelpack
from lib.check import assert_pulls, assert_store_good, mount_options, publish, wait_idle
from lib.content import assert_tree
from lib.daemon import Daemon, program
from lib.sandbox import mounts_beneath, wait_for

END_SECONDS_MAX = 5.0


@pytest.fixture(name="made")
def made_fixture(work):
    return modelpack(work)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_volumes_survive(make_daemon, faulty, made, how):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    targets = {name: publish(daemon, name, reference) for name in ("one", "two")}
    with open(os.path.join(targets["one"], "tokenizer.json"), "rb") as held:
        if how == "SIGTERM":
            daemon.stop_clean()
        else:
            daemon.kill9()
        for target in targets.values():
            assert_tree(target, made.tree)
        daemon.start()
        assert held.read() == next(b.read() for b in made.blobs if b.digest.endswith(
            made.tree["tokenizer.json"].sha256))
    for target in targets.values():
        assert_tree(target, made.tree)
    volumes = daemon.ctl_json("status")["volume_list"]
    assert {v["volume_id"]: (v["target"], v["mounted"]) for v in volumes} == {
        name: (target, True) for name, target in targets.items()}
    publish(daemon, "one", reference)  # idempotent after the restart too
    assert len(mounts_beneath(targets["one"])) == 1
    for name, target in targets.items():
        daemon.csi().unpublish(name, target)
        assert not mounts_beneath(target)
        assert not os.path.exists(target)
    assert daemon.ctl_json("status")["volumes"] == 0
    assert_store_good(daemon)


def test_a_mount_that_went_meanwhile_is_made_again(make_daemon, faulty, made):
    """As after a reboot: the record is there, the mount is not."""
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    target = publish(daemon, "pod", reference)
    daemon.stop_clean()
    subprocess.run(["umount", target], check=True)
    daemon.start()
    gets = faulty.blob_gets()
    publish(daemon, "pod", reference)
    assert_tree(target, made.tree)
    assert "ro" in mount_options(target)
    assert faulty.blob_gets() == gets
    daemon.csi().unpublish("pod", target)
    assert not os.path.exists(target)


def test_unpublish_after_the_mount_and_directory_went(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    target = publish(daemon, "pod", faulty.add(made, "team/model", "v1"))
    daemon.kill9()
    subprocess.run(["umount", target], check=True)
    os.rmdir(target)
    daemon.start()
    daemon.csi().unpublish("pod", target)
    daemon.csi().unpublish("pod", target)
    assert daemon.ctl_json("status")["volumes"] == 0


def test_cached_artifacts_need_no_registry_after_a_restart(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    assert daemon.ctl("pull", reference).code == 0
    daemon.restart()
    requests = len(faulty.requests)
    assert_pulls(daemon, "pod", reference, made.tree, pullPolicy="IfNotPresent")
    assert_pulls(daemon, "pod2", reference, made.tree, pullPolicy="Never")
    assert len(faulty.requests) == requests


def test_cache_ctl_mounts_survive(make_daemon, faulty, made, work):
    daemon, directory = make_daemon([faulty.config()]), os.path.join(work, "mnt")
    os.makedirs(directory)
    reference = faulty.add(made, "team/model", "v1")
    assert daemon.ctl("pull", reference).code == 0
    assert daemon.ctl("mount", reference, directory).code == 0
    daemon.kill9()
    daemon.start()
    assert_tree(directory, made.tree)
    assert daemon.ctl("rm", reference).code == 1, "an artifact that is mounted was removed"
    assert daemon.ctl("umount", directory).code == 0
    assert not mounts_beneath(directory)


def test_history_survives(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    assert daemon.ctl("pull", reference).code == 0
    daemon.restart()
    output = daemon.ctl("events").stdout
    assert "pull.done" in output and reference in output
    assert output.count("daemon.started") == 2


def test_stale_sockets_are_replaced(make_daemon):
    daemon = make_daemon(start=False)
    for path in (daemon.control_socket, daemon.csi_socket):
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(path)
    daemon.start()
    assert daemon.ctl("status").code == 0
    daemon.csi().Probe(daemon.csi().pb.ProbeRequest(), timeout=10)


def test_sockets_are_for_root(make_daemon):
    daemon = make_daemon()
    for path in (daemon.control_socket, daemon.csi_socket):
        st = os.stat(path)
        assert stat.S_ISSOCK(st.st_mode) and not st.st_mode & 0o007, f"{path}: {st.st_mode:o}"
        assert (st.st_uid, st.st_gid) == (0, 0)
    assert stat.S_IMODE(os.stat(daemon.control_socket).st_mode) == 0o660
    assert not os.stat(daemon.store).st_mode & 0o022


def test_a_file_in_the_place_of_a_socket_is_left_alone(make_daemon):
    daemon = make_daemon(start=False)
    with open(daemon.control_socket, "w", encoding="ascii") as file:
        file.write("precious")
    result = daemon.run_to_end()
    assert result.code == 1, result
    assert daemon.control_socket in result.stderr
    with open(daemon.control_socket, encoding="ascii") as file:
        assert file.read() == "precious"


def test_second_daemon_on_the_same_store_is_refused(make_daemon, faulty, made, work):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    second = Daemon(os.path.join(work, "second"), store=daemon.store)
    result = second.run_to_end()
    assert result.code == 1, result
    assert daemon.store in result.stderr and ("another" in result.stderr or "running" in result.stderr), result
    assert_pulls(daemon, "pod", reference, made.tree)


def test_second_daemon_on_the_same_socket_is_refused(make_daemon, work):
    """The living daemon keeps its socket."""
    daemon = make_daemon()
    second = Daemon(os.path.join(work, "second"), config={"control": {"socket": daemon.control_socket}})
    result = second.run_to_end()
    assert result.code == 1, result
    assert daemon.control_socket in result.stderr, result
    assert daemon.ctl("status").code == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_ends_cleanly_in_the_middle_of_a_pull(make_daemon, faulty, work, name):
    daemon, artifact = make_daemon([faulty.config()]), modelpack(work, sizes=(8 * MIB,))
    reference = faulty.add(artifact, "team/slow", "v1")
    faulty.rate = MIB
    csi, target, codes = daemon.csi(), daemon.target("pod"), []

    def wait_for_volume():
        try:
            csi.NodePublishVolume(csi.publish_request("pod", target, reference), timeout=30)
        except grpc.RpcError as error:
            codes.append(error.code())

    wait_idle(daemon)  # the probe at start is a worker too
    thread = threading.Thread(target=wait_for_volume)
    thread.start()
    with subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, "pull", reference],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as pulling:
        workers = wait_for(daemon.worker_pids, "the worker")
        time.sleep(0.5)
        start = time.monotonic()
        os.kill(daemon.pid, getattr(signal, name))
        code = daemon.process.popen.wait(30)
        seconds = time.monotonic() - start
        pulling.communicate(timeout=20)
    thread.join()
    assert code == 0, daemon.log()[-3000:]
    assert seconds < END_SECONDS_MAX
    assert pulling.returncode in (1, 3)
    assert codes in ([grpc.StatusCode.UNAVAILABLE], [grpc.StatusCode.CANCELLED]), codes
    assert not [pid for pid in workers if os.path.exists(f"/proc/{pid}")]
    assert not mounts_beneath(target)
    assert not os.path.exists(daemon.control_socket), "the socket was left"
    faulty.rate = 0
    daemon.stop()
    daemon.start()
    wait_idle(daemon)
    assert_pulls(daemon, "pod", reference, artifact.tree)
    assert_store_good(daemon)


def test_idle_daemon_ends_at_once(make_daemon):
    daemon = make_daemon()
    start = time.monotonic()
    daemon.stop_clean()
    assert time.monotonic() - start < 3


def test_sighup_rereads_registries_and_log(make_daemon, faulty, made):
    daemon = make_daemon([])
    reference = faulty.add(made, "team/model", "v1")
    assert daemon.ctl("pull", reference).code == 1
    daemon.config["registries"] = [faulty.config()]
    daemon.config["log"] = {"level": "debug", "format": "json"}
    daemon.write_config()
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: daemon.ctl("pull", reference).code == 0, "the new registries", 15, 0.2)
    assert_pulls(daemon, "pod", reference, made.tree)


def test_sighup_with_a_bad_config_keeps_the_old_one(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    with open(daemon.config_file, "w", encoding="ascii") as file:
        file.write("pull:\n  concurrent: zero\n")
    os.kill(daemon.pid, signal.SIGHUP)
    wait_for(lambda: f"{daemon.config_file}:2" in daemon.log(), "a word about the bad config", 10)
    assert daemon.alive()
    assert_pulls(daemon, "pod", faulty.add(made, "team/model", "v1"), made.tree)


def test_sighup_in_the_middle_of_a_pull_changes_nothing(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    faulty.rate = 3 * MIB
    wait_idle(daemon)
    with subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, "pull", reference],
                          stdout=subprocess.DEVNULL) as pulling:
        wait_for(daemon.worker_pids, "the worker")
        for _ in range(3):
            os.kill(daemon.pid, signal.SIGHUP)
            time.sleep(0.1)
        assert pulling.wait(60) == 0
    wait_idle(daemon)


def test_what_was_left_in_ingest_is_removed_at_start(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    daemon.stop_clean()
    folder = os.path.join(daemon.store, "ingest/orphan/deep")
    os.makedirs(folder)
    with open(os.path.join(folder, "partial"), "wb") as file:
        file.write(bytes(1000))
    os.makedirs(os.path.join(daemon.store, "trees/.new-orphan"))
    daemon.start()
    wait_idle(daemon)
    assert not os.listdir(os.path.join(daemon.store, "trees"))
    assert_pulls(daemon, "pod", faulty.add(made, "team/model", "v1"), made.tree)


def test_objects_and_trees_that_nobody_knows_are_removed_at_start(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    assert daemon.ctl("pull", faulty.add(made, "team/model", "v1")).code == 0
    daemon.stop_clean()
    stray = os.path.join(daemon.store, "objects/ab", "cd" * 31)
    os.makedirs(os.path.dirname(stray), exist_ok=True)
    with open(stray, "wb") as file:
        file.write(b"not what its name says")
    os.makedirs(os.path.join(daemon.store, "trees", "ee" * 32))
    daemon.start()
    assert not os.path.exists(stray)
    assert_store_good(daemon)


def test_rows_without_objects_are_dropped_and_pulled_again(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    assert daemon.ctl("pull", reference).code == 0
    daemon.stop_clean()
    entry = made.tree["tokenizer.json"]
    os.unlink(os.path.join(daemon.store, "objects", entry.sha256[:2], entry.sha256[2:]))
    daemon.start()
    assert_pulls(daemon, "pod", reference, made.tree)
    assert_store_good(daemon)


def test_a_lost_index_takes_nothing_from_running_pods(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    targets = {name: publish(daemon, name, reference) for name in ("one", "two")}
    other = modelpack(os.path.dirname(daemon.folder), seed=9)
    assert daemon.ctl("pull", faulty.add(other, "team/other", "v1")).code == 0
    daemon.stop_clean()
    for name in os.listdir(daemon.store):
        if name.startswith("index.db"):
            os.unlink(os.path.join(daemon.store, name))
    before = len(daemon.log())
    daemon.start()
    warnings = [line for line in daemon.log()[before:].splitlines()
                if '"level":"warn"' in line and "pull workers do without" not in line]  # what this kernel lacks
    assert len(warnings) == 1 and "does not know what 2 mounts show" in warnings[0], warnings
    for target in targets.values():
        assert_tree(target, made.tree)
    assert len(os.listdir(os.path.join(daemon.store, "trees"))) == 1, "what nobody shows stayed"
    publish(daemon, "one", reference)  # as the kubelet does
    assert len(mounts_beneath(targets["one"])) == 1
    for target in targets.values():
        assert_tree(target, made.tree)
    for name, target in targets.items():
        daemon.csi().unpublish(name, target)
        assert not os.path.exists(target)
    assert daemon.ctl_json("status")["volumes"] == 0
    assert_store_good(daemon)


def test_what_is_mounted_in_the_store_is_not_removed(make_daemon, work):
    """By hand: the daemon refuses to start and touches nothing, until it is unmounted."""
    daemon, precious = make_daemon(), os.path.join(work, "precious")
    daemon.stop_clean()
    os.makedirs(precious)
    with open(os.path.join(precious, "file"), "wb") as file:
        file.write(b"x")
    for name, deep in (("ingest", False), ("staging", False), ("partial", False), ("ingest/left/deep", True)):
        folder = os.path.join(daemon.store, name)
        os.makedirs(folder, exist_ok=True)
        subprocess.run(["mount", "--bind", precious, folder], check=True)
        result = daemon.run_to_end()
        assert result.code == 1 and "unmount it" in result.stderr, result
        assert deep or folder in result.stderr
        subprocess.run(["umount", folder], check=True)
        assert os.listdir(precious) == ["file"]
    daemon.start()
