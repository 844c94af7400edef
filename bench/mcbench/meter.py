# SPDX-License-Identifier: Apache-2.0
"""Measures one operation of a contender: wall time, CPU seconds and peak memory of its processes."""
import contextlib
import dataclasses
import os
import resource
import signal
import subprocess
import threading
import time

from lib.sandbox import children, memory_bytes

TICK = os.sysconf("SC_CLK_TCK")
SAMPLE_SECONDS = 0.02


@dataclasses.dataclass
class Sample:
    """One measured operation."""
    wall: float
    cpu: float
    peak: int  # bytes
    busy: float  # share of the machine's processors, whoever used them: the server, too


class Failed(Exception):
    """A contender could not do it; the text says why."""


def tree_of(pids):
    """The pids and all their descendants."""
    found, left = [], list(pids)
    while left:
        pid = left.pop()
        found.append(pid)
        left += children(pid)
    return found


def cpu_of(pid):
    """CPU seconds of a process and of those of its children that it has waited for."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(field) for field in fields[11:15]) / TICK


def processors():
    """(busy, all) CPU seconds of the machine so far."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = [int(field) / TICK for field in file.readline().split()[1:9]]
    return sum(fields) - fields[3] - fields[4], sum(fields)  # but for idle and iowait


class PeakMemory(threading.Thread):
    """Adds up the peaks (VmHWM) of the processes that live at the same time, fifty times a second: never less
    than the true peak of what was seen."""

    def __init__(self, roots):
        super().__init__(daemon=True)
        self.roots, self.peak, self.ended = list(roots), 0, threading.Event()

    def run(self):
        while True:
            now = sum(memory_bytes(pid, "VmHWM") for pid in tree_of(self.roots))
            self.peak = max(self.peak, now)
            if self.ended.wait(SAMPLE_SECONDS):
                return

    def stop(self):
        self.ended.set()
        self.join()
        return self.peak


def measure(argv, standing=(), env=None, seconds=900, folder=None):
    """Runs a command to its end, which has to be 0.  `standing`: pids of daemons that work for it; their CPU and
    memory count too, and so does what their children have used before: they wait for this command."""
    before = sum(cpu_of(pid) for pid in standing)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy, every = processors()
    start = time.monotonic()
    with subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, cwd=folder,
                          stderr=subprocess.PIPE, env=env, start_new_session=True) as child:
        memory = PeakMemory([child.pid, *standing])
        memory.start()
        try:
            _, errors = child.communicate(timeout=seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"not done after {seconds} s") from None
            raise
        finally:
            wall = time.monotonic() - start
            peak = memory.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy, every = (now - then for now, then in zip(processors(), (busy, every)))
    if child.returncode != 0:
        raise Failed(f"{argv[0]} ended with {child.returncode}: {errors.decode(errors='replace').strip()[-400:]}")
    own = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return Sample(wall, own + sum(cpu_of(pid) for pid in tree_of(standing)) - before, peak, min(1.0, busy / max(every, 1 / TICK)))


def shell(script, standing=(), **options):
    """measure() of a bash script, which ends where something fails."""
    return measure(["bash", "-c", "set -euo pipefail; " + script], standing, **options)
