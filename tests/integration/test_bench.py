# SPDX-License-Identifier: Apache-2.0
"""bench/run works at all: a hundredth of two cases.  Its figures mean nothing here."""
import json
import os
import signal
import subprocess
import time

import pytest

from lib.sandbox import need

SOURCE = os.environ.get("MC_SRC") or os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
RUN = os.path.join(SOURCE, "bench/run")


@pytest.fixture
def command(work):
    """The start of a bench/run of the build under test in a folder of the test's own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts")
    need("docker-registry", "curl", "cc", "pkg-config")
    return [RUN, "--bin", os.environ["MC_BIN"], "--dir", work, "--runs", "1", "--scale", "0.01",
            "--contender", "modelcached", "--contender", "lower bound"]


def test_two_cases(command, work):
    """A table, a document, a page with plots, which keeps what is not measured again; nothing is left in the folder."""
    out, page = os.path.join(work, "out.json"), os.path.join(work, "page")
    first = subprocess.run([*command, "--case", "e", "--report", page], capture_output=True, text=True, timeout=300,
                           check=False)
    done = subprocess.run([*command, "--case", "a", "--json", out, "--report", page],
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == first.returncode == 0, done.stdout + done.stderr + first.stderr
    with open(out, encoding="utf-8") as file:
        cases = json.load(file)["cases"]
    assert list(cases) == ["a"]
    with open(os.path.join(page, "results.json"), encoding="utf-8") as file:
        joined = json.load(file)["cases"]
    assert joined["a"]["when"]["started"] > joined["e"]["when"]["started"]
    rows = {(row["contender"], row["mode"]): row for row in cases["a"]["rows"]}
    assert set(rows) == {("modelcached", "cold"), ("modelcached", "warm"), ("lower bound", "cold")}
    assert all(row["wall_seconds"]["median"] > 0 for row in rows.values())
    assert rows["modelcached", "cold"]["peak_bytes"]["max"] > 1 << 20
    assert 0 < rows["modelcached", "cold"]["machine_busy"]["median"] <= 1
    assert joined["e"]["idle_bytes"] > 1 << 20
    assert "idle daemon in MiB" in first.stdout
    assert sorted(os.listdir(page)) == ["a.svg", "e.svg", "results.json", "results.md"]
    assert sorted(os.listdir(work)) == ["out.json", "page"]


def test_interrupted(command, work):
    """^C while it works: nothing is left."""
    with subprocess.Popen([*command, "--case", "a"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as process:
        assert "pushing" in process.stderr.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode == 130
    assert os.listdir(work) == []
