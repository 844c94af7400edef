# SPDX-License-Identifier: Apache-2.0
"""A small disk for a store that is to become full."""
import contextlib
import os
import subprocess

import pytest

from lib.sandbox import need

MIB = 1 << 20


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


@pytest.fixture(name="small_disk")
def small_disk_fixture(work):
    with mounted_disk(work) as point:
        yield point
