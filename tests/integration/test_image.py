# SPDX-License-Identifier: Apache-2.0
"""The image of the DaemonSet: it has what its programs need, and under containerd, with what the DaemonSet gives it, it
publishes volumes that the node and other containers see, whatever becomes of its own container."""
import os
import re
import subprocess

import pytest

from lib.artifacts import modelpack
from lib.check import need_programs
from lib.container import Containerd, pod_options
from lib.content import assert_tree
from lib.daemon import to_yaml
from lib.deploy import SOURCE, base
from lib.image import all_of, entrypoint, instructions, make_image, runtime_packages
from lib.kubelet import Kubelet, Pod
from lib.sandbox import mounts_beneath, need, wait_for

# Packages of every Debian image, which the programs use too.
OF_THE_BASE = {"libc6"}
# Wanted without being linked.
OTHERS = {"ca-certificates"}
PROGRAMS = ["/usr/bin/modelcached", "/usr/bin/cache-ctl", "/usr/libexec/modelcached/modelcached-pull"]


def packages_of(libraries):
    """The Debian packages that hold the libraries, where the programs of this machine find them."""
    cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    found = set()
    for library in libraries:
        path = os.path.realpath(re.search(rf"^\s*{re.escape(library)} .* => (\S+)$", cache, re.M)[1])
        for name in (path, path.removeprefix("/usr")):
            done = subprocess.run(["dpkg-query", "-S", name], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                found.add(done.stdout.split(":")[0])
                break
        else:
            raise AssertionError(f"no package holds {path}")
    return found


def test_installed_packages_are_those_that_the_programs_are_linked_with():
    need_programs(release=True)
    need("readelf", "dpkg-query")
    libraries = set()
    for program in PROGRAMS:
        path = os.path.join(os.environ["MC_RELEASE_BIN"], os.path.basename(program))
        dynamic = subprocess.run(["readelf", "-d", path], capture_output=True, text=True, check=True).stdout
        libraries |= set(re.findall(r"\(NEEDED\).*\[(\S+)\]", dynamic))
    assert set(runtime_packages()) == packages_of(libraries) - OF_THE_BASE | OTHERS
    assert runtime_packages() == sorted(runtime_packages())


def test_nothing_of_the_build_is_kept():
    kept = instructions()[1]
    assert all(line.startswith("--from=build /out/usr/") for line in all_of(kept, "COPY"))
    assert entrypoint() == [PROGRAMS[0]]


def test_context_holds_what_is_copied():
    with open(os.path.join(SOURCE, ".containerignore"), encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines() if line and not line.startswith("#")]
    copied = {source for line in all_of(instructions()[0], "COPY") for source in line.split()[:-1]}
    assert lines[0] == "*" and {line.removeprefix("!") for line in lines[1:]} == copied


@pytest.fixture(scope="module", name="image")
def image_fixture(module_work):
    need_programs()
    return make_image(os.path.join(module_work, "image"))


def in_image(image, *argv):
    done = subprocess.run(["chroot", image, *argv], capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_library_is_missing(image, program):
    code, text = in_image(image, "ldd", program)
    assert code == 0 and "not found" not in text, text
    assert not os.path.exists(image + "/src")


def test_registries_can_be_proved(image):
    assert os.path.getsize(image + "/etc/ssl/certs/ca-certificates.crt") > 100000


def test_configuration_of_the_daemonset_is_right_for_the_image(image):
    with open(image + "/tmp/config.yaml", "w", encoding="utf-8") as file:
        file.write(base().config_text)
    code, text = in_image(image, *entrypoint(), "--check-config", "--config", "/tmp/config.yaml")
    assert code == 0, text


# Under containerd.

class Node:
    """What the kubelet and the node are for the DaemonSet's pod: its folders, beneath `folder`, and its calls."""

    def __init__(self, folder, image, registries):
        self.built, self.image, self.host = base(), image, os.path.join(folder, "node")
        self.containerd, self.name = Containerd(os.path.join(folder, "ctd")), "modelcached"
        for volume in self.built.pod["volumes"]:
            if volume.get("hostPath", {}).get("type") == "DirectoryOrCreate":
                os.makedirs(self.host + volume["hostPath"]["path"])
        os.makedirs(self.host + "/volumes/config")
        csi = self.built.config["csi"]
        self.pods = self.host + csi["kubelet_dir"]
        self.kubelet, self.driver = Kubelet(os.path.dirname(csi["kubelet_dir"]), self.host), csi["driver"]
        self.kubelet.start()  # makes those of type Directory
        # As the root of a node is: a mount that is made in one name space is made in its peers.
        subprocess.run(["mount", "--bind", self.pods, self.pods], check=True)
        subprocess.run(["mount", "--make-shared", self.pods], check=True)
        with open(self.host + "/volumes/config/config.yaml", "w", encoding="utf-8") as file:
            file.write(self.built.config_text + to_yaml({"registries": registries}))

    def start(self):
        """The pod's container, its startup probe, and its registration."""
        arguments = [*entrypoint(), *self.built.container["args"]]
        self.containerd.run(self.name, self.image, arguments, *pod_options(self.built, self.host))
        probe = self.built.container["startupProbe"]["exec"]["command"]

        def started():
            assert self.containerd.running(self.name), self.containerd.log(self.name)
            return self.containerd.execute(self.name, *probe)[0] == 0

        wait_for(started, "the startup probe", 60, 0.2)
        wait_for(lambda: self.driver in self.kubelet.drivers, f"the registration: {self.kubelet.happened}", 30)

    def end(self, signal):
        self.containerd.end(self.name, signal)
        wait_for(lambda: self.driver not in self.kubelet.drivers, "the end of the registration", 30)

    def close(self):
        self.kubelet.stop()
        self.containerd.close()


@pytest.fixture(name="node")
def node_fixture(work, image, registry):
    node = Node(work, image, [registry.config()])
    yield node
    node.close()


SUMS = "cd {} && find . -type f -print0 | sort -z | xargs -0 sha256sum"


def read_in_a_pod(node, pod, name):
    """The digests of all files that a container finds, which has the volume as kubelet and runtime give it, and whose
    program does not run as root."""
    nobody = ["/usr/sbin/chroot", "--userspec=65534:65534", "/", "/bin/sh", "-c", SUMS.format("/model")]
    code, text = node.containerd.output(name, node.image, nobody, "--read-only", "--mount",
                                        f"type=bind,src={pod.path},dst=/model,options=rbind:rslave:ro")
    assert code == 0, text
    return text


def test_a_volume_outlives_the_pods_of_the_daemonset(node, registry, work):
    artifact = modelpack(work)
    pod = Pod(node.kubelet, node.driver, "pod-a", {"reference": registry.push(artifact, "team/model", "v1")})
    node.start()
    pod.mount()
    assert_tree(pod.path, artifact.tree)  # mounted in the container, seen on the node
    sums = subprocess.run(["sh", "-c", SUMS.format(pod.path)], capture_output=True, text=True, check=True).stdout
    assert sums.count("\n") == sum(entry.kind == "file" for entry in artifact.tree.values())
    assert read_in_a_pod(node, pod, "reader") == sums

    for signal in ("SIGTERM", "SIGKILL"):  # a rolling update, and a crash
        node.end(signal)
        assert_tree(pod.path, artifact.tree)
        assert read_in_a_pod(node, pod, f"reader-{signal.lower()}") == sums
        node.start()
        assert len(mounts_beneath(pod.path)) == 1
        pod.set_up_at()  # the kubelet asks again: it is there
        assert len(mounts_beneath(pod.path)) == 1
        assert not pod.stats().volume_condition.abnormal

    pod.tear_down_at()  # made by the container before the last one
    assert not mounts_beneath(pod.path) and pod.is_gone()


def test_the_root_of_the_image_is_not_written_to(node):
    """With a read-only root it starts, registers, and its worker confines itself as on the node."""
    node.start()
    socket = f"{node.host}{node.built.config['csi']['registration_dir']}/{node.built.config['csi']['driver']}-reg.sock"
    assert os.path.exists(socket)

    def status():
        code, text = node.containerd.execute(node.name, "/usr/bin/cache-ctl", "status")
        assert code == 0 and "test-node" in text
        return text if "no_new_privs" in text else None  # the probe of a worker takes a moment

    text = wait_for(status, "what confines the workers", 60, 0.2)
    for feature in ("capabilities", "uid", "no_new_privs", "seccomp"):
        assert re.search(rf"^\s+{feature} +yes", text, re.M), text
