# SPDX-License-Identifier: Apache-2.0
"""cache-ctl: every command for people and for programs, its exit codes, its documentation."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import pytest

from lib.artifacts import MIB, modelpack
from lib.check import assert_pulls, assert_sentence, assert_store_good, publish, store_names, wait_idle
from lib.content import assert_tree
from lib.csi import SOURCE
from lib.daemon import program, run
from lib.sandbox import mounts_beneath, need, wait_for

COMMANDS = {"pull": 1, "ls": 0, "inspect": 1, "rm": 1, "prune": 0, "mount": 2, "umount": 1, "verify": 0, "status": 0,
            "events": 0, "health": 0}
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"
DIGEST = r"sha256:[0-9a-f]{64}"
LOST = "model-00001-of-00002.safetensors"


@pytest.fixture(name="made")
def made_fixture(work):
    return modelpack(work)


@pytest.fixture(name="stocked")
def stocked_fixture(make_daemon, faulty, made):
    """(daemon, reference) of a daemon that has the artifact."""
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    assert daemon.ctl("pull", reference).code == 0
    return daemon, reference


def ctl_without_daemon(*arguments, env=None):
    path = program("cache-ctl")
    if not path:
        pytest.skip("cache-ctl is not built")
    return run([path, *arguments], 20, {**os.environ, **(env or {})})


def lines_of_json(text):
    return [json.loads(line) for line in text.splitlines()]


# The commands.

def test_pull_without_a_terminal(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    faulty.rate = 8 * MIB
    result = daemon.ctl("pull", reference)
    assert result.code == 0, result
    assert "\033" not in result.stdout and "\r" not in result.stdout, "colours or bars without a terminal"
    assert result.stdout.splitlines()[-1].startswith(f"{reference} is here: {made.digest}")
    assert re.search(r"^fetching: \d+ % \(.* of .*\)", result.stdout, re.M), result.stdout
    assert not result.stderr
    again = daemon.ctl("pull", reference)
    assert again.code == 0 and "nothing to fetch" in again.stdout, again
    assert daemon.ctl("pull", "--quiet", reference).stdout == made.digest + "\n"


def test_pull_json(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    faulty.rate = MIB  # long enough for a rate, which is not known in the first second
    steps = lines_of_json(daemon.ctl("--output", "json", "pull", reference).stdout)
    assert {"state", "reference", "digest", "bytes_done", "bytes_total", "bytes_cached", "layers_done",
            "layers_total", "rate", "elapsed_seconds", "waiting", "layers"} <= set(steps[-1])
    last = steps[-1]
    content = sum(layer["size"] for layer in made.layers)
    assert (last["state"], last["digest"], last["reference"]) == ("done", made.digest, reference)
    assert last["bytes_done"] == last["bytes_total"] == content
    assert last["layers_done"] == last["layers_total"] == len(made.layers)
    assert all(layer["done"] for layer in last["layers"])
    order = ["queued", "resolving", "fetching", "committing", "done"]
    states = [order.index(step["state"]) for step in steps]
    assert states == sorted(states), [step["state"] for step in steps]
    done = [step["bytes_done"] for step in steps]
    assert done == sorted(done) and max(done) <= content
    assert any(0 < step["bytes_done"] < content and step["rate"] > 0 for step in steps), "no step between"
    assert last["elapsed_seconds"] > 0


def test_pull_policies(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    assert daemon.ctl("pull", "--policy", "Never", reference).code == 4
    assert daemon.ctl("pull", "--policy", "Sometimes", reference).code == 2
    assert daemon.ctl("pull", reference).code == 0
    asked = len(faulty.requests)
    assert daemon.ctl("pull", "--policy", "IfNotPresent", reference).code == 0
    assert daemon.ctl("pull", "--policy", "Never", reference).code == 0
    assert len(faulty.requests) == asked
    assert daemon.ctl("pull", "--policy", "Always", reference).code == 0
    assert len(faulty.requests) > asked


def test_pull_with_a_password_from_standard_input(make_daemon, make_faulty, made):
    faulty = make_faulty(users={"bob": "s3cret-word"}, auth="basic")
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    argv = [program("cache-ctl"), "--socket", daemon.control_socket, "pull", "--username", "bob", "--password-stdin",
            reference]
    wrong = subprocess.run(argv, input="wrong\n", capture_output=True, text=True, timeout=60, check=False)
    assert wrong.returncode == 5, wrong
    good = subprocess.run(argv, input="s3cret-word\n", capture_output=True, text=True, timeout=60, check=False)
    assert good.returncode == 0, good
    assert ctl_without_daemon("pull", "--username", "bob", reference).code == 2


def test_ls(stocked, made):
    daemon, reference = stocked
    table = daemon.ctl("ls").stdout.splitlines()
    assert table[0].split() == ["REFERENCE", "DIGEST", "KIND", "PLATFORM", "SIZE", "OWN", "FILES", "VOLUMES", "USED"]
    assert table[1].split()[:3] == [reference, made.digest[7:19], "modelpack"]
    assert made.digest in daemon.ctl("ls", "--full").stdout
    [artifact] = daemon.ctl_json("ls")["artifacts"]
    files = [entry for entry in made.tree.values() if entry.kind == "file"]
    assert artifact["references"] == [reference] and artifact["digest"] == made.digest
    assert artifact["files"] == len(files)
    assert artifact["bytes"] == sum(entry.size for entry in files)
    assert artifact["unique_bytes"] == artifact["bytes"]
    assert artifact["family"] == "modelpack" and artifact["volumes"] == 0
    assert artifact["media_type"] == made.media_type
    assert artifact["artifact_type"] == "application/vnd.cncf.model.manifest.v1+json"
    for key in ("created", "used"):
        assert re.fullmatch(TIME, artifact[key])


def test_ls_of_an_empty_cache(make_daemon):
    daemon = make_daemon()
    assert daemon.ctl_json("ls") == {"artifacts": []}
    assert len(daemon.ctl("ls").stdout.splitlines()) == 1


def test_inspect(stocked, made):
    daemon, reference = stocked
    target = publish(daemon, "pod", reference)
    for name in (reference, made.digest, made.digest[7:19]):
        shown = daemon.ctl_json("inspect", name)
        assert shown["digest"] == made.digest, name
    assert shown["manifest"] == json.loads(made.manifest)
    [volume] = shown["volumes"]
    assert (volume["volume_id"], volume["target"], volume["mounted"]) == ("pod", target, True)
    assert {layer["kind"] for layer in shown["layers"]} == {"raw", "tar"}
    files = {f["path"]: f for f in shown["tree"]}
    for path, entry in made.tree.items():
        assert files[path]["type"] == entry.kind
        assert files[path]["target"] == (entry.target or None)
    text = daemon.ctl("inspect", reference).stdout
    for word in (reference, made.digest, "modelpack", "config.json", "code/latest -> part0/file000.txt", "pod", target):
        assert word in text, word


def test_rm(stocked, made):
    daemon, reference = stocked
    removed = daemon.ctl_json("rm", reference)
    assert removed["digest"] == made.digest
    assert removed["bytes_freed"] == sum(entry.size for entry in made.tree.values())
    assert store_names(daemon) == (set(), set())
    assert daemon.ctl("rm", reference).code == 4
    assert "artifact.removed" in daemon.ctl("events").stdout


def test_rm_of_what_is_in_use_is_refused(stocked, made):
    daemon, reference = stocked
    target = publish(daemon, "pod", reference)
    for name in (reference, made.digest):
        result = daemon.ctl("rm", name)
        assert result.code == 1, result
        assert "volume" in result.stderr and "use" in result.stderr, result
    assert_tree(target, made.tree)
    daemon.csi().unpublish("pod", target)
    assert daemon.ctl("rm", reference).code == 0


def test_rm_of_one_of_two_names_keeps_the_artifact(stocked, faulty, made):
    daemon, reference = stocked
    other = faulty.add(made, "team/model", "stable")
    assert daemon.ctl("pull", other).code == 0
    assert daemon.ctl_json("rm", reference)["bytes_freed"] == 0
    assert daemon.ctl_json("ls")["artifacts"][0]["references"] == [other]
    assert daemon.ctl_json("rm", other)["bytes_freed"] > 0


def test_mount_and_umount(stocked, made, work):
    daemon, reference = stocked
    directory = os.path.join(work, "mnt")
    os.makedirs(directory)
    assert daemon.ctl("mount", reference, directory).stdout == f"{made.digest} is mounted read-only on {directory}\n"
    assert_tree(directory, made.tree)
    with pytest.raises(OSError):
        os.unlink(os.path.join(directory, "config.json"))
    assert daemon.ctl("mount", reference, directory).code in (0, 1)  # once more: the same, or in use
    assert len(mounts_beneath(directory)) == 1
    assert daemon.ctl_json("status")["volumes"] == 1
    assert daemon.ctl_json("umount", directory) == {"directory": directory}
    assert os.listdir(directory) == [] and not mounts_beneath(directory)
    code = {path.removeprefix("code/"): e for path, e in made.tree.items() if path.startswith("code/")}
    assert daemon.ctl("mount", "--sub-path", "code", "--exec", reference, directory).code == 0
    assert_tree(directory, code)
    assert subprocess.run([os.path.join(directory, "run.sh")], capture_output=True, check=True).stdout == b"hello\n"
    assert daemon.ctl("umount", directory).code == 0


def test_mount_errors(stocked, work):
    daemon, reference = stocked
    directory = os.path.join(work, "mnt")
    os.makedirs(directory)
    assert daemon.ctl("mount", reference, os.path.join(work, "nowhere")).code == 4
    assert daemon.ctl("mount", "127.0.0.1:1/not/here:v1", directory).code == 4
    assert daemon.ctl("mount", "--sub-path", "../..", reference, directory).code == 2
    assert daemon.ctl("mount", "--sub-path", "not/there", reference, directory).code == 4
    with open(os.path.join(directory, "file"), "w", encoding="ascii"):
        pass
    assert daemon.ctl("mount", reference, directory).code in (1, 2), "a directory that is not empty was covered"
    assert daemon.ctl("umount", directory).code in (1, 4)
    assert os.listdir(directory) == ["file"] and not mounts_beneath(work)


@pytest.mark.parametrize("name", ["", "ingest", "staging", "partial", "objects/00"])
def test_mount_in_the_store_is_refused(stocked, name):
    daemon, reference = stocked
    result = daemon.ctl("mount", reference, os.path.join(daemon.store, name))
    assert result.code == 2 and "lies in the store" in result.stderr, result
    assert not mounts_beneath(daemon.store)


@pytest.mark.parametrize("above", [False, True])
def test_umount_of_a_directory_that_is_gone(stocked, work, above):
    daemon, reference = stocked
    directory = os.path.join(work, "there", "mnt")
    os.makedirs(directory)
    assert daemon.ctl("mount", reference, directory).code == 0
    subprocess.run(["umount", directory], check=True)
    os.rmdir(directory)
    if above:
        os.rmdir(os.path.dirname(directory))
    assert daemon.ctl("rm", reference).code == 1
    done = subprocess.run([program("cache-ctl"), "--socket", daemon.control_socket, "umount", "there/mnt/"], cwd=work,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert done.stdout == f"{directory} is unmounted\n"
    assert daemon.ctl("umount", directory).code == 4
    assert daemon.ctl("umount", os.path.join(work, "there/../mnt")).code == 4
    assert daemon.ctl("rm", reference).code == 0


def test_umount_does_not_touch_mounts_of_others(stocked, work):
    daemon, directory = stocked[0], os.path.join(work, "foreign")
    os.makedirs(directory)
    subprocess.run(["mount", "-t", "tmpfs", "none", directory], check=True)
    assert daemon.ctl("umount", directory).code in (1, 4)
    assert mounts_beneath(directory)


def test_verify(stocked, made):
    daemon, reference = stocked
    objects = store_names(daemon)[0]
    for arguments in ((), (reference,)):
        result = daemon.ctl("verify", *arguments)
        assert result.code == 0, result
        assert result.stdout.splitlines()[-1].startswith(f"{len(objects)} files, ")
    last = lines_of_json(daemon.ctl("--output", "json", "verify").stdout)[-1]
    assert last["objects_done"] == last["objects_total"] == len(objects)
    assert last["bytes_done"] == last["bytes_total"] > 0
    assert last["bad"] == []
    assert daemon.ctl("verify", "127.0.0.1:1/not/here:v1").code == 4
    assert made.digest in daemon.ctl("ls", "--full").stdout


def test_verify_of_an_incomplete_artifact(stocked, made, faulty):
    """What is lost is said each time, and how to mend it, until it is there again."""
    daemon, reference = stocked
    whole = faulty.add(modelpack(daemon.folder, seed=5), "team/whole", "v1")
    assert daemon.ctl("pull", whole).code == 0
    entry = made.tree[LOST]
    os.unlink(os.path.join(daemon.store, "objects", entry.sha256[:2], entry.sha256[2:]))
    assert daemon.ctl("verify", reference).code == 7
    for arguments in ((reference,), ()):
        result = daemon.ctl("verify", *arguments)
        assert result.code == 7 and "what their digests say" not in result.stdout, result
        assert LOST in result.stderr and f"cache-ctl pull {reference}" in result.stderr, result
    assert daemon.ctl("verify", whole).code == 0
    bad = [line["bad"] for line in lines_of_json(daemon.ctl("--output", "json", "verify", reference).stdout)]
    assert "is incomplete" in sum(bad, [])[0]
    assert daemon.ctl("pull", reference).code == 0
    assert daemon.ctl("verify").code == 0


def flip_a_byte(daemon, entry):
    """In the object of the file; its names, time and mode stay."""
    path = os.path.join(daemon.store, "objects", entry.sha256[:2], entry.sha256[2:])
    st = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


@pytest.mark.parametrize("policy", ["IfNotPresent", "Always"])
def test_verify_finds_a_flipped_byte_and_the_next_pull_repairs(stocked, made, policy):
    daemon, reference = stocked
    entry = made.tree["tokenizer.json"]
    flip_a_byte(daemon, entry)
    result = daemon.ctl("verify")
    assert result.code == 7, result
    assert entry.sha256[:12] in result.stderr
    assert_sentence(result.stderr.strip().splitlines()[0])
    assert "verify.bad" in daemon.ctl("events").stdout
    assert daemon.ctl("pull", "--policy", policy, reference).code == 0
    assert daemon.ctl("verify").code == 0
    assert_pulls(daemon, "pod", reference, made.tree)
    assert_store_good(daemon)


def test_verify_of_what_a_volume_shows_and_its_repair(stocked, made):
    daemon, reference = stocked
    target = publish(daemon, "pod", reference)
    flip_a_byte(daemon, made.tree["tokenizer.json"])
    output = daemon.ctl("--output", "json", "verify", reference)
    assert output.code == 7, output
    bad = [sentence for step in lines_of_json(output.stdout) for sentence in step["bad"]]
    assert len(bad) == 1
    publish(daemon, "second", reference)
    assert_tree(target, made.tree)  # the mounted tree is repaired too


def test_status(stocked, made):
    daemon, reference = stocked
    target = publish(daemon, "pod", reference)
    status = daemon.ctl_json("status")
    assert status["node"] == "test-node" and status["store"] == daemon.store
    assert status["store_filesystem"] in ("ext4", "xfs", "btrfs")
    assert status["kernel"] == os.uname().release
    assert (status["artifacts"], status["volumes"], status["pulls"]) == (1, 1, [])
    assert status["objects"] == len(store_names(daemon)[0])
    assert status["store_bytes"] == sum(os.path.getsize(os.path.join(daemon.store, "objects", name))
                                        for name in store_names(daemon)[0])
    free = os.statvfs(daemon.store)
    assert abs(status["filesystem_bytes"] - free.f_blocks * free.f_frsize) < 1 << 20
    assert status["csi_endpoint"] == f"unix://{daemon.csi_socket}"
    assert status["driver"] == "csi.modelcached.dev"
    assert status["mount_shape"] == "tree" and status["mount_detail"]
    assert re.fullmatch(TIME, status["started"])
    [volume] = status["volume_list"]
    assert volume["reference"] == reference and volume["digest"] == made.digest and volume["mounted"]
    text = daemon.ctl("status").stdout
    for word in ("modelcached", "test-node", daemon.store, "tree", target, "pull worker"):
        assert word in text, word


def test_status_shows_the_pulls(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    faulty.rate = 2 * MIB
    with subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, "pull", reference],
                          stdout=subprocess.DEVNULL) as pulling:
        pulls = wait_for(lambda: [p for p in daemon.ctl_json("status")["pulls"] if p["bytes_done"]], "a pull")
        assert pulls[0]["reference"] == reference and pulls[0]["bytes_total"] > pulls[0]["bytes_done"]
        assert reference in daemon.ctl("status").stdout
        assert pulling.wait(60) == 0
    wait_for(lambda: not daemon.ctl_json("status")["pulls"], "no pull", 5)


def test_events(stocked, made):
    daemon, reference = stocked
    daemon.csi().unpublish("pod", publish(daemon, "pod", reference))
    daemon.ctl("pull", f"{reference}-not")
    events = lines_of_json(daemon.ctl("events", "--output", "json").stdout)
    types = [event["type"] for event in events]
    for one in ("daemon.started", "pull.started", "pull.done", "volume.published", "volume.unpublished", "pull.failed"):
        assert one in types, types
    assert [event["id"] for event in events] == sorted({event["id"] for event in events})
    for event in events:
        assert re.fullmatch(TIME, event["time"]) and event["text"]
    published = events[types.index("volume.published")]
    assert (published["volume_id"], published["reference"]) == ("pod", reference)
    assert events[types.index("pull.done")]["digest"] == made.digest
    assert len(lines_of_json(daemon.ctl("events", "--last", "2", "-o", "json").stdout)) == 2
    assert "pull.done" in daemon.ctl("events").stdout
    for bad in ("0", "x", "-3"):
        assert daemon.ctl("events", f"--last={bad}").code == 2


class Following:
    """`cache-ctl events --follow` with lines that are waited for, but not for ever."""

    def __init__(self, daemon, *arguments):
        self.process = subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, *arguments, "events",
                                         "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.data = b""

    def line(self, seconds=10):
        end = time.monotonic() + seconds
        while b"\n" not in self.data:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.process.stdout], [], [], left)[0], f"no line; {self.data!r}"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"it ended: {self.process.stderr.read()}"
            self.data += data
        line, _, self.data = self.data.partition(b"\n")
        return line.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def test_events_follow(stocked):
    daemon, reference = stocked
    with Following(daemon, "-o", "json") as following:
        while json.loads(following.line())["type"] != "pull.done":
            pass
        publish(daemon, "pod", reference)
        event = json.loads(following.line())
        assert (event["type"], event["volume_id"]) == ("volume.published", "pod")
        following.process.send_signal(signal.SIGINT)
        assert following.process.wait(10) == 130


def test_events_follow_ends_with_the_daemon(stocked):
    daemon = stocked[0]
    with Following(daemon) as following:
        following.line()
        daemon.stop_clean()
        assert following.process.wait(10) in (1, 3)
        assert_sentence(following.process.stderr.read().decode().strip().splitlines()[-1])


# Exit codes and wrong usage.

def test_daemon_that_is_not_there(work):
    missing = os.path.join(work, "no.sock")
    for command, count in COMMANDS.items():
        arguments = [work if command in ("mount", "umount") else "host/repo:v1"] * count
        if command == "mount":
            arguments[0] = "host/repo:v1"
        result = ctl_without_daemon("--socket", missing, command, *arguments)
        assert result.code == 3, (command, result)
        assert missing in result.stderr and not result.stdout
        assert_sentence(result.stderr.strip())


def test_socket_from_the_environment(work):
    missing = os.path.join(work, "env.sock")
    assert missing in ctl_without_daemon("status", env={"MODELCACHED_SOCKET": missing}).stderr


@pytest.mark.parametrize("arguments", [
    (), ("dance",), ("--output", "xml", "ls"), ("--nonsense",), ("pull",), ("pull", "a", "b"), ("inspect",), ("rm",),
    ("mount", "a"), ("umount",), ("ls", "extra"), ("pull", "--nonsense", "a"), ("status", "x"), ("verify", "a", "b"),
    ("prune", "x"), ("events", "--last"), ("--socket",), ("--socket", "", "ls"), ("ls", "--socket=")])
def test_wrong_usage(arguments):
    result = ctl_without_daemon(*arguments)
    assert result.code == 2, result
    assert result.stderr and not result.stdout
    assert len(result.stderr.splitlines()) <= 3


def test_exit_codes_4_of_what_is_not_here(make_daemon, faulty):
    daemon, reference = make_daemon([faulty.config()]), f"{faulty.host}/team/missing:v1"
    for command in ("pull", "inspect", "rm", "verify"):
        result = daemon.ctl(command, reference)
        assert result.code == 4, (command, result)
        assert_sentence(result.stderr.strip().splitlines()[-1])
    assert daemon.ctl("inspect", "sha256:" + "0" * 64).code == 4
    assert daemon.ctl("rm", "sha256:" + "0" * 64).code == 4


@pytest.mark.parametrize("command", ["pull", "inspect", "rm", "verify"])
def test_exit_code_2_of_a_bad_reference(make_daemon, command):
    result = make_daemon().ctl(command, "Not A Reference:")
    assert result.code == 2, result


def test_full_standard_output(stocked):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([program("cache-ctl"), "--socket", stocked[0].control_socket, "ls"], stdout=full,
                              stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "standard output" in done.stderr


# On a terminal.

class Terminal:
    """cache-ctl with a pseudo terminal as its output."""

    def __init__(self, daemon, *arguments):
        master, slave = pty.openpty()
        self.master, self.text = master, ""
        self.process = subprocess.Popen([program("cache-ctl"), "--socket", daemon.control_socket, *arguments],
                                        stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
        os.close(slave)

    def read(self, seconds):
        """Reads until nothing comes for so long or the program ends."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # EIO: the other side is closed
                break
            self.text += data.decode(errors="replace")
        return self.text

    def read_until(self, pattern, seconds=20):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, f"no {pattern} in {self.text!r}"
            self.read(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


def test_progress_bar_on_a_terminal(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    faulty.rate = 2 * MIB
    with Terminal(daemon, "pull", reference) as terminal:
        terminal.read_until("is here: " + made.digest)
        assert terminal.process.wait(10) == 0
    assert re.search(r"\r\033\[Kfetching +\[#+\.+\] +\d+ % of [\d.]+ MiB +[\d.]+ [KM]iB/s, .* left", terminal.text), \
        terminal.text
    assert terminal.text.replace("\r\n", "\n").split("\033[K")[-1].startswith(reference), "the bar was left"


def test_interrupted_pull_goes_on(make_daemon, faulty, made):
    daemon = make_daemon([faulty.config()])
    reference = faulty.add(made, "team/model", "v1")
    faulty.rate = 2 * MIB
    with Terminal(daemon, "pull", reference) as terminal:
        terminal.read_until(r"fetching .* [1-9]\d* %")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(10) == 130
        assert "goes on" in terminal.read(0.2)
    assert daemon.ctl_json("status")["pulls"], "the pull ended"
    again = daemon.ctl("pull", reference)
    assert again.code == 0, again
    fetched = faulty.seen("/blobs/")
    assert len({r.path for r in fetched}) == len(fetched), "it began anew"
    wait_idle(daemon)


# What is written about it.

OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*)")


@pytest.fixture(scope="module", name="helps")
def helps_fixture():
    """{command, or "": the options that its --help names}."""
    texts = {name: ctl_without_daemon(*([name] if name else []), "--help") for name in ("", *COMMANDS)}
    for name, result in texts.items():
        assert result.code == 0 and not result.stderr, (name, result)
    return {name: result.stdout for name, result in texts.items()}


def test_help_teaches(helps):
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", helps[""], re.M), command
        assert helps[command].startswith(f"Usage: cache-ctl {command}")
        assert f"\n  cache-ctl {command}" in helps[command], f"{command} --help has no example"
    for code in range(8):
        assert re.search(rf"\b{code} [a-z]", helps[""]), f"exit code {code}"
    for text in helps.values():
        assert all(len(line) <= 120 for line in text.splitlines())


def test_help_names_every_option_that_is_taken(helps):
    for command in COMMANDS:
        for option in set(OPTION.findall(helps[command])) - {"--help", "--version"}:
            result = ctl_without_daemon("--socket", "/nowhere.sock", command, option)
            assert "unrecognized" not in result.stderr, (command, option)


def test_version():
    assert re.fullmatch(r"cache-ctl \d+\.\d+\S*\n", ctl_without_daemon("--version").stdout)


def options_of(text):
    return set(OPTION.findall(text.replace("\\-", "-")))


@pytest.mark.parametrize("page", ["docs/man/cache-ctl.1", "ctl/completions/cache-ctl.bash", "ctl/completions/_cache-ctl",
                                  "ctl/completions/cache-ctl.fish"])
def test_pages_name_every_command_and_option(helps, page):
    with open(os.path.join(SOURCE, page), encoding="utf-8") as file:
        text = file.read()
    if page.endswith(".fish"):
        text += " ".join(f" --{name}" for name in re.findall(r"-l ([a-z-]+)", text))
    wanted = set().union(*map(options_of, helps.values()))
    # Options are pages' duty; help texts also name options of other programs in examples, such as jq -r.
    missing = {option for option in wanted if option not in options_of(text)}
    if page.startswith("ctl/"):
        missing -= {"--help"} if page.endswith("fish") else set()
    assert not missing, f"{page} does not name {missing}"
    too_much = options_of(text) - wanted
    assert not too_much, f"{page} names {too_much}, which --help does not"
    for command in COMMANDS:
        assert re.search(rf"\b{command}\b", text), f"{page} does not name {command}"


def test_man_page_is_well_formed():
    need("man")
    page = os.path.join(SOURCE, "docs/man/cache-ctl.1")
    done = subprocess.run(["man", "--warnings", "-l", page], capture_output=True, text=True, check=False,
                          env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"})
    assert done.returncode == 0 and not done.stderr, done.stderr
    for code in range(8):
        assert re.search(rf"^ +{code} +\w", done.stdout, re.M), f"exit status {code}"


def complete_bash(line):
    """What bash would offer at the end of the line."""
    script = os.path.join(SOURCE, "ctl/completions/cache-ctl.bash")
    words = line.split(" ")
    code = (f'source "{script}"; COMP_WORDS=({" ".join(repr(w) for w in words)}); COMP_CWORD={len(words) - 1}; '
            '_cache_ctl; printf "%s\\n" "${COMPREPLY[@]}"')
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True).stdout.split()


def test_bash_completion_works():
    assert set(COMMANDS) <= set(complete_bash("cache-ctl "))
    assert complete_bash("cache-ctl st") == ["status"]
    assert "--policy" in complete_bash("cache-ctl pull --p")
    assert complete_bash("cache-ctl pull --policy A") == ["Always"]
    assert "json" in complete_bash("cache-ctl --output ")
