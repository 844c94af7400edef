# SPDX-License-Identifier: Apache-2.0
"""Many volumes, many times: what the tests of the default run and the soak of test_soak_volumes.py share."""
import mmap
import os
import random
import sqlite3
import subprocess
import threading
import time

import grpc

from lib.artifacts import modelpack
from lib.check import assert_store_good, publish
from lib.content import assert_tree
from lib.csi import CsiClient
from lib.daemon import with_daemon_script
from lib.kubelet import OWN_CONNECTION
from lib.sandbox import mounts_beneath


def forget_volumes(daemon, names):
    """Takes records out of the index, while no daemon runs: their mounts become leftovers that nobody knows."""
    with sqlite3.connect(os.path.join(daemon.store, "index.db")) as index:
        index.executemany("DELETE FROM volumes WHERE volume_id = ?", [(name,) for name in names])
    index.close()


def unmount(*targets):
    subprocess.run(["umount", *targets], check=True)


class Traced:
    """A folder with the release build as it runs under strace, for MC_RELEASE_BIN; .syncs() counts how often it waited for
    the disk, or by one `call`, since the last time."""

    def __init__(self, folder):
        self.folder = folder
        self.output = os.path.join(folder, "strace")
        with_daemon_script(folder, f'exec strace -D -f -A -o {self.output} -e trace=fsync,fdatasync,syncfs "$real" "$@"',
                           release=True)

    def syncs(self, call=""):
        """While it runs."""
        calls = [call] if call else ["fsync", "fdatasync", "syncfs"]
        with open(self.output, "r+", encoding="ascii") as file:
            count = sum(any(f"{name}(" in line for name in calls) for line in file)
            file.truncate(0)
        return count


class Readers:
    """Threads that read the files `contents` {name: bytes} through mounts all the time: opened anew, from the disk and from
    the page cache, held open, and mapped.  Leaving the context ends them; .rounds counts, .failed tells."""

    def __init__(self, targets, contents, threads=4):
        self.targets, self.contents = targets, contents
        self.rounds, self.failed, self.ending = [0] * threads, [], threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(threads)]

    def _run(self, number):
        target = self.targets[number % len(self.targets)]
        name, want = max(self.contents.items(), key=lambda item: len(item[1]))
        with open(os.path.join(target, name), "rb") as held, mmap.mmap(
                held.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            while not self.ending.is_set():
                try:
                    self._read_all(target, from_disk=number < 2)
                    assert os.pread(held.fileno(), 1 << 30, 0) == mapped[:] == want, f"{name}, which is held open"
                    self.rounds[number] += 1
                except (OSError, AssertionError) as error:
                    self.failed.append(f"{target}: {error}")
                    self.ending.wait(0.1)

    def _read_all(self, target, from_disk):
        for name, want in self.contents.items():
            with open(os.path.join(target, name), "rb") as file:
                if from_disk:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert file.read() == want, name

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        for thread in self.threads:
            thread.join()


class Churn(threading.Thread):
    """Publishes and unpublishes volumes of its own, and does not mind when the daemon is not there."""

    def __init__(self, daemon, reference):
        super().__init__()
        self.csi_socket, self.reference, self.done, self.ending = daemon.csi_socket, reference, 0, threading.Event()
        self.volumes = {f"churn{i}": daemon.target(f"churn{i}") for i in range(4)}

    def run(self):
        while not self.ending.is_set():
            for name, target in self.volumes.items():
                try:
                    with CsiClient(self.csi_socket, OWN_CONNECTION) as csi:
                        csi.publish(name, target, self.reference, seconds=5)
                        csi.unpublish(name, target, seconds=5)
                    self.done += 1
                except grpc.RpcError:
                    self.ending.wait(0.01)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ending.set()
        self.join()


def kill_again_and_again(daemon, kills, chance):
    """At random moments: at work, and every fourth time before it is ready."""
    for number in range(kills):
        if number % 4 == 3:
            daemon.launch()
            time.sleep(chance.uniform(0, 0.08))
        else:
            daemon.start()
            time.sleep(chance.uniform(0, 0.05))
        daemon.kill9()
    daemon.start()


def kill_with_live_volumes(daemon, faulty, folder, kills, show):
    """kill -9 of the daemon while its volumes are read, and others come and go: no read fails, and nothing is left over."""
    made = modelpack(folder, sizes=(1 << 20,))
    reference = faulty.add(made, "team/model", "v1")
    live = {name: publish(daemon, name, reference) for name in ("live1", "live2")}
    assert_tree(live["live1"], made.tree)
    contents = {}
    for name, entry in made.tree.items():
        if entry.size > 0:
            with open(os.path.join(live["live1"], name), "rb") as file:
                contents[name] = file.read()
    seed = os.environ.get("MC_SEED", "kill live")
    daemon.stop_clean()
    with Readers(list(live.values()), contents) as readers, Churn(daemon, reference) as churn:
        kill_again_and_again(daemon, kills, random.Random(seed))
    show(f"MC_SEED={seed!r}, {kills} kills: {sum(readers.rounds)} rounds through {len(contents)} files, "
         f"{len(readers.failed)} reads failed; {churn.done} other volumes came and went")
    assert not readers.failed, readers.failed[:5]
    assert min(readers.rounds) > 10 and churn.done > 0
    for name, target in churn.volumes.items():
        daemon.csi().unpublish(name, target)
    assert sorted(mounts_beneath(daemon.kubelet_dir)) == sorted(live.values())
    for name, target in live.items():
        assert_tree(target, made.tree)
        daemon.csi().unpublish(name, target)
    assert not mounts_beneath(daemon.kubelet_dir) and daemon.ctl_json("status")["volumes"] == 0
    assert_store_good(daemon)


class Footprint:
    """What a daemon that has nothing to do takes."""

    def __init__(self, daemon):
        time.sleep(1.5)  # a second after it has become quiet it gives memory back
        self.fds, self.threads = (len(os.listdir(f"/proc/{daemon.pid}/{name}")) for name in ("fd", "task"))
        self.rss = daemon.memory()
        self.index = sum(os.path.getsize(os.path.join(daemon.store, name)) for name in os.listdir(daemon.store)
                         if name in ("index.db", "index.db-wal"))
        with open("/proc/self/mountinfo", "rb") as file:
            self.mounts = sum(os.fsencode(daemon.folder) in line for line in file)
        self.names = sum(len(names) + len(files) for _, names, files in os.walk(daemon.folder))

    def __str__(self):
        return (f"{self.fds} descriptors, {self.threads} threads, {self.rss / 1048576:.1f} MiB, {self.mounts} mounts, "
                f"index {self.index / 1048576:.1f} MiB, {self.names} files")


def cycle(daemon, reference, first, count):
    """Publishes and unpublishes volumes, one after the other, each with a connection of its own; some twice, some never
    published."""
    target = daemon.target("cycle")
    for number in range(first, first + count):
        name = f"cycle{number}"
        with CsiClient(daemon.csi_socket, OWN_CONNECTION) as csi:
            if number % 10 != 9:
                csi.publish(name, target, reference)
            if number % 10 == 5:
                csi.publish(name, target, reference)
                csi.NodeGetVolumeStats(csi.pb.NodeGetVolumeStatsRequest(volume_id=name, volume_path=target), timeout=30)
            csi.unpublish(name, target)
            if number % 10 == 7:
                csi.unpublish(name, target)


def cycles_leave_nothing(daemon, faulty, folder, cycles, show):
    """After a warm-up nothing grows: descriptors, threads, memory, mounts, files, the index.  The index keeps the last
    10,000 events, two a cycle: until then it may grow by as many."""
    reference = faulty.add(modelpack(folder, sizes=(100_000,)), "team/model", "v1")
    warm = cycles * 6 // 10
    publish(daemon, "kept", reference)
    cycle(daemon, reference, 0, warm)
    before = Footprint(daemon)
    cycle(daemon, reference, warm, cycles - warm)
    after = Footprint(daemon)
    show(f"after {warm} cycles: {before}\n  after {cycles}: {after}")
    assert (after.fds, after.threads, after.mounts, after.names) == (
        before.fds, before.threads, before.mounts, before.names)
    assert after.rss <= before.rss + (1 << 20)
    assert after.index <= before.index + (1 << 19) + (0 if warm >= 6000 else 2 * (cycles - warm) * 1024)
