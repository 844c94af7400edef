# SPDX-License-Identifier: Apache-2.0
# ctest: refused
"""kill -9 of the daemon and of the worker in the middle of a pull, at many moments: nothing wrong becomes visible, the
next pull succeeds, nothing stays behind."""
import os
import signal
import subprocess
import threading
import time

import grpc
import pytest

from lib.artifacts import MIB, Builder, modelpack, modelpack_annotations, small_tar
from lib.check import (assert_objects_good, assert_pulls, assert_store_good, publish, running_daemon, store_names,
                       wait_idle)
from lib.content import Random, assert_tree
from lib.daemon import program
from lib.faulty import FaultyRegistry
from lib.sandbox import wait_ended, wait_for

MOMENTS = 20
RATE = 10 * MIB  # of one blob's body: the largest takes a third of a second


def artifact_of(folder, seed):
    """Raw layers and a tar; a pull of about a third of a second at RATE."""
    out = Builder(folder)
    for i, size in enumerate((3 * MIB, 2 * MIB, MIB, 300_000, 10)):
        path, blob = f"w{i}.safetensors", Random(size, f"{seed}/{i}")
        out.raw(path, "application/vnd.cncf.model.weight.v1.raw", blob, modelpack_annotations(path, blob))
    tar = small_tar(out, "tar+zstd", "code", seed, 40)
    tar.add_file("code/big.bin", Random(2 * MIB, f"{seed}/tar"))
    out.tar("application/vnd.cncf.model.code.v1.tar+zstd", tar, {"org.cncf.model.filepath": "code"})
    return out.done("application/vnd.cncf.model.config.v1+json", {"seed": seed},
                    "application/vnd.cncf.model.manifest.v1+json")


class Scene:
    """A daemon with a volume that is mounted all the time, and a registry."""

    def __init__(self, folder, faulty, daemon):
        self.folder, self.faulty, self.daemon = folder, faulty, daemon
        self.kept = modelpack(folder, sizes=(100_000,), seed="kept")
        self.kept_target = publish(daemon, "kept", faulty.add(self.kept, "kept/model", "v1"))
        faulty.rate = RATE
        self.seconds = self.measure()

    def measure(self):
        """How long an undisturbed pull takes, commit included."""
        reference = self.faulty.add(artifact_of(self.folder, "measure"), "kill/measure", "v1")
        start = time.monotonic()
        assert self.daemon.ctl("pull", reference).code == 0
        return time.monotonic() - start

    def start_pull(self, reference):
        """cache-ctl pull in the background."""
        return subprocess.Popen([program("cache-ctl"), "--socket", self.daemon.control_socket, "pull", reference],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def assert_pulls(self, name, reference, artifact):
        """The next pull succeeds, at full speed."""
        self.faulty.rate = 0
        assert_pulls(self.daemon, name, reference, artifact.tree)
        self.faulty.rate = RATE

    def assert_kept_is_readable(self):
        assert_tree(self.kept_target, self.kept.tree)


@pytest.fixture(scope="module", name="scene")
def scene_fixture(module_work):
    folder = os.path.join(module_work, "faulty")
    os.makedirs(folder)
    faulty = FaultyRegistry(folder)
    try:
        with running_daemon(os.path.join(module_work, "d"), [faulty.config()]) as daemon:
            yield Scene(folder, faulty, daemon)
    finally:
        faulty.stop()


def moment(scene, number):
    """Seconds into the pull: spread over it, the commit at its end included."""
    return scene.seconds * (number + 0.5) / MOMENTS


def sleep_until(start, seconds):
    time.sleep(max(0.0, start + seconds - time.monotonic()))


@pytest.mark.parametrize("number", range(MOMENTS))
def test_kill_of_the_daemon(scene, number):
    daemon, artifact = scene.daemon, artifact_of(scene.folder, f"daemon{number}")
    reference = scene.faulty.add(artifact, f"kill/daemon{number}", "v1")
    with scene.start_pull(reference) as pulling:
        sleep_until(time.monotonic(), moment(scene, number))
        workers = daemon.worker_pids()
        daemon.kill9()
        output = pulling.communicate(timeout=20)[0]
    assert pulling.returncode in (0, 1, 3), output
    wait_ended(workers, "the worker's end", 10)
    assert_objects_good(daemon)  # what is visible while no daemon runs
    scene.assert_kept_is_readable()
    daemon.start()
    wait_idle(daemon)
    assert_store_good(daemon)
    scene.assert_pulls(f"after{number}", reference, artifact)
    wait_idle(daemon)
    scene.assert_kept_is_readable()
    assert daemon.ctl("rm", reference).code == 0


@pytest.mark.parametrize("number", range(MOMENTS))
def test_kill_of_the_worker(scene, number):
    daemon, artifact = scene.daemon, artifact_of(scene.folder, f"worker{number}")
    reference = scene.faulty.add(artifact, f"kill/worker{number}", "v1")
    wait_idle(daemon)
    before = store_names(daemon)[1]
    with scene.start_pull(reference) as pulling:
        sleep_until(time.monotonic(), moment(scene, number))
        killed = 0
        for pid in daemon.worker_pids():
            os.kill(pid, signal.SIGKILL)
            killed += 1
        output = pulling.communicate(timeout=30)[0]
    assert daemon.alive()
    assert pulling.returncode == 0 or killed, output
    assert pulling.returncode in (0, 1), output
    if pulling.returncode:
        assert "worker" in output or "killed" in output, f"the sentence does not tell: {output}"
        assert store_names(daemon)[1] == before, "a tree of a failed pull is visible"
    wait_idle(daemon)
    assert_objects_good(daemon)
    scene.assert_pulls(f"again{number}", reference, artifact)
    scene.assert_kept_is_readable()
    assert daemon.ctl("rm", reference).code == 0


def test_store_is_good_after_all(scene):
    assert_store_good(scene.daemon)
    scene.assert_kept_is_readable()
    scene.daemon.stop_clean()
    scene.daemon.start()


def test_pod_that_waits_gets_its_volume_after_the_daemon_was_killed(scene):
    """As the kubelet: it tries again until it works."""
    daemon, artifact = scene.daemon, artifact_of(scene.folder, "waiting")
    reference = scene.faulty.add(artifact, "kill/waiting", "v1")
    csi, target, codes = daemon.csi(), daemon.target("waiting"), []

    def first():
        try:
            csi.NodePublishVolume(csi.publish_request("waiting", target, reference), timeout=20)
            codes.append(None)
        except grpc.RpcError as error:
            codes.append(error.code())

    thread = threading.Thread(target=first)
    thread.start()
    time.sleep(scene.seconds / 2)
    os.kill(daemon.pid, signal.SIGKILL)
    daemon.process.popen.wait()
    thread.join()
    assert codes == [grpc.StatusCode.UNAVAILABLE]
    daemon.kill9()
    daemon.start()
    publish(daemon, "waiting", reference)
    assert_tree(target, artifact.tree)
    daemon.csi().unpublish("waiting", target)


def test_worker_that_crashes_fails_its_pull_only(scene):
    """Two pulls; the worker of one gets SIGSEGV."""
    daemon = scene.daemon
    one, two = (artifact_of(scene.folder, seed) for seed in ("crash-one", "crash-two"))
    references = [scene.faulty.add(one, "kill/one", "v1"), scene.faulty.add(two, "kill/two", "v1")]
    wait_idle(daemon)
    with scene.start_pull(references[0]) as first:
        workers = wait_for(daemon.worker_pids, "the first worker")
        with scene.start_pull(references[1]) as second:
            wait_for(lambda: len(daemon.worker_pids()) == 2 or second.poll() is not None, "the second worker")
            os.kill(workers[0], signal.SIGSEGV)
            outputs = [first.communicate(timeout=30)[0], second.communicate(timeout=30)[0]]
    assert second.returncode == 0, outputs
    assert first.returncode == 1, outputs
    scene.assert_pulls("one", references[0], one)
    assert_store_good(daemon)
