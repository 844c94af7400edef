# SPDX-License-Identifier: Apache-2.0
"""The installed unit under a real systemd: it runs with all that the unit forbids, mounts where the host and containers see
it, and whatever systemd does with it, volumes stay."""
import contextlib
import ctypes
import os
import re
import shutil
import signal
import time

import pytest

from lib.artifacts import MIB, modelpack
from lib.check import need_programs
from lib.content import assert_tree
from lib.debian import debian_root, run
from lib.image import SUITE, runtime_packages
from lib.registry import Registry
from lib.sandbox import children, need, wait_for
from lib.systemd import Host, Service, mounts_at

PACKAGES = ("systemd", "procps")
LARGE = 16 * MIB
PODS = "/var/lib/kubelet/pods"
FLAGS = {"ro", "nosuid", "nodev", "noexec"}
POD = {"csi.storage.k8s.io/pod.name": "llama-0", "csi.storage.k8s.io/pod.namespace": "prod"}
# linux/capability.h
CAPABILITIES = {"cap_chown": 0, "cap_dac_override": 1, "cap_dac_read_search": 2, "cap_fowner": 3, "cap_kill": 5,
                "cap_setgid": 6, "cap_setuid": 7, "cap_setpcap": 8, "cap_sys_admin": 21, "cap_sys_nice": 23,
                "cap_sys_resource": 24, "cap_lease": 28}
IOPRIO_GET, IOPRIO_WHO_PROCESS, IOPRIO_CLASS_BE, IOPRIO_CLASS_IDLE = 252, 1, 2, 3  # x86-64, linux/ioprio.h
libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module", name="tls")
def tls_fixture(module_work):
    if not Registry.available(tls=True):
        pytest.skip("docker-registry or nginx is not installed")
    registry = Registry(os.path.join(module_work, "registry"), tls=True)
    yield registry
    registry.stop()


@pytest.fixture(scope="module", name="made")
def made_fixture(module_work):
    return modelpack(module_work)


@pytest.fixture(scope="module", name="reference")
def reference_fixture(tls, made):
    return tls.push(made, "team/model", "v1")


@pytest.fixture(scope="module", name="host")
def host_fixture(module_work, tls):
    """A Debian with `cmake --install` of the release build, that trusts the registry's CA."""
    need_programs(release=True)
    need("cmake")
    root = os.path.join(module_work, "root")
    debian_root(root, SUITE, [*PACKAGES, *runtime_packages()])
    run("cmake", "--install", os.path.dirname(os.environ["MC_RELEASE_BIN"]), env={**os.environ, "DESTDIR": root})
    with open(tls.ca_file, encoding="ascii") as ca, open(os.path.join(root, "etc/ssl/certs/ca-certificates.crt"), "a",
                                                         encoding="ascii") as trusted:
        trusted.write(ca.read())
    for name in ("plugins", "plugins_registry", "pods"):
        os.makedirs(os.path.join(root, "var/lib/kubelet", name))
    host = Host(root)
    try:
        yield host.boot()
    finally:
        host.close()


@pytest.fixture(name="service")
def service_fixture(host):
    """The unit, started."""
    service = Service(host)
    service.systemctl("enable", "--now")
    yield service
    if service.show()["ActiveState"] != "active":
        host.run("systemctl", "reset-failed")


@pytest.fixture(name="container")
def container_fixture(host):
    made = host.container()
    yield made
    made.stop(signal.SIGKILL)


class Volume:
    """A volume that was published after `container` had its name space."""

    def __init__(self, service, container, reference, name):
        self.service, self.container, self.name, self.target = service, container, name, service.target(name)
        with service.csi() as csi:
            csi.publish(name, self.target, reference, **POD)

    def assert_there(self, made):
        for pid in (self.service.host.pid, self.container.pid):
            assert_tree(f"/proc/{pid}/root{self.target}", made.tree)
            options, _ = mounts_at(pid, PODS)[self.target]
            assert FLAGS <= set(options)

    def unpublish(self):
        with self.service.csi() as csi:
            csi.unpublish(self.name, self.target)
        for pid in (self.service.host.pid, self.container.pid):
            assert self.target not in mounts_at(pid, PODS)
        assert not os.path.exists(self.service.host.at(self.target))


@pytest.fixture(name="volume")
def volume_fixture(request, service, container, reference):
    return Volume(service, container, reference, re.sub(r"\W+", "-", request.node.name))


def test_boot_is_without_failures(host):
    assert host.must("systemctl", "is-system-running") == "running\n"


def test_ready_is_told_and_the_watchdog_is_set(service):
    shown = service.show()
    assert (shown["Type"], shown["ActiveState"], shown["SubState"], shown["StatusText"]) == (
        "notify", "active", "running", "Serving")
    assert shown["WatchdogUSec"] == "2min" and shown["NRestarts"] == "0"
    assert "DropInPaths" not in shown


def test_unit_is_good_for_this_systemd(host):
    done = host.run("systemd-analyze", "verify", "--man=no", "modelcached.service")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def process_status(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def test_daemon_has_what_the_unit_gives_and_no_more(service):
    status, systemd = process_status(service.pid), process_status(service.host.pid)
    wanted = re.search(r"^CapabilityBoundingSet=(.*)$", service.unit(), re.M)[1].lower().split()
    mask = sum(1 << CAPABILITIES[name] for name in wanted)
    assert int(status["CapBnd"], 16) == mask & int(systemd["CapBnd"], 16)
    assert status["Seccomp"] == "2", "RestrictAddressFamilies= and the like are not there"
    assert os.readlink(f"/proc/{service.pid}/ns/mnt") == os.readlink(f"/proc/{service.host.pid}/ns/mnt")


def test_workers_confine_themselves_in_it(service):
    features = service.status()["features"]
    for name in ("capabilities", "uid", "no_new_privs", "seccomp", "landlock", "io_uring"):
        assert features[name]["active"], features[name]


def test_volume_is_seen_by_the_host_and_by_a_container_that_was_there(volume, made):
    volume.assert_there(made)
    [shared] = mounts_at(volume.service.host.pid, PODS)[volume.target][1]
    [slave] = mounts_at(volume.container.pid, PODS)[volume.target][1]
    assert shared.startswith("shared:") and slave.startswith("master:")
    assert shared.split(":")[1] == slave.split(":")[1]
    volume.unpublish()


@pytest.mark.parametrize("how", ["restart", "SIGKILL"])
def test_volume_outlives_the_daemon(volume, made, how):
    service = volume.service
    before = service.show()
    if how == "restart":
        service.systemctl("restart")
    else:
        os.kill(service.pid, signal.SIGKILL)
        volume.assert_there(made)
        service.active_again({"NRestarts": str(int(before["NRestarts"]) + 1)})
    after = service.show()
    assert after["MainPID"] not in (before["MainPID"], "0")
    assert int(after["NRestarts"]) == (int(before["NRestarts"]) + 1 if how == "SIGKILL" else 0)
    volume.assert_there(made)
    assert [(v["target"], v["mounted"]) for v in service.status()["volume_list"]] == [(volume.target, True)]
    volume.unpublish()


def test_stop_leaves_volumes_and_no_process(volume, made):
    service = volume.service
    service.systemctl("stop")
    shown = service.show()
    assert (shown["ActiveState"], shown["Result"], shown["ExecMainStatus"]) == ("inactive", "success", "0")
    assert not shown.get("ControlGroup")
    volume.assert_there(made)
    service.systemctl("start")
    volume.assert_there(made)
    volume.unpublish()


def test_pull_that_a_restart_breaks_off_is_gone_on_with(service, tls, module_work):
    """systemd ends the worker with the daemon."""
    reference = tls.push(modelpack(module_work, sizes=(LARGE,), tar_codec=None, seed="large"), "team/large", "v1")
    with service.changed_config("background_bandwidth: 0 ", f"background_bandwidth: {LARGE // 12} "):
        service.systemctl("reload")
        pulling = service.host.start("cache-ctl", "pull", "--background", reference)
        wait_for(lambda: pulling.check_alive() or any(pull["bytes_done"] > LARGE // 4 for pull in service.status()["pulls"]),
                 "a quarter of the pull")
    service.systemctl("restart")
    assert pulling.popen.wait(20) == 1
    service.host.must("cache-ctl", "pull", reference)
    [done] = [event["text"] for event in service.events() if (event["type"], event["reference"]) == ("pull.done", reference)]
    assert re.search(r": (\d|1[0-4])(\.\d)? MiB fetched, ([2-9]|1\d)(\.\d)? MiB were here", done), done


def priorities(pid):
    """(io class, niceness) of the threads of a process."""
    return {(libc.syscall(IOPRIO_GET, IOPRIO_WHO_PROCESS, task) >> 13, os.getpriority(os.PRIO_PROCESS, task))
            for task in map(int, os.listdir(f"/proc/{pid}/task"))}


def test_background_pull_is_lifted_when_somebody_waits_for_it(service, tls, module_work):
    """The unit leaves the daemon what that takes."""
    reference = tls.push(modelpack(module_work, sizes=(LARGE,), tar_codec=None, seed="lifted"), "team/lifted", "v1")
    niceness = os.getpriority(os.PRIO_PROCESS, service.pid)
    with service.changed_config("background_bandwidth: 0 ", f"background_bandwidth: {LARGE // 12} "):
        service.systemctl("reload")
        pulls = [service.host.start("cache-ctl", "pull", "--background", reference)]
        wait_for(lambda: pulls[0].check_alive() or any(pull["bytes_done"] for pull in service.status()["pulls"]), "bytes of the pull")
        [worker] = children(service.pid)
        assert priorities(worker) == {(IOPRIO_CLASS_IDLE, min(niceness + 10, 19))}
        os.kill(worker, signal.SIGSTOP)  # else the rest comes too quickly to look
        pulls.append(service.host.start("cache-ctl", "pull", reference))
        try:
            wait_for(lambda: priorities(worker) == {(IOPRIO_CLASS_BE, niceness)}, "a worker that is as any other")
        finally:
            os.kill(worker, signal.SIGCONT)
        assert [pull.popen.wait(20) for pull in pulls] == [0, 0]
    service.systemctl("reload")


@contextlib.contextmanager
def watchdog(service, seconds):
    """The unit with another watchdog, started anew."""
    drop_in = service.host.at("/run/systemd/system/modelcached.service.d")
    os.makedirs(drop_in, exist_ok=True)
    with open(os.path.join(drop_in, "watchdog.conf"), "w", encoding="ascii") as file:
        file.write(f"[Service]\nWatchdogSec={seconds}s\n")
    try:
        service.host.must("systemctl", "daemon-reload")
        service.systemctl("restart")
        yield
    finally:
        shutil.rmtree(drop_in)
        service.host.must("systemctl", "daemon-reload")
        service.systemctl("restart")


def test_watchdog_starts_a_daemon_that_hangs_again(volume, made):
    service = volume.service
    with watchdog(service, 8):
        pid = service.pid
        time.sleep(9)
        assert service.pid == pid, "a daemon that answers was ended"
        os.kill(pid, signal.SIGSTOP)
        service.active_again({"Result": "watchdog"})
    volume.assert_there(made)
    volume.unpublish()


def test_configuration_that_is_wrong_stays_down(service):
    with service.changed_config("concurrent: 4 ", "concurrent: four "):
        assert service.host.run("systemctl", "restart", "modelcached").returncode != 0
        wait_for(lambda: service.show()["ActiveState"] == "failed", "the end of the tries")
        shown = service.show()
        time.sleep(float(shown["RestartUSec"].removesuffix("s")) + 1)
        shown = service.show()
        assert (shown["ActiveState"], shown["NRestarts"], shown["ExecMainStatus"]) == ("failed", "0", "2")
        assert any("pull.concurrent" in line["MESSAGE"] for line in service.journal())
    service.systemctl("start")


def test_journal_has_the_fields_of_a_pull_of_both_processes(service, tls, module_work):
    reference, target = tls.push(modelpack(module_work, seed="journal"), "team/journal", "v1"), service.target("journal")
    with service.changed_config("level: info", "level: debug"):
        service.systemctl("reload")
        wait_for(lambda: service.show()["ActiveState"] == "active", "the end of the reload")
        with service.csi() as csi:
            csi.publish("journal", target, reference, **POD)
            csi.unpublish("journal", target)
    service.systemctl("reload")
    [pull] = {event["pull"] for event in service.events("--pod", "prod/llama-0")
              if (event["type"], event["reference"]) == ("pull.done", reference)}
    lines = service.journal(f"PULL={pull}")
    assert any("POD" in line and (line["POD"], line["NAMESPACE"], line["VOLUME"]) == ("llama-0", "prod", "journal")
               for line in lines), lines
    worker = [line for line in lines if "-> done" in line["MESSAGE"]]
    assert worker and all(line["REFERENCE"] == reference and line["PRIORITY"] == "7" for line in worker), lines
    assert {line["_PID"] for line in lines} == {service.show()["MainPID"]}, "a worker writes to the journal itself"


def test_unit_starts_with_the_machine_and_volumes_come_back(volume, made, reference):
    """The last: the machine is switched off in it.  The container goes as well."""
    host, service = volume.service.host, volume.service
    volume.container.stop(signal.SIGKILL)
    host.power_off()
    host.boot()
    wait_for(lambda: service.show()["ActiveState"] == "active", "the unit")
    assert host.must("systemctl", "is-system-running") == "running\n"
    assert mounts_at(host.pid, PODS) == {}
    again = Volume(service, host.container(), reference, volume.name)
    again.assert_there(made)
    again.unpublish()
    again.container.stop(signal.SIGKILL)
