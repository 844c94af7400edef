# SPDX-License-Identifier: Apache-2.0
"""Many volumes, many times: what the tests of the default run and the soak of test_soak_volumes.py share."""
import os
import sqlite3
import subprocess


def forget_volumes(daemon, names):
    """Takes records out of the index, while no daemon runs: their mounts become leftovers that nobody knows."""
    with sqlite3.connect(os.path.join(daemon.store, "index.db")) as index:
        index.executemany("DELETE FROM volumes WHERE volume_id = ?", [(name,) for name in names])
    index.close()


def unmount(*targets):
    subprocess.run(["umount", *targets], check=True)


class Traced:
    """A folder with the release build as it runs under strace, for MC_RELEASE_BIN; .syncs() counts how often it waited for
    the disk since the last time."""

    def __init__(self, folder):
        os.makedirs(folder)
        self.folder = folder
        self.output = os.path.join(folder, "strace")
        release = os.environ["MC_RELEASE_BIN"]
        for name in os.listdir(release):
            os.symlink(os.path.join(release, name), os.path.join(folder, name))
        script = os.path.join(folder, "modelcached")
        os.unlink(script)
        with open(script, "w", encoding="ascii") as file:
            file.write(f'#!/bin/sh\nexec strace -D -f -A -o {self.output} -e trace=fsync,fdatasync,syncfs '
                       f'{release}/modelcached "$@"\n')
        os.chmod(script, 0o755)

    def syncs(self):
        """While it runs."""
        with open(self.output, "r+", encoding="ascii") as file:
            count = sum("sync(" in line or "syncfs(" in line for line in file)
            file.truncate(0)
        return count
