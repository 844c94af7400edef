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
from lib.csi import CsiClient
from lib.daemon import to_yaml
from lib.deploy import SOURCE, overlay
from lib.image import all_of, entrypoint, instructions, make_image, runtime_packages
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
        file.write(overlay("containerd").config_text)
    code, text = in_image(image, *entrypoint(), "--check-config", "--config", "/tmp/config.yaml")
    assert code == 0, text


# Under containerd.

class Node:
    """What the kubelet and the node are for the DaemonSet's pod: its folders, beneath `folder`, and its calls."""

    def __init__(self, folder, image, registries):
        self.built, self.image, self.host = overlay("containerd"), image, os.path.join(folder, "node")
        self.containerd, self.name = Containerd(os.path.join(folder, "ctd")), "modelcached"
        for path in [*self.built.host_paths().values(), "/volumes/config"]:
            os.makedirs(self.host + path)
        self.pods = self.host + self.built.config["csi"]["kubelet_dir"]
        # As the root of a node is: a mount that is made in one name space is made in its peers.
        subprocess.run(["mount", "--bind", self.pods, self.pods], check=True)
        subprocess.run(["mount", "--make-shared", self.pods], check=True)
        with open(self.host + "/volumes/config/config.yaml", "w", encoding="utf-8") as file:
            file.write(self.built.config_text + to_yaml({"registries": registries}))
        self.csi = None

    def start(self):
        """The pod's container, and its startup probe."""
        arguments = [*entrypoint(), *self.built.container["args"]]
        self.containerd.run(self.name, self.image, arguments, *pod_options(self.built, self.host))
        probe = self.built.container["startupProbe"]["exec"]["command"]

        def started():
            assert self.containerd.running(self.name), self.containerd.log(self.name)
            return self.containerd.execute(self.name, *probe)[0] == 0

        wait_for(started, "the startup probe", 60, 0.2)
        self.csi = CsiClient(self.host + self.built.config["csi"]["endpoint"].removeprefix("unix://"))

    def end(self, signal):
        self.csi.close()
        self.csi = None
        self.containerd.end(self.name, signal)

    def target(self, name):
        """(path that the kubelet names, the same on this machine); the parent is made, as the kubelet does."""
        inside = f"{self.built.config['csi']['kubelet_dir']}/{name}/volumes/kubernetes.io~csi/model/mount"
        os.makedirs(os.path.dirname(self.host + inside), 0o750, exist_ok=True)
        return inside, self.host + inside

    def close(self):
        if self.csi:
            self.csi.close()
        self.containerd.close()


@pytest.fixture(name="node")
def node_fixture(work, image, registry):
    node = Node(work, image, [registry.config()])
    yield node
    node.close()


SUMS = "cd {} && find . -type f -print0 | sort -z | xargs -0 sha256sum"


def read_in_a_pod(node, target, name):
    """The digests of all files that a container finds, which has the volume as kubelet and runtime give it."""
    code, text = node.containerd.output(name, node.image, ["/bin/sh", "-c", SUMS.format("/model")], "--read-only",
                                        "--mount", f"type=bind,src={target},dst=/model,options=rbind:rslave:ro")
    assert code == 0, text
    return text


def test_a_volume_outlives_the_pods_of_the_daemonset(node, registry, work):
    artifact = modelpack(work)
    reference = registry.push(artifact, "team/model", "v1")
    node.start()
    inside, outside = node.target("pod-a")
    node.csi.publish("csi-a", inside, reference)
    assert_tree(outside, artifact.tree)  # mounted in the container, seen on the node
    sums = subprocess.run(["sh", "-c", SUMS.format(outside)], capture_output=True, text=True, check=True).stdout
    assert read_in_a_pod(node, outside, "reader") == sums and sums

    for signal in ("SIGTERM", "SIGKILL"):  # a rolling update, and a crash
        node.end(signal)
        assert_tree(outside, artifact.tree)
        assert read_in_a_pod(node, outside, f"reader-{signal.lower()}") == sums
        node.start()
        assert len(mounts_beneath(outside)) == 1
        node.csi.publish("csi-a", inside, reference)  # the kubelet asks again: it is there
        assert len(mounts_beneath(outside)) == 1

    node.csi.unpublish("csi-a", inside)  # made by the container before the last one
    assert not mounts_beneath(outside) and not os.path.exists(outside)


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
