# SPDX-License-Identifier: Apache-2.0
"""SELinux enforces, in qemu: Debian 13 with its kernel, policy, systemd and runc, and the installed unit in it.

Containers read volumes because the store has its label, and do not where it has not.  Needs `tools/install-deps soak` and, the
first time, Debian's archive.  The guest's side is lib/guest_selinux.py."""
import os
import re
import shutil

import pytest

from lib.artifacts import MIB, modelpack
from lib.check import need_programs, show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.debian import debian_root, run
from lib.image import runtime_packages
from lib.csi import SOURCE
from lib.qemu import Run, Unavailable, kernel, make_ext4
from lib.registry import Registry
from lib.sandbox import need

SUITE = "trixie"  # bookworm's policy has no containers
PACKAGES = ("systemd", "systemd-sysv", "selinux-policy-default", "selinux-utils", "policycoreutils",
            "policycoreutils-python-utils", "runc", "busybox-static", "docker-registry", "protobuf-compiler",
            "python3-grpcio", "python3-protobuf")
IMAGE_MIB, SECONDS_MAX = 1024, 300  # 65 s on two idle processors
LARGE = 16 * MIB
BOOT = "security=selinux selinux=1 enforcing=1 systemd.show_status=0"
# Nobody needs these here; each costs time.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
          "getty.target", "systemd-modules-load.service")
TEST_UNIT = """[Unit]
After=modelcached.service docker-registry.service
[Service]
Environment=MC_SRC=/opt/src LC_ALL=C.UTF-8
ExecStart=/usr/bin/python3 -B /opt/tests/lib/guest_selinux.py
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
[Install]
WantedBy=multi-user.target
"""
REGISTRY_CONFIG = """version: 0.1
storage: { filesystem: { rootdirectory: /var/lib/docker-registry } }
http: { addr: "127.0.0.1:5000" }
"""
LABEL, PLAIN = "system_u:object_r:container_ro_file_t:s0", "system_u:object_r:var_lib_t:s0"
CONTEXT = "context system_u:system_r:container_t:s0:c1,c2"
WRITES = ("cannot touch: Read-only file system", *(f"cannot {what}: Permission denied" for what in (
    "append", "chmod", "mkdir", "mv", "rm")))
FILE_CONTEXTS = "/etc/selinux/default/contexts/files/file_contexts"


def write(path, text, old=None):
    """`text` becomes the file, or takes the place of `old` in it."""
    if old is not None:
        with open(path, encoding="utf-8") as file:
            before = file.read()
        assert old in before
        text = before.replace(old, text)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def add_registry(root, folder, artifacts):
    registry = Registry(folder)
    try:
        for name, artifact in artifacts.items():
            registry.push(artifact, f"team/{name}", "v1")
    finally:
        registry.stop()
    shutil.copytree(os.path.join(folder, "storage"), os.path.join(root, "var/lib/docker-registry"), dirs_exist_ok=True)
    run("chroot", root, "chown", "-R", "docker-registry:", "/var/lib/docker-registry")
    write(os.path.join(root, "etc/docker/registry/config.yml"), REGISTRY_CONFIG)


def image_of(folder, artifacts):
    """A Debian with the installed release build, a registry and our test as a service, labelled as its policy says."""
    root, path = os.path.join(folder, "guest"), os.path.join(folder, "guest.img")
    debian_root(root, SUITE, [*PACKAGES, *runtime_packages()])
    run("cmake", "--install", os.path.dirname(os.environ["MC_RELEASE_BIN"]), env={**os.environ, "DESTDIR": root})
    write(os.path.join(root, "usr/local/etc/modelcached/config.yaml"),
          'registries: [{ host: "127.0.0.1:5000", plain_http: true }]\n', "registries: []\n")
    add_registry(root, os.path.join(folder, "registry"), artifacts)
    shutil.copytree(os.path.join(os.path.dirname(__file__), "lib"), os.path.join(root, "opt/tests/lib"))
    shutil.copytree(os.path.join(SOURCE, "proto"), os.path.join(root, "opt/src/proto"))
    for name in ("plugins", "plugins_registry", "pods"):
        os.makedirs(os.path.join(root, "var/lib/kubelet", name))
    write(os.path.join(root, "etc/systemd/system/mc-test.service"), TEST_UNIT)
    write(os.path.join(root, "etc/selinux/config"), "SELINUX=enforcing", "SELINUX=permissive")
    run("chroot", root, "systemctl", "mask", *MASKED)
    run("chroot", root, "systemctl", "enable", "modelcached", "docker-registry", "mc-test")
    run("chroot", root, "setfiles", "-F", FILE_CONTEXTS, "/")
    make_ext4(path, root, IMAGE_MIB)
    return path


@pytest.fixture(scope="module", name="artifacts")
def artifacts_fixture(module_work):
    return {"model": modelpack(module_work), "later": modelpack(module_work, tar_codec="tar+gzip", seed="later"),
            "large": modelpack(module_work, sizes=(LARGE,), tar_codec=None, seed="large")}


class Seen:
    """What the guest reported: seen["step"]."""

    def __init__(self, run_, artifacts):
        self.run, self.artifacts = run_, artifacts
        self.steps = {line["step"]: line for line in run_.lines}

    def __getitem__(self, step):
        line = self.steps.get(step, {})
        if "seen" not in line:
            pytest.fail(f"{step}: {line.get('error') or self.run.end}; it came to {list(self.steps)}; the console ends:\n"
                        f"{self.run.console[-2000:]}", pytrace=False)
        return line["seen"]

    def assert_reads(self, look, name):
        """The process in the container saw all of the artifact, byte for byte, and can write nothing."""
        assert look["code"] == 0, look["stderr"]
        tree = self.artifacts[name].tree
        want = {f"file {entry.sha256} {path}" for path, entry in tree.items() if entry.kind == "file"}
        want |= {f"link {entry.target} {path}" for path, entry in tree.items() if entry.kind == "symlink"}
        assert {line for line in look["lines"] if line.startswith(("file ", "link "))} == want
        assert set(look["lines"]) - want == {CONTEXT, "can see", *WRITES}
        assert not [line for line in look["denials"] if "{ read }" in line or "{ open }" in line or "{ getattr }" in line]

    @staticmethod
    def assert_denied(step):
        """The runtime cannot mount the volume; and where it does not have to, the container's process reads nothing."""
        assert step["look"]["code"] != 0 and step["look"]["stderr"].strip().endswith('permission denied"')
        through = step["through"]
        assert through["code"] == 0, through["stderr"]
        assert not [line for line in through["lines"] if line.startswith(("file ", "link "))]
        assert {CONTEXT, "cannot see: Permission denied"} <= set(through["lines"])


@pytest.fixture(scope="module", name="seen")
def seen_fixture(module_work, artifacts):
    need("qemu-system-x86_64", "docker-registry", "mke2fs", "cmake")
    need_programs(release=True)
    try:
        path = kernel(SUITE)
    except Unavailable as error:
        pytest.skip(str(error))
    image = image_of(module_work, artifacts)
    return Seen(Run(module_work, path, image, BOOT, SECONDS_MAX), artifacts)


def labelled(labels):
    """All content has the label, and nothing else of the store."""
    return set(labels["content"]) == {LABEL} and set(labels["rest"]) == {PLAIN}


def told(log):
    return [line for line in log if line.startswith("SELinux: ")]


def test_selinux_enforces_and_the_unit_runs_in_it(seen, show):
    boot = seen["boot"]
    show(f"Linux {boot['release']}, {boot['context']}: {seen.run.seconds:.0f} s; " + ", ".join(
        f"{name} {line['took']:.1f}" for name, line in seen.steps.items() if "took" in line))
    assert boot["enforcing"] == "1"
    assert boot["failed"] == ""
    assert boot["context"].startswith("system_u:system_r:"), "the policy does not know the process"
    assert all(feature["active"] for feature in boot["features"].values()), boot["features"]


def test_limits_and_capabilities_of_the_unit(seen):
    """As root of a whole machine; test_systemd.py has what its own host lets it have."""
    boot = seen["boot"]
    assert re.search(r"^Max locked memory +unlimited +unlimited ", boot["limits"], re.M)
    assert re.search(r"^Max open files +65536 +65536 ", boot["limits"], re.M)
    assert int(boot["capabilities"].split()[1], 16) == 0x11a001ef, "not those of CapabilityBoundingSet="


def test_store_is_labelled_at_the_first_start(seen):
    boot = seen["boot"]
    [line] = told(boot["log"])
    assert line == f"SELinux: {boot['labels']['content'][LABEL]} files of the store have the label {LABEL} now"
    assert labelled(boot["labels"])


def test_mounts_are_shared_as_systemd_left_them(seen):
    publish = seen["publish"]
    [options, [here]], [_, [other]] = (publish[name][publish["target"]] for name in ("here", "other"))
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    assert (here.split(":")[0], other.split(":")[0]) == ("shared", "master")
    assert here.split(":")[1] == other.split(":")[1]


@pytest.mark.parametrize("step", ["publish", "later"])
def test_what_is_pulled_afterwards_has_the_label(seen, step):
    """Raw layers, tars, directories, symlinks."""
    assert labelled(seen[step]["labels"])


def test_container_reads_the_volume_and_writes_nothing(seen):
    seen.assert_reads(seen["read"]["look"], "model")
    seen.assert_reads(seen["read"]["through"], "model")
    seen.assert_reads(seen["later"]["look"], "later")


def test_restart_and_kill_change_nothing(seen):
    restart = seen["restart"]
    assert not told(restart["log"]), "labelled again"
    assert labelled(restart["labels"])
    seen.assert_reads(restart["look"], "model")


def test_restorecon_takes_the_labels_and_the_next_start_gives_them_back(seen):
    relabelled = seen["relabelled"]
    assert set(relabelled["denied"]["labels"]["content"]) == {PLAIN}
    seen.assert_denied(relabelled["denied"])
    assert labelled(relabelled["labels"])
    assert len(told(relabelled["log"])) == 1
    seen.assert_reads(relabelled["look"], "model")


def test_partial_blob_that_lost_its_label_becomes_a_file_that_has_it(seen):
    assert len(seen["broken_off"]["partial"]) == 2
    resumed = seen["gone_on_with"]
    assert re.search(r" fetched, \d\S* MiB were here", resumed["done"]), resumed["done"]
    assert labelled(resumed["labels"])
    seen.assert_reads(resumed["look"], "large")


def test_policy_that_was_told_keeps_the_labels(seen):
    assert labelled(seen["told_the_policy"]["labels"])
    seen.assert_reads(seen["told_the_policy"]["look"], "model")


def test_without_the_label_containers_read_nothing(seen):
    plain = seen["without_labels"]
    assert set(plain["labels"]["content"]) == {PLAIN}
    seen.assert_denied(plain)


def test_store_that_had_no_label_gets_it(seen):
    again = seen["with_labels_again"]
    assert labelled(again["labels"]) and len(told(again["log"])) == 1
    seen.assert_reads(again["look"], "model")


def test_daemonset_labels_too(seen):
    """The daemon in a container, as privileged ones are: others read what it pulled, also when it is gone."""
    pod = seen["daemonset"]
    assert pod["context"] == "system_u:system_r:spc_t:s0"
    assert "SELinux: " in pod["log"] and labelled(pod["labels"])
    seen.assert_reads(pod["look"], "model")
    seen.assert_reads(pod["after"], "model")


def test_nothing_was_denied_to_daemon_and_workers(seen):
    assert seen["daemonset"]["denials"] == []


def test_it_is_selinux_that_denies(seen):
    """The same, when SELinux only logs: what was denied above is done."""
    lines = set(seen["permissive"]["look"]["lines"])
    assert {line.replace("cannot", "can").split(":")[0] for line in WRITES[1:]} < lines
    assert WRITES[0] in lines, "the mount is read-only in any case"
