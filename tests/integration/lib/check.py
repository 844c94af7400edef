# SPDX-License-Identifier: Apache-2.0
"""What tests say about a daemon again and again: a daemon for a whole file, pulls that must work or fail, a clean store."""
import contextlib
import hashlib
import os
import stat
import subprocess

import grpc
import pytest

from lib.content import assert_tree
from lib.csi import error_of
from lib.daemon import Daemon, program
from lib.sandbox import mounts_beneath, wait_for

PROGRAMS = ("modelcached", "modelcached-pull", "cache-ctl")
EXIT_OF = {  # cache-ctl's exit code for a status
    grpc.StatusCode.INVALID_ARGUMENT: 2, grpc.StatusCode.NOT_FOUND: 4, grpc.StatusCode.PERMISSION_DENIED: 5,
    grpc.StatusCode.UNAUTHENTICATED: 5, grpc.StatusCode.RESOURCE_EXHAUSTED: 6, grpc.StatusCode.DATA_LOSS: 7,
}


@pytest.fixture(name="show")
def show_fixture(capsys):
    """show(text): prints it also when the test passes; import it into the test's file."""
    def show(text):
        with capsys.disabled():
            print(f"\n  {text}", end="")

    return show


def need_programs(release=False):
    """Skips without root or without our programs."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts")
    for name in PROGRAMS:
        if not program(name, release):
            pytest.skip(f"{name} is not built{' (release)' if release else ''}")


@contextlib.contextmanager
def running_daemon(folder, registries=(), **options):
    """A started Daemon, for fixtures that last longer than a test."""
    need_programs(options.get("release", False))
    daemon = Daemon(folder, registries, **options)
    try:
        yield daemon.start()
    finally:
        daemon.close()


def publish(daemon, name, reference, **options):
    """Publishes volume `name` by CSI at a target of that name; returns the target."""
    target = daemon.target(name)
    daemon.csi().publish(name, target, reference, **options)
    return target


def publish_error(daemon, name, reference, seconds=60.0, **options):
    """(StatusCode, sentence) of a publish that has to fail by itself within the time."""
    code, text = error_of(daemon.csi().publish, name, daemon.target(name), reference, seconds=seconds, **options)
    assert code != grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {seconds:g} s: {text}"
    assert_sentence(text)
    return code, text


def assert_sentence(text):
    """One clear sentence: printable, one line, not a bare errno."""
    assert text and text.isprintable() and "\n" not in text, repr(text)
    assert len(text.split()) >= 4, f"no sentence: {text!r}"
    assert len(text) < 1500, f"no clear sentence: {text!r}"


def assert_pulls(daemon, name, reference, tree, **options):
    """The artifact can be published, is byte for byte the tree, and can be unpublished."""
    target = publish(daemon, name, reference, **options)
    assert_tree(target, tree)
    daemon.csi().unpublish(name, target)
    assert not mounts_beneath(target)
    assert not os.path.exists(target)


def names_beneath(path):
    """The relative paths of all that lies beneath a folder."""
    found = set()
    for folder, names, files in os.walk(path):
        found.update(os.path.relpath(os.path.join(folder, name), path) for name in names + files)
    return found


def store_names(daemon):
    """(objects, trees) that are visible in the store."""
    objects = {name for name in names_beneath(os.path.join(daemon.store, "objects")) if "/" in name}
    trees = set(os.listdir(os.path.join(daemon.store, "trees")))
    return objects, trees


def wait_idle(daemon, seconds=15):
    """Waits until no worker runs and ingest/ is empty."""
    wait_for(lambda: not daemon.worker_pids(), "the end of the pull workers", seconds)
    wait_for(lambda: not daemon.in_ingest(), f"an empty ingest/, which has {daemon.in_ingest()}", seconds)


def file_sha256(path):
    state = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            state.update(chunk)
    return state.hexdigest()


def everything_of(pid):
    """argv and environment of a process."""
    data = b""
    for name in ("cmdline", "environ"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                data += file.read()
        except (FileNotFoundError, ProcessLookupError):
            pass
    return data


def files_with(root, needles):
    """Files beneath `root` that hold one of the byte strings."""
    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.isfile(path):
                continue
            with open(path, "rb") as file:
                data = file.read()
            found += [(path, needle) for needle in needles if needle in data]
    return found


def assert_objects_good(daemon):
    """Every visible object is what its name says, and nobody may write to it."""
    root = os.path.join(daemon.store, "objects")
    for name in store_names(daemon)[0]:
        path = os.path.join(root, name)
        want, executable = name.replace("/", "").removesuffix(".x"), name.endswith(".x")
        st = os.lstat(path)
        assert stat.S_ISREG(st.st_mode) and st.st_uid == 0, f"{name}: {st}"
        assert stat.S_IMODE(st.st_mode) == (0o555 if executable else 0o444), f"{name}: mode {st.st_mode:o}"
        assert file_sha256(path) == want, f"object {name} is not what its name says"


def assert_store_good(daemon):
    """Objects and index agree, all is what it says, nothing is left over."""
    wait_idle(daemon)
    assert_objects_good(daemon)
    trees = store_names(daemon)[1]
    assert not [name for name in trees if name.startswith(".")], trees
    listed = {(a["subset"] or {"id": a["digest"]})["id"].removeprefix("sha256:")
              for a in daemon.ctl_json("ls")["artifacts"]}
    assert trees == listed, f"trees {trees}, artifacts {listed}"
    result = daemon.ctl("verify")
    assert result.code == 0, result


def du_bytes(*paths):
    """What du(1) counts for the paths together."""
    output = subprocess.run(["du", "-scB1", "--", *paths], check=True, capture_output=True, text=True).stdout
    return int(output.splitlines()[-1].split()[0])


def mount_options(target):
    """The options of the mount at `target`, from mountinfo."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        found = [line.split()[5].split(",") for line in file if line.split()[4] == target]
    assert len(found) == 1, f"{target}: {found}"
    return found[0]
