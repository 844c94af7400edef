# SPDX-License-Identifier: Apache-2.0
"""Every fault of a registry at every boundary, through the whole product, with io_uring and where it is refused.

A boundary is the first and the last byte of a blob, each byte at which a buffer of the worker ends (ranges end there as
well), and the byte before and after it.  The bound on what goes over the wire, as the registry counts it: 1.05 times a
blob's size and one window.  A window is what is on its way at one moment and in no buffer of ours yet: it is lost when
a connection is dropped.  On loopback that is about a MiB (libcurl's buffer, and what the two sockets hold), and here
two connections of a blob may be dropped at once.  Bytes that are in a buffer come once, whatever happens.  Of a blob in
one stream it is known which answers were dropped: nothing else of it comes twice."""
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import random
import re
import time
from email.utils import formatdate

import pytest

from lib.artifacts import MIB, Builder, modelpack_annotations
from lib.check import assert_pulls, assert_store_good, running_daemon
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import Random, Tar, Text
from lib.faulty import FaultyRegistry

MODES = ["auto", "refused"]
SEED = int(os.environ.get("MC_SEED", "4"))
RANDOM_PULLS = 4
AT_ONCE = 24  # more, and a registry in Python is too slow to be told from one that stalls
BUFFER = MIB  # of a worker with PULL's memory
RANGE_MIN = 2 * MIB
SEND_BUFFER = 64 * 1024
WINDOW = 2 * MIB
DROPPED = {"reset": 2 * SEND_BUFFER, "headers": MIB, "ignore": MIB}  # of an answer with such a fault at most so much is lost
PULL = {"concurrent": AT_ONCE, "connections": 64, "memory": "16MiB", "range_min": RANGE_MIN, "stall_timeout": "3s",
        "give_up": "30s"}
PREFIX = "application/vnd.cncf.model"


def one_of_each(folder, seed):
    """A raw layer in ranges, a small one, a tar+gzip in ranges, a tar+zstd in one stream."""
    out = Builder(folder)
    for path, size in (("ranges.safetensors", 6 * MIB + 77), ("small.safetensors", 700_001)):
        blob = Random(size, f"{seed}/{path}")
        out.raw(path, f"{PREFIX}.weight.v1.raw", blob, modelpack_annotations(path, blob))
    for name, codec, size in (("gzip", "tar+gzip", 2 * MIB + 4321), ("zstd", "tar+zstd", MIB + 1234)):
        tar = Tar(folder, codec)
        tar.add_file(f"{name}/noise.bin", Random(size, f"{seed}/{name}"))
        for i in range(5):
            tar.add_file(f"{name}/{i}.txt", Text(1000, f"{seed}/{name}/{i}"))
        out.tar(f"{PREFIX}.code.v1.{codec}", tar, {"org.cncf.model.filepath": name})
    return out.done(f"{PREFIX}.config.v1+json", {"seed": seed}, f"{PREFIX}.manifest.v1+json")


def small(folder, seed):
    """For faults that come before the layers."""
    out, blob = Builder(folder), Random(1000, seed)
    out.raw("w", f"{PREFIX}.weight.v1.raw", blob, modelpack_annotations("w", blob))
    return out.done(f"{PREFIX}.config.v1+json", {"seed": seed}, f"{PREFIX}.manifest.v1+json")


def boundaries(size):
    near = {at + d for at in range(BUFFER, size, BUFFER) for d in (-1, 0, 1)}
    return {0, 1, size - 1} | {at for at in near if at < size}


def in_two_seconds():
    return formatdate(time.time() + 2, usegmt=True)


STATUS = {
    "429 seconds": {"status": 429, "headers": {"Retry-After": "1"}},
    "429 date": {"status": 429, "headers": {"Retry-After": in_two_seconds}},
    "503 seconds": {"status": 503, "headers": {"Retry-After": "1"}},
    "503": {"status": 503},
    "408": {"status": 408},
    "500": {"status": 500},
}
MISHANDLED = {
    "ignored": {"kind": "ignore"},
    "wrong start": {"kind": "headers", "headers": {"Content-Range": "bytes 7-8/9"}},
    "no Content-Range": {"kind": "headers", "headers": {"Content-Range": None}},
    "416": {"kind": "status", "status": 416},
    "other ETag": {"kind": "headers", "headers": {"ETag": '"two"'}},
}
BREAKS = ("reset", "truncate", "stall")
BLOB_CASES = [*BREAKS, *STATUS, *MISHANDLED]
DOCUMENT_CASES = [*BREAKS, *STATUS]


def break_blobs(add, layers, kind):
    for layer in layers:
        places = boundaries(layer["size"])
        if kind == "stall":  # each takes seconds
            places = {0, 2 * BUFFER - 1, layer["size"] - 1}
        add(layer["digest"], kind, places={place for place in places if place < layer["size"]})


def mishandle_ranges(add, layers, fault):
    """At each first byte that a range asks for; a blob in one stream is broken off for that."""
    for layer in layers:
        add(layer["digest"], ranged=True, each=True, least=1, **fault)
        if layer["size"] < RANGE_MIN:
            add(layer["digest"], "truncate", places={layer["size"] // 3, layer["size"] // 2})


def break_document(add, path, size, name):
    if name in BREAKS:
        add(path, name, places={0, 1, size - 1} if name != "stall" else {0, size - 1})
    else:
        add(path, "status", times=2, **STATUS[name])


def at_random(add, layers, pick):
    """Not more MISHANDLED for a layer than may come in a row: one more, and the blob comes anew."""
    doubts = {layer["digest"]: 2 for layer in layers}
    for _ in range(24):
        layer = pick.choice(layers)
        name = pick.choice((*BREAKS[:2], *BREAKS[:2], *BLOB_CASES))
        doubts[layer["digest"]] -= name in MISHANDLED
        if doubts[layer["digest"]] < 0:
            continue
        if name in BREAKS:
            add(layer["digest"], name, places={pick.randrange(layer["size"])})
        elif name in STATUS:
            add(layer["digest"], "status", times=1, skip=pick.randrange(4), **STATUS[name])
        else:
            add(layer["digest"], ranged=True, times=1, least=1, skip=pick.randrange(3), **MISHANDLED[name])


@dataclasses.dataclass
class Case:
    """One pull; `registry` serves it as `repository` and has its `faults`."""
    registry: FaultyRegistry
    repository: str
    artifact: object
    reference: str
    faults: list = dataclasses.field(default_factory=list)
    pull: concurrent.futures.Future = None

    def add(self, where, kind="status", **options):
        self.faults.append(self.registry.fault(f"/{self.repository}/.*{re.escape(where)}", kind, **options))

    def seen(self, where):
        return self.registry.seen(f"/{self.repository}/.*{re.escape(where)}")

    def sent(self, layer):
        return sum(request.sent for request in self.seen(layer["digest"]))


class Place:
    """A daemon, its registries, and one pull a case.  made: artifacts by name, the same for both modes."""

    def __init__(self, folder, mode, made):
        self.folder, self.mode, self.made, self.cases, self.daemon = folder, mode, made, {}, None
        self.open, self.closed = (FaultyRegistry(auth=auth, send_buffer=SEND_BUFFER) for auth in (None, "bearer"))
        self.open.etag, self.closed.anonymous = '"one"', True

    def case(self, name, make, registry):
        repository = f"{self.mode}/{re.sub('[^a-z0-9]+', '-', name.lower())}"
        if name not in self.made:
            self.made[name] = make(self.folder, name)
        artifact = self.made[name]
        self.cases[name] = Case(registry, repository, artifact, registry.add(artifact, repository, "v1"))
        return self.cases[name]

    def add_cases(self):
        for name in BLOB_CASES:
            case = self.case(f"blob {name}", one_of_each, self.open)
            layers = case.artifact.layers
            if name in BREAKS:
                break_blobs(case.add, layers, name)
            elif name in MISHANDLED:
                mishandle_ranges(case.add, layers, MISHANDLED[name])
            else:
                for layer in layers:
                    case.add(layer["digest"], each=True, **STATUS[name])
        for name in DOCUMENT_CASES:
            case = self.case(f"manifest {name}", small, self.open)
            break_document(case.add, "manifests/", len(case.artifact.manifest), name)
            case = self.case(f"token {name}", small, self.closed)
            token = json.dumps({"token": "x" * 32, "access_token": "x" * 32, "expires_in": 300})
            break_document(lambda _, *a, case=case, **o: case.faults.append(
                case.registry.fault(f"^/token.*{case.repository.replace('/', '.*')}%3A", *a, **o)), "", len(token),
                name)
        for i in range(RANDOM_PULLS):
            case = self.case(f"random {i}", one_of_each, self.open)
            at_random(case.add, case.artifact.layers, random.Random(f"{SEED}/{self.mode}/{i}"))

    def start(self, pool):
        for case in sorted(self.cases.values(), key=lambda case: "stall" not in case.repository):  # the longest first
            case.pull = pool.submit(self.daemon.ctl, "pull", case.reference)

    def stop(self):
        self.open.stop()
        self.closed.stop()


@contextlib.contextmanager
def running_place(folder, mode, made):
    os.makedirs(folder)
    place = Place(folder, mode, made)
    try:
        with running_daemon(os.path.join(folder, "d"), [place.open.config(), place.closed.config()],
                            config={"pull": PULL}, no_uring=mode == "refused") as place.daemon:
            place.add_cases()
            yield place
    finally:
        place.stop()


@pytest.fixture(scope="module", name="places")
def places_fixture(module_work):
    """Both pull at the same time: most of it is waiting."""
    made = {}
    with contextlib.ExitStack() as stack:
        places = {mode: stack.enter_context(running_place(os.path.join(module_work, mode), mode, made))
                  for mode in MODES}
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            for place in places.values():
                place.start(pool)
        yield places


@pytest.fixture(params=MODES, name="place")
def place_fixture(request, places):
    return places[request.param]


def on_its_way(case, layer):
    """So much of it may have been lost."""
    if layer["size"] >= RANGE_MIN:
        return WINDOW
    return sum(min(r.sent, DROPPED.get(r.fault, 0)) for r in case.seen(layer["digest"]))


def check(place, case):
    """It worked, is byte for byte what it should be, and little came twice; returns the ratios of sent and size."""
    assert case.pull.result().code == 0, case.pull.result()
    ratios = []
    for layer in case.artifact.layers:
        sent, size = case.sent(layer), layer["size"]
        ratios.append(f"{sent / size:.3f}")
        told = "; ".join(f"{r.headers.get('range')}: {r.status} {r.fault}, {r.sent}" for r in case.seen(layer["digest"]))
        assert size <= sent <= 1.05 * size + on_its_way(case, layer), f"{sent} bytes for {size}: {told}"
    assert_pulls(place.daemon, re.sub(r"\W", "-", case.reference), case.reference, case.artifact.tree)
    return ratios


def test_what_is_refused_is_told(place):
    feature = place.daemon.ctl_json("status")["features"]["io_uring"]
    assert feature["active"] == (place.mode == "auto"), feature
    if place.mode == "refused":
        assert "a seccomp filter" in feature["detail"]


@pytest.mark.parametrize("name", BLOB_CASES)
def test_fault_of_blobs(place, name):
    case = place.cases[f"blob {name}"]
    check(place, case)
    for fault in case.faults:
        if fault.each and len(case.registry.seen(fault.path)) == 1:
            continue  # beside other pulls it had few connections, and asked for all in one range
        assert fault.places == set() if fault.places is not None else fault.hit, f"{fault} was not met"


def test_ranges_were_mishandled(place):
    """A blob may come in one range, but not all of them do."""
    cases = [case for name, case in place.cases.items() if name.startswith("blob ")]
    assert all(case.pull.result().code == 0 for case in cases)
    assert any(fault.hit for case in cases for fault in case.faults if fault.each)


@pytest.mark.parametrize("name", DOCUMENT_CASES)
@pytest.mark.parametrize("what", ["manifest", "token"])
def test_fault_of_documents(place, what, name):
    case = place.cases[f"{what} {name}"]
    check(place, case)
    assert all(fault.places == set() or fault.times == 0 for fault in case.faults), case.faults
    if "Retry-After" in STATUS.get(name, {}).get("headers", {}):
        asked = case.registry.seen(case.faults[0].path)
        told = [(r.time, r.status) for r in asked]
        assert [r.status for r in asked[:3]] == [STATUS[name]["status"]] * 2 + [200], told
        assert all(b.time - a.time >= 0.95 for a, b in zip(asked[:2], asked[1:3])), f"not obeyed: {told}"


@pytest.mark.parametrize("number", range(RANDOM_PULLS))
def test_faults_at_random(place, number, show):
    ratios = check(place, place.cases[f"random {number}"])
    show(f"MC_SEED={SEED}, {place.mode}, pull {number}: {', '.join(ratios)} of the size of each layer on the wire")


def test_nothing_is_left(place):
    assert_store_good(place.daemon)
    assert os.listdir(os.path.join(place.daemon.store, "partial")) == []
