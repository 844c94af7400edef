# SPDX-License-Identifier: Apache-2.0
"""Volumes of pods with user namespaces (hostUsers: false): the runtime maps the owners of a clone of the mount."""
import ctypes
import errno
import os
import struct
import subprocess
import sys

import pytest

from lib.artifacts import modelpack
from lib.check import publish
from lib.content import assert_tree
from lib.sandbox import need

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # the same numbers everywhere
AT_FDCWD, AT_EMPTY_PATH, OPEN_TREE_CLONE, MOVE_MOUNT_F_EMPTY_PATH = -100, 0x1000, 1, 4
MOUNT_ATTR_IDMAP = 0x100000
FIRST = 100000  # the namespace's root, as the node sees it

libc = ctypes.CDLL(None, use_errno=True)


def system_call(*arguments):
    result = libc.syscall(*arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def mount_mapped(source, target, namespace):
    """What runc does for a volume with mappings: clone, map, mount (mount_setattr(2))."""
    clone = system_call(OPEN_TREE, AT_FDCWD, source.encode(), OPEN_TREE_CLONE | os.O_CLOEXEC)
    try:
        attributes = struct.pack("QQQQ", MOUNT_ATTR_IDMAP, 0, 0, namespace)
        system_call(MOUNT_SETATTR, clone, b"", AT_EMPTY_PATH, attributes, len(attributes))
        system_call(MOVE_MOUNT, clone, b"", AT_FDCWD, target.encode(), MOVE_MOUNT_F_EMPTY_PATH)
    finally:
        os.close(clone)


@pytest.fixture(name="pod")
def pod_fixture():
    """A process in a user namespace of 65,536 users."""
    need("unshare", "nsenter")
    with subprocess.Popen(["unshare", "--user", sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()  # the namespace is there
        for kind in ("uid", "gid"):
            with open(f"/proc/{process.pid}/{kind}_map", "w", encoding="ascii") as file:
                file.write(f"0 {FIRST} 65536")
        yield process
        process.stdin.close()


def inside(pod, *argv):
    """Runs a program as the namespace's root."""
    return subprocess.run(["nsenter", "--user", "--target", str(pod.pid), "--setuid", "0", "--setgid", "0", *argv],
                          capture_output=True, text=True, check=False)


def test_a_pod_with_a_user_namespace(make_daemon, faulty, work, pod):
    daemon = make_daemon([faulty.config()])
    made = modelpack(work)
    target = publish(daemon, "v", faulty.add(made, "team/model", "v1"))
    name = next(path for path, entry in made.tree.items() if entry.kind == "file")
    mapped, plain = os.path.join(work, "mapped"), os.path.join(work, "plain")
    os.chmod(work, 0o711)  # the pod goes through it
    for folder in (mapped, plain):
        os.mkdir(folder)
    subprocess.run(["mount", "--bind", target, plain], check=True)
    with open(f"/proc/{pod.pid}/ns/user", encoding="ascii") as namespace:
        try:
            mount_mapped(target, mapped, namespace.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.EINVAL):
                pytest.skip(f"this kernel or file system cannot map the owners of a mount ({error.strerror})")
            raise
    for folder, owner in ((mapped, "0:0\n"), (plain, "65534:65534\n")):
        assert_tree(folder, made.tree)
        assert inside(pod, "stat", "--format", "%u:%g", f"{folder}/{name}").stdout == owner
        digest = inside(pod, "sha256sum", f"{folder}/{name}").stdout.split()[0]
        assert digest == made.tree[name].sha256
        written = inside(pod, "touch", f"{folder}/new")
        assert written.returncode != 0 and "Read-only file system" in written.stderr, written
        assert inside(pod, "mount", "-o", "remount,rw", folder).returncode != 0
