# SPDX-License-Identifier: Apache-2.0
"""What cache-ctl makes of the daemon's answers: none, late ones, large ones, and which fields of JSON are documented."""
import json
import os
import re
import signal
import subprocess

import pytest

from lib.artifacts import modelpack, one_tar
from lib.check import assert_sentence, publish
from lib.content import Tar
from lib.csi import SOURCE
from lib.daemon import program
from lib.sandbox import wait_for


@pytest.fixture(name="stocked")
def stocked_fixture(make_daemon, faulty, work):
    """(daemon, reference) of a daemon that has the artifact."""
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(modelpack(work), "team/model", "v1")
    assert daemon.ctl("pull", reference).code == 0
    return daemon, reference


def start_ctl(daemon, *arguments):
    return subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, *arguments],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_daemon_that_stands_still(stocked):
    daemon, reference = stocked
    following = start_ctl(daemon, "events", "--follow")
    assert following.stdout.readline()
    daemon.process.popen.send_signal(signal.SIGSTOP)
    try:
        waiting = [following] + [start_ctl(daemon, *command) for command in (
            ("status",), ("ls",), ("inspect", reference), ("pull", reference), ("verify",))]
        for process in waiting:
            error = process.communicate(timeout=90)[1]
            assert process.returncode == 3, (process.args, error)
            assert daemon.control_socket in error and "does not answer" in error, error
            assert_sentence(error.strip())
    finally:
        daemon.process.popen.send_signal(signal.SIGCONT)
    assert daemon.ctl("status").code == 0


def test_daemon_that_stops_tells_those_who_follow(stocked):
    daemon = stocked[0]
    following = start_ctl(daemon, "events", "--follow")
    assert following.stdout.readline()
    daemon.stop_clean()
    error = following.communicate(timeout=30)[1]
    assert following.returncode == 1, error
    assert error == "cache-ctl: the daemon is stopping\n"


def test_inspect_of_more_than_one_message(make_daemon, faulty, work):
    """The list of files passes what a gRPC message may have (16 MiB)."""
    daemon, tar, count = make_daemon([faulty.config()]), Tar(work, "tar+gzip"), 5000
    target = "/".join(["x" * 249] * 16)
    for i in range(count):
        tar.add_symlink(f"links/{i % 50}/{i}", target)
    reference = faulty.add(one_tar(work, tar, "application/vnd.oci.image.layer.v1.tar+gzip"), "team/large", "v1")
    assert daemon.ctl("pull", reference).code == 0
    shown = daemon.ctl_json("inspect", reference)
    assert len({f["path"] for f in shown["tree"]}) == len(shown["tree"]) == count + 51
    assert {f["target"] for f in shown["tree"] if f["type"] == "symlink"} == {target}
    assert shown["layers"] and shown["manifest"] and shown["references"] == [reference]
    text = daemon.ctl("inspect", reference).stdout
    assert len([line for line in text.splitlines() if line.startswith("links/") and f" -> {target}" in line]) == count
    with start_ctl(daemon, "inspect", reference) as leaving:  # and one that leaves in the middle
        leaving.stdout.read(1)
        leaving.kill()
    assert daemon.ctl("status").code == 0


def documented_fields():
    """{command: the words in italics of its JSON} of the man page; those of inspect have those of ls too."""
    with open(os.path.join(SOURCE, "docs/man/cache-ctl.1"), encoding="utf-8") as file:
        section = file.read().split(".SH JSON")[1].split(".SH ")[0]
    fields = {}
    for paragraph in section.split(".TP\n")[1:]:
        heads, text = paragraph.split("\n", 1)
        words = set()
        for kind, line in re.findall(r"^\.(I|IR|RI) (.*)$", text, re.M):
            parts = [a or b for a, b in re.findall(r'"([^"]*)"|([^ "]+)', line)]
            words.update(parts if kind == "I" else parts[0::2] if kind == "IR" else parts[1::2])
        for head in heads.split(", "):
            fields[head] = words
    fields["inspect"] = fields["inspect"] | fields["ls"] - {"artifacts"}
    fields["status"] = fields["status"] | fields["inspect"]
    return fields


def names_in(value, skip=()):
    """The names of all members of a JSON document, but not of those beneath `skip`."""
    if isinstance(value, list):
        return set().union(*(names_in(item, skip) for item in value))
    if not isinstance(value, dict):
        return set()
    return set(value).union(*(names_in(item, skip) for name, item in value.items() if name not in skip))


def printed_fields(daemon, faulty, work, reference):
    """{command: the names that it prints}."""
    mounted, fields = os.path.join(work, "mounted"), {}
    os.mkdir(mounted)
    publish(daemon, "pod", reference)
    faulty.rate = 500_000
    slow = start_ctl(daemon, "pull", faulty.add(modelpack(work, seed="slow"), "team/slow", "v1"))
    wait_for(lambda: daemon.ctl_json("status")["pulls"], "a pull that runs")
    for command in (("status",), ("pull", reference), ("ls",), ("inspect", reference), ("mount", reference, mounted),
                    ("umount", mounted), ("verify",), ("events",)):
        result = daemon.ctl("--output", "json", *command)
        assert result.code == 0, result
        streams = command[0] in ("pull", "verify", "events")
        document = [json.loads(line) for line in result.stdout.splitlines()] if streams else json.loads(result.stdout)
        if command[0] == "status":  # the names of features are no fields
            document["features"] = list(document["features"].values())
        fields[command[0]] = names_in(document, {"manifest"})
    faulty.rate = 0
    slow.communicate(timeout=60)
    removed = daemon.ctl_json("rm", f"{faulty.host}/team/slow:v1")
    return {**fields, "rm": names_in(removed), "prune": names_in(daemon.ctl_json("prune"))}


def test_man_page_has_every_field(stocked, faulty, work):
    daemon, reference = stocked
    documented = documented_fields()
    for command, names in printed_fields(daemon, faulty, work, reference).items():
        assert names, command
        missing = names - documented[command]
        assert not missing, f"cache-ctl(1) does not name {missing} of {command}"
