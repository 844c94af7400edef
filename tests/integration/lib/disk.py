# SPDX-License-Identifier: Apache-2.0
"""A small disk for a store: it becomes full, or loses its power."""
import contextlib
import fcntl
import os
import struct
import subprocess

import pytest

from lib.sandbox import need, wait_for

MIB = 1 << 20
EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587d, 2


@contextlib.contextmanager
def mounted_disk(work, *options):
    """An ext4 of 64 MiB on a loop device; options: of mkfs.ext4."""
    need("mkfs.ext4", "mount")
    image, point = os.path.join(work, "disk.img"), os.path.join(work, "disk")
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", *options, image], check=True)
    os.makedirs(point)
    if subprocess.run(["mount", "-o", "loop", image, point], check=False).returncode != 0:
        pytest.skip("no loop devices here")
    yield point
    subprocess.run(["umount", "-l", point], check=False)


def cut_power(point):
    """From now on nothing reaches the disk: the file system forgets all that was not made durable.  Skips where it cannot."""
    folder = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
    except OSError as error:
        pytest.skip(f"the file system can't be shut down: {error}")
    finally:
        os.close(folder)


def mount_again(work):
    """After cut_power(), and the end of all that used it.  Who has a mount namespace of its own, made before, may hold what
    was mounted for a moment more: until then it would be the same file system, without power."""
    image, point = os.path.join(work, "disk.img"), os.path.join(work, "disk")
    subprocess.run(["umount", point], check=True)
    wait_for(lambda: not subprocess.run(["losetup", "-j", image], check=True, capture_output=True).stdout,
             "the end of the file system")
    subprocess.run(["mount", "-o", "loop", image, point], check=True)


@pytest.fixture(name="small_disk")
def small_disk_fixture(work):
    with mounted_disk(work) as point:
        yield point
