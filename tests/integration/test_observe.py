# SPDX-License-Identifier: Apache-2.0
"""What an operator watches: metrics that move, health, one id from the pod to the lines of the log."""
import concurrent.futures
import contextlib
import glob
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import time

import grpc
import pytest

from lib.artifacts import MIB, cnai, modelpack
from lib.csi import GrpcClient, error_of
from lib.deploy import documents, markdown_blocks, read
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.metrics import fetch, scrape
from lib.sandbox import memory_bytes, pick_port, wait_for

PUBLISH = 'modelcached_csi_requests_total{code="%s",method="NodePublishVolume"}'
BYTES = 'modelcached_pull_bytes_total{source="%s"}'
REQUESTS = 'modelcached_artifact_requests_total{result="%s"}'
PUBLISHED = 'modelcached_volume_publish_duration_seconds_count{source="%s"}'


class Watched:
    """A daemon whose metrics are served."""

    def __init__(self, make_daemon, faulty, **options):
        self.address = f"127.0.0.1:{pick_port()}"
        config = {"metrics": {"address": self.address}, **options.pop("config", {})}
        self.daemon = make_daemon([faulty.config()], config=config, **options)

    def scrape(self):
        return scrape(self.address)

    def wait(self, series, value, seconds=20):
        """Of what the store is asked for, a scrape shows what was at the one before."""
        wait_for(lambda: self.scrape().get(series) == value, f"{series} {value}", seconds, 0.1)

    def get(self, path):
        return fetch(self.address, path)[::2]

    def publish(self, volume_id, reference, pod=None, **options):
        if pod:
            namespace, name = pod.split("/")
            options |= {"csi.storage.k8s.io/pod.namespace": namespace, "csi.storage.k8s.io/pod.name": name}
        return self.daemon.csi().publish(volume_id, self.daemon.target(volume_id), reference, **options)

    def events(self, *arguments):
        result = self.daemon.ctl("--output", "json", "events", "--last", "1000", *arguments)
        assert result.code == 0, result
        return [json.loads(line) for line in result.stdout.splitlines()]

    def log_lines(self, **fields):
        lines = [json.loads(line) for line in self.daemon.log().splitlines() if line.startswith("{")]
        return [line for line in lines if all(line.get(key) == value for key, value in fields.items())]


@pytest.fixture(name="watched")
def watched_fixture(make_daemon, faulty):
    return Watched(make_daemon, faulty)


class Moved:
    """with Moved(watched) as moved: …; moved(series) is by how much it rose."""

    def __init__(self, watched):
        self.watched = watched

    def __enter__(self):
        self.before = self.watched.scrape()
        return self

    def __exit__(self, *_):
        self.after = self.watched.scrape()

    def __call__(self, series):
        return self.after[series] - self.before.get(series, 0)


# Metrics.

def test_pulls_and_publishes_move_the_values(watched, faulty, work):
    made = modelpack(work)
    reference, size = faulty.add(made, "team/model", "v1"), sum(layer["size"] for layer in made.layers)
    with Moved(watched) as moved:
        watched.publish("v1", reference)
    assert moved(PUBLISH % "OK") == moved(REQUESTS % "pull") == moved(PUBLISHED % "pull") == 1
    assert moved(BYTES % "registry") == size and moved(BYTES % "store") == 0
    assert moved('modelcached_pulls_total{code="OK"}') == moved("modelcached_pull_duration_seconds_count") == 1
    assert moved("modelcached_pull_workers_started_total") == 1
    assert 0 < moved("modelcached_pull_duration_seconds_sum") < 60
    with Moved(watched) as moved:
        watched.publish("v2", reference)
    assert moved(REQUESTS % "hit") == moved(PUBLISHED % "store") == 1
    assert moved(BYTES % "registry") == moved(REQUESTS % "pull") == 0
    watched.wait("modelcached_volumes", 2)
    watched.wait('modelcached_store_artifacts{state="complete"}', 1)
    values = watched.scrape()
    assert 0 < values["modelcached_store_objects"] <= len(made.tree)
    assert values["modelcached_store_bytes"] > size / 2
    assert 0 < values["modelcached_store_filesystem_free_bytes"] < values["modelcached_store_filesystem_bytes"]
    assert values["modelcached_kubelet_registered"] == 1  # registration is off
    assert abs(values["process_start_time_seconds"] - time.time()) < 120
    assert values["process_open_fds"] > 5 and values["process_resident_memory_bytes"] > MIB


def test_failures_move_the_values(watched, faulty, work):
    made = modelpack(work)
    reference = faulty.add(made, "team/model", "v1")
    with Moved(watched) as moved:
        error_of(watched.publish, "none", reference.replace(":v1", ":none"))
        error_of(watched.publish, "never", reference, pullPolicy="Never")
        error_of(watched.publish, "wrong", reference, pullPolicy="Sometimes")
    assert moved(PUBLISH % "NOT_FOUND") == 2 and moved(PUBLISH % "INVALID_ARGUMENT") == 1
    assert moved('modelcached_pulls_total{code="NOT_FOUND"}') == moved(REQUESTS % "pull") == 2  # Never asks whether it may
    faulty.fault(rf"/blobs/{made.layers[0]['digest']}", "corrupt")
    with Moved(watched) as moved:
        code, _ = error_of(watched.publish, "damaged", reference)
    assert code == grpc.StatusCode.DATA_LOSS
    assert moved(PUBLISH % "DATA_LOSS") == moved('modelcached_pulls_total{code="DATA_LOSS"}') == 1
    assert moved('modelcached_verify_failures_total{where="pull"}') == 1
    faulty.clear_faults()
    with Moved(watched) as moved:
        csi = watched.daemon.csi()
        error_of(csi.channel.unary_unary("/csi.v1.Node/NodeStageVolume"), b"", timeout=5)
    assert moved('modelcached_csi_requests_total{code="UNIMPLEMENTED",method="other"}') == 1


def test_a_killed_worker_and_what_an_earlier_try_left_are_counted(watched, faulty, work):
    made = modelpack(work, sizes=(24 * MIB,))
    reference = faulty.add(made, "team/model", "v1")
    faulty.fault(r"/blobs/", "slow", rate=8 * MIB)
    with Moved(watched) as moved, concurrent.futures.ThreadPoolExecutor(1) as pool:
        pulled = pool.submit(watched.daemon.ctl, "pull", reference)
        wait_for(lambda: watched.scrape()[BYTES % "registry"] > 10 * MIB, "bytes while they come")
        assert watched.scrape()['modelcached_pulls_in_progress{state="fetching"}'] == 1
        os.kill(watched.daemon.worker_pids()[0], signal.SIGKILL)
        assert pulled.result().code == 1
    assert moved('modelcached_pull_worker_failures_total{reason="crashed"}') == 1
    assert moved('modelcached_pulls_total{code="INTERNAL"}') == 1
    faulty.clear_faults()
    with Moved(watched) as moved:
        assert watched.daemon.ctl("pull", reference).code == 0
    size = sum(layer["size"] for layer in made.layers)
    assert moved(BYTES % "resumed") > 0
    assert moved(BYTES % "resumed") + moved(BYTES % "registry") + moved(BYTES % "store") == size
    assert watched.scrape()['modelcached_pulls_in_progress{state="fetching"}'] == 0


def test_deduplication_removal_and_damage_are_counted(watched, faulty, work):
    made = modelpack(work)
    reference = faulty.add(made, "team/model", "v1")
    again, elsewhere = faulty.add(made, "team/model", "v2"), faulty.add(made, "other/model", "v1")
    assert watched.daemon.ctl("pull", reference).code == 0
    with Moved(watched) as moved:  # the registry is asked what v2 is; all of it is there
        assert watched.daemon.ctl("pull", again).code == 0
    assert moved(BYTES % "registry") == 0
    with Moved(watched) as moved:  # another repository brings its own layers; files are stored once
        assert watched.daemon.ctl("pull", elsewhere).code == 0
    assert moved(BYTES % "registry") > 0
    wait_for(lambda: watched.scrape()["modelcached_store_deduplicated_bytes_total"] > MIB, "deduplicated bytes")
    objects = sorted(glob.glob(f"{watched.daemon.store}/objects/*/*"), key=os.path.getsize)
    with open(objects[-1], "r+b") as file:
        file.write(b"damage")
    with Moved(watched) as moved:
        assert watched.daemon.ctl("verify").code == 7
    assert moved('modelcached_verify_failures_total{where="store"}') >= 1
    watched.wait('modelcached_store_artifacts{state="incomplete"}', 1)
    with Moved(watched) as moved:
        for one in (reference, again, elsewhere):
            assert watched.daemon.ctl("rm", one).code == 0
    assert moved('modelcached_store_removed_bytes_total{cause="request"}') > 0


def test_no_label_holds_what_somebody_outside_names(watched, faulty, work):
    """Many references, pods and volumes: the same series as before, and none of the names among them."""
    made = modelpack(work, sizes=(1000,))
    watched.publish("first", faulty.add(made, "team/secret-model", "v0"), pod="secret-ns/secret-pod-0")
    before = set(watched.scrape())
    for i in range(1, 12):
        watched.publish(f"v{i}", faulty.add(made, f"team/secret-model{i}", f"v{i}"), pod=f"secret-ns/secret-pod-{i}")
    status, text = watched.get("/metrics")
    assert status == 200 and set(watched.scrape()) == before and len(before) < 400
    for name in ("secret", "team", faulty.host, work):
        assert name not in text


def test_the_page_names_metrics_that_are_there(watched):
    """Also in its queries and alerts; labels of codes appear when they happen."""
    shown = {series.split("{")[0] for series in watched.scrape()}
    named = set(re.findall(r"\b(?:modelcached|process)_[a-z_]*[a-z]\b", read("docs/metrics.md")))
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    assert named <= shown | families and families <= named
    assert [block for block in markdown_blocks("docs/metrics.md") if documents(block)[0]["groups"]]


def test_paths_and_methods(watched):
    assert watched.get("/healthz") == (200, "ok\n")
    assert watched.get("/readyz") == (200, "ready\n")
    status, text = watched.get("/")
    assert status == 404 and "/metrics" in text
    assert watched.get("/metrics/../etc/passwd")[0] == 404
    assert fetch(watched.address, "/metrics", method="DELETE")[0] == 405
    status, _, text = fetch(watched.address, "/metrics", method="HEAD")
    assert (status, text) == (200, "")


def test_metrics_that_are_off(make_daemon):
    daemon = make_daemon()
    assert daemon.ctl_json("status")["metrics"] == {"address": None, "trouble": None}
    assert "\nmetrics     off\n" in daemon.ctl("status").stdout
    assert "metrics at" not in daemon.log()


def test_an_address_that_is_taken_costs_the_metrics_alone(make_daemon, faulty, work):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = make_daemon([faulty.config()], config={"metrics": {"address": address}})
        daemon.csi().publish("v", daemon.target("v"), faulty.add(modelpack(work, sizes=(10,)), "team/model", "v1"))
        status = daemon.ctl_json("status")
        assert status["ready"] and "Address already in use" in status["metrics"]["trouble"]
        assert f"cannot listen on {address}" in daemon.ctl("status").stdout
        assert daemon.log().count("no metrics (metrics.address)") == 1
    wait_for(lambda: daemon.ctl_json("status")["metrics"]["trouble"] is None, "the address", 30, 0.5)
    assert scrape(address)


# Health.

def test_ready_is_what_the_kubelet_says(make_daemon, faulty, work):
    folder = os.path.join(work, "registry")
    os.mkdir(folder)
    watched = Watched(make_daemon, faulty, config={"csi": {"registration_dir": folder}})
    daemon = watched.daemon

    def said(ready, text, state):
        status, body = watched.get("/readyz")
        assert (status == 200) is ready and text in body
        assert watched.get("/healthz") == (200, "ok\n")
        result = daemon.ctl("health", "--ready")
        assert result.code == (0 if ready else 1) and text in result.stdout, result
        assert daemon.ctl("health").code == 0
        assert daemon.ctl_json("health") == {"ready": ready, "not_ready": None if ready else body.strip()}
        status = daemon.ctl_json("status")
        assert status["registration"]["state"] == state and status["ready"] is ready
        assert f"\nkubelet     registration {state}" in daemon.ctl("status").stdout
        assert ("\nNOT READY   " in daemon.ctl("status").stdout) is not ready
        assert watched.scrape()["modelcached_kubelet_registered"] == ready

    said(False, "waiting for the kubelet to register the driver: the kubelet has not asked yet", "waiting")
    [name] = os.listdir(folder)
    with GrpcClient("registration", os.path.join(folder, name)) as kubelet:
        kubelet.GetInfo(kubelet.pb.InfoRequest(), timeout=5)
        said(False, "the kubelet has asked and not decided yet", "waiting")
        kubelet.NotifyRegistrationStatus(
            kubelet.pb.RegistrationStatus(plugin_registered=False, error="node \"n\" not found"), timeout=5)
        said(False, "the kubelet did not register the driver: node \"n\" not found", "refused")
        kubelet.NotifyRegistrationStatus(kubelet.pb.RegistrationStatus(plugin_registered=True), timeout=5)
        said(True, "ready", "registered")
    assert daemon.ctl_json("status")["registration"]["detail"] is None


def test_not_ready_without_the_kubelets_folder(make_daemon, faulty, work):
    folder = os.path.join(work, "plugins")
    watched = Watched(make_daemon, faulty, config={"csi": {"endpoint": f"unix://{folder}/driver/csi.sock"}})
    status, body = watched.get("/readyz")
    assert status == 503 and "the CSI socket is not there" in body
    assert watched.get("/healthz")[0] == 200
    assert watched.daemon.ctl("health", "--ready").code == 1
    os.mkdir(folder)
    wait_for(lambda: watched.get("/readyz")[0] == 200, "the socket")


# From the pod to the log.

def lines_of_the_story(watched, pull):
    return [(line.get("event"), line["msg"]) for line in watched.log_lines(pull=pull)]


def test_from_the_pod_to_its_pull_to_the_log(watched, faulty, work):
    reference = faulty.add(cnai(work, 6 * MIB), "team/model", "v1")
    faulty.fault(r"/blobs/", "slow", rate=MIB)
    code, sentence = error_of(watched.publish, "v-a", reference, pod="prod/llama-0", rpc_seconds=2, seconds=1)
    assert code == grpc.StatusCode.ABORTED
    [pull] = re.findall(r"the pull goes on, the next try joins it \(pull ([0-9a-f]{16})\)$", sentence)
    [running] = watched.daemon.ctl_json("status")["pulls"]
    assert running["id"] == pull and pull in watched.daemon.ctl("status").stdout
    error_of(watched.publish, "v-b", reference, pod="prod/llama-1", rpc_seconds=2, seconds=1)
    faulty.clear_faults()
    watched.publish("v-a", reference, pod="prod/llama-0", rpc_seconds=60)
    watched.publish("v-b", reference, pod="prod/llama-1", rpc_seconds=60)

    wait_for(lambda: len(watched.events("--pull", pull)) >= 3, "the history")
    assert [(e["type"], e["pod"]) for e in watched.events("--pull", pull) if e["type"].startswith("pull.")] == [
        ("pull.started", "llama-0"), ("pull.joined", "llama-1"), ("pull.done", "llama-0")]
    for pod, volume, first in (("llama-0", "v-a", "pull.started"), ("llama-1", "v-b", "pull.joined")):
        for name in (pod, f"prod/{pod}"):
            events = watched.events("--pod", name)
            assert [events[0]["type"], events[-1]["type"]] == [first, "volume.published"]
            assert {(e["volume_id"], e["namespace"], e["pod"]) for e in events} == {(volume, "prod", pod)}
            assert events[0]["pull"] == pull
    assert watched.events("--pod", "other/llama-0") == watched.events("--pull", "0" * 16) == []
    assert pull in watched.daemon.ctl("events", "--pod", "prod/llama-1").stdout

    story = lines_of_the_story(watched, pull)
    assert [event for event, _ in story if event in ("pull.started", "pull.joined", "pull.done")] == [
        "pull.started", "pull.joined", "pull.done"]
    assert (None, "pull: resolving -> fetching") in story  # the daemon's
    assert any(text.startswith("pull worker: ") for _, text in story)  # the other process's
    assert not [line for line in watched.log_lines() if line["msg"].startswith("pull worker: ") and "pull" not in line]
    for pod, volume in (("llama-0", "v-a"), ("llama-1", "v-b")):
        [line] = watched.log_lines(event="volume.published", volume=volume)
        assert (line["pod"], line["namespace"]) == (pod, "prod")
        assert watched.log_lines(pull=pull, volume=volume, pod=pod, namespace="prod")


def test_events_of_one_pull_or_pod_are_followed(watched, faulty, work):
    made = modelpack(work, sizes=(10,))
    client = GrpcClient("control", watched.daemon.control_socket)
    with client:
        stream = client.Events(client.pb.EventsRequest(follow=True, last=1, pod_namespace="prod", pod_name="b"))
        for name in ("a", "b"):
            watched.publish(name, faulty.add(made, f"team/{name}", "v1"), pod=f"prod/{name}")
        seen = [next(stream) for _ in range(3)]
        stream.cancel()
    assert [(e.type, e.pod_name, e.pod_namespace) for e in seen] == [
        (kind, "b", "prod") for kind in ("pull.started", "pull.done", "volume.published")]
    assert len({e.pull for e in seen}) == 1 and seen[0].pull


def test_a_refused_call_says_whose_it_was(watched, faulty, work):
    reference = faulty.add(modelpack(work, sizes=(10,)), "team/model", "v1")
    error_of(watched.publish, "none", reference.replace(":v1", ":none"), pod="prod/p")
    wait_for(lambda: watched.events("--pod", "prod/p"), "the history")
    [failed] = [e for e in watched.events("--pod", "prod/p") if e["type"] == "volume.failed"]
    assert failed["pull"] and [e["type"] for e in watched.events("--pull", failed["pull"])] == [
        "pull.started", "pull.failed", "volume.failed"]
    [line] = watched.log_lines(event="volume.failed")
    assert (line["volume"], line["pod"], line["namespace"], line["pull"]) == ("none", "p", "prod", failed["pull"])


def test_all_events_of_a_volume_name_its_pod(watched, faulty, work):
    """Those of the daemon's own accord, and after a restart, too: the kubelet does not say it again."""
    daemon, reference = watched.daemon, faulty.add(modelpack(work, sizes=(MIB,)), "team/pods", "v1")

    def types(pod):
        return [e["type"] for e in watched.events("--pod", pod) if e["type"].startswith("volume.")]

    for pod in ("kept", "gone", "ended"):
        watched.publish(f"v-{pod}", reference, pod=f"prod/{pod}", rpc_seconds=60, warm="true")
        wait_for(lambda pod=pod: types(f"prod/{pod}") == ["volume.published", "volume.warmed"], "the warming")
    daemon.csi().publish("v-none", daemon.target("v-none"), reference)
    daemon.stop_clean()
    for pod in ("kept", "gone"):
        subprocess.run(["umount", daemon.target(f"v-{pod}")], check=True)
    os.rmdir(daemon.target("v-gone"))
    daemon.start()
    volumes = {v["volume_id"]: (v["namespace"], v["pod"]) for v in daemon.ctl_json("status")["volume_list"]}
    assert volumes == {"v-kept": ("prod", "kept"), "v-ended": ("prod", "ended"), "v-none": (None, None)}
    assert [v["pod"] for v in daemon.ctl_json("inspect", reference)["volumes"]] == ["kept", "ended", None]
    lines = {line.split()[0]: line.split()[1] for line in daemon.ctl("status").stdout.splitlines()
             if line.startswith("v-")}
    assert lines == {"v-kept": "prod/kept", "v-ended": "prod/ended", "v-none": "-"}
    for name in ("ended", "none"):
        daemon.csi().unpublish(f"v-{name}", daemon.target(f"v-{name}"))
    begun = ["volume.published", "volume.warmed"]
    for pod, last in (("kept", "unmounted"), ("gone", "dropped"), ("ended", "unpublished")):
        wait_for(lambda pod=pod, last=last: types(f"prod/{pod}") == [*begun, f"volume.{last}"], last)
        [line] = watched.log_lines(event=f"volume.{last}", pod=pod)
        assert (line["volume"], line["namespace"]) == (f"v-{pod}", "prod")


@pytest.mark.parametrize("name", ["x" * 254, "a\nb", "a\x1b[31mb"])
def test_a_pod_name_that_none_can_have_is_refused(watched, name):
    code, text = error_of(watched.publish, "v", "r.example/m:1", **{"csi.storage.k8s.io/pod.name": name})
    assert code == grpc.StatusCode.INVALID_ARGUMENT and "pod.name" in text
    assert "\x1b" not in watched.daemon.log()


# Clients that want to do harm.

ATTACKS = {"silent": b"", "slowloris": b"GET /metrics HTTP/1.1\r\nHost: a\r\nX: ", "garbage": os.urandom(2000),
           "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500),
           "header without end": b"GET / HTTP/1.1\r\nX: " + b"a" * 60000,
           "deaf": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 20}


def attack(address, data, count, seconds):
    """Keeps `count` connections open, or tries to, each of which has sent `data`; returns how many were made."""
    host, port = address.split(":")
    sockets, made, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        if len(sockets) >= count:
            sockets.pop(0).close()
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex((host, int(port)))
        ready = select.poll()  # select(2) knows no descriptors from 1024 on
        ready.register(sock, select.POLLOUT)
        if ready.poll(50):
            try:
                sock.send(data)
                made += 1
            except OSError:
                pass
        sockets.append(sock)
    for sock in sockets:
        sock.close()
    return made


def comes_through(watched, source):
    """Does a scrape from that address get its answer?"""
    connection = http.client.HTTPConnection(watched.address, timeout=20, source_address=(source, 0))
    with contextlib.closing(connection):
        try:
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            return answer.status == 200 and answer.read().endswith(b"\n")
        except (OSError, http.client.HTTPException):
            return False


@pytest.mark.parametrize("kind", ATTACKS)
def test_hostile_clients_harm_nobody(make_daemon, faulty, work, show, kind):
    """1000 connections: the kubelet is answered as fast as ever, memory stays, and scrapes come through: all from another
    address; nearly all from the same one, where thousands of new connections a second may take the place of a scrape
    that has not asked yet."""
    watched = Watched(make_daemon, faulty, release=True, config={"log": {"level": "info"}})
    csi, times, scrapes = watched.daemon.csi(), [], {"127.0.0.1": [], "127.0.0.2": []}
    watched.publish("v", faulty.add(modelpack(work, sizes=(10,)), "team/model", "v1"))
    watched.scrape()
    wait_for(lambda: not watched.daemon.worker_pids(), "the end of the worker")
    time.sleep(1.5)  # freed memory goes back
    before = memory_bytes(watched.daemon.pid)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        attacked = pool.submit(attack, watched.address, ATTACKS[kind], 1000, 4)
        while not attacked.done():
            begin = time.monotonic()
            csi.Probe(csi.pb.ProbeRequest(), timeout=5)
            times.append(time.monotonic() - begin)
            source = list(scrapes)[len(times) % 2]
            scrapes[source].append(comes_through(watched, source))
            time.sleep(0.02)
        peak = memory_bytes(watched.daemon.pid, "VmHWM")
    times.sort()
    show(f"{kind}: {attacked.result()} connections; Probe median {times[len(times) // 2] * 1000:.1f} ms, slowest "
         f"{times[-1] * 1000:.1f} ms; memory {before / MIB:.1f} MiB, at most {peak / MIB:.1f}")
    assert all(scrapes["127.0.0.2"]) and sum(scrapes["127.0.0.1"]) > len(scrapes["127.0.0.1"]) * 0.8
    assert len(times) > 10 and times[len(times) * 9 // 10] < 0.1 and times[-1] < 1
    assert peak < max(before, memory_bytes(watched.daemon.pid)) + 6 * MIB
    assert watched.scrape()["process_open_fds"] < 100
