# SPDX-License-Identifier: Apache-2.0
# ctest: refused soak
"""A worker that was taken over lies to the daemon: nothing wrong becomes visible, nothing stays, the daemon goes on."""
import os
import shutil
import tarfile

import grpc
import pytest

from lib import evil
from lib.artifacts import MIB, modelpack, one_tar
from lib.check import need_programs, publish_error
from lib.content import Tar
from lib.daemon import Daemon

SOURCE = os.environ.get("MC_SRC") or os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
PINNED = "evil.test/pinned@sha256:" + "a" * 64
ESCAPE = "\x1b[31m"


class Attack:
    """A daemon whose workers run what the test says."""

    def __init__(self, work):
        os.chmod(work, 0o755)  # the program is read as nobody
        self.folder = os.path.join(work, "bin")
        evil.install(self.folder, os.environ["MC_BIN"], SOURCE)
        self.script("")
        self.n, self.daemon, saved = 0, None, os.environ["MC_BIN"]
        os.environ["MC_BIN"] = self.folder
        try:
            self.daemon = Daemon(os.path.join(work, "daemon")).start()
        finally:
            os.environ["MC_BIN"] = saved

    def script(self, text):
        with open(os.path.join(self.folder, "script"), "w", encoding="utf-8") as file:
            file.write(text)

    def pull(self, script, reference=None, seconds=60):
        self.n += 1
        self.script(script)
        result = self.daemon.ctl("pull", reference or f"evil.test/pull{self.n}:v1", seconds=seconds)
        assert self.daemon.alive(), self.daemon.log()[-4000:]
        assert not self.daemon.left_in_ingest()
        return result

    def refused(self, script, *words, **options):
        result = self.pull(script, **options)
        assert result.code != 0, result
        for word in words:
            assert word in result.stderr, result.stderr
        assert not [item for item in self.daemon.ctl_json("ls")["artifacts"] if f"pull{self.n}:" in str(item)]


@pytest.fixture(name="attack", scope="module")
def attack_fixture(module_work):
    if not shutil.which("protoc"):
        pytest.skip("protoc is not installed")
    need_programs()
    attack = Attack(module_work)
    yield attack
    attack.daemon.stop_clean()


def test_the_harness_can_pull(attack):
    result = attack.pull("w.raw(b'good', ingest=write('0', b'good'))")
    assert result.code == 0, result
    assert attack.daemon.ctl("verify").code == 0


ORDER = {
    "resolved first": ("w.send(resolved=pb.Resolved())", "while hello"),
    "done at once": ("w.hello(); w.done()", "while resolving"),
    "hello twice": ("w.hello(); w.hello()", "while resolving"),
    "before the plan": ("w.hello(); m = b'{}'\n"
                        "w.send(resolved=pb.Resolved(digest=sha256(m), media_type='a', family='b', manifest=m))\n"
                        "w.layer_done(0)", "broke its protocol"),  # the plan may be on its way
    "a layer is missing": ("w.resolve([w.layer(sha256(b'm'), 1)]); w.done()", "are missing"),
    "not asked for": ("w.resolve([w.layer(sha256(b'n'), 1)]); w.layer_done(7)", "was not asked for"),
    "giant length": ("w.socket.sendall(b'\\xff' * 100000)", "a message of"),
    "empty messages": ("w.hello(); w.socket.sendall(bytes(400000))", "message 0"),
    "half a message": ("w.hello(); w.socket.sendall(b'\\xff\\0\\0\\0abc')", "exit code 0"),
    "garbage": ("w.socket.sendall(b'\\x04\\0\\0\\0\\xff\\xff\\xff\\xff')", "not a message"),
    "failed well": ("w.send(failed=pb.Failed(error=0, text='x'))", "failed with error 0"),
    "fds are sent": ("import array\nfor i in range(20):\n  w.socket.sendmsg([bytes(4)], [(socket.SOL_SOCKET, "
                     "socket.SCM_RIGHTS, array.array('i', [4] * 100))])", "message 0"),
}


@pytest.mark.parametrize("name", ORDER)
def test_messages(attack, name):
    attack.refused(*ORDER[name])


CLAIMS = {
    "manifest digest": ("w.resolve([], b'{}', digest=sha256(b'no'))", "not what its digest"),
    "layers": ("w.resolve([w.layer(os.urandom(32), 1) for i in range(8193)])", "8193 layers"),
    "layer size": ("w.resolve([w.layer(os.urandom(32), (1 << 64) - 1)])", "layer of 18446744073709551615"),
    "sum of sizes": ("w.resolve([w.layer(os.urandom(32), 1 << 46) for i in range(3)])", "layers of"),
    "more than fits": ("w.resolve([w.layer(os.urandom(32), 1 << 45)])", "free in"),
    "raw is another": ("w.resolve([w.layer(sha256(b'other'), 2)])\n"
                       "w.layer_done(0, w.entry('f', b'rr', ingest=write('0', b'rr')))", "not what the layer says"),
    "raw without a file": ("w.resolve([w.layer(sha256(b'none'), 2)]); w.layer_done(0)", "0 entries"),
    "no file": ("w.tar(w.entry('a', b'never'))", "no file came"),
    "size": ("w.tar(w.entry('a', b'sz', size=3, ingest=write('0', b'sz')))", "were announced"),
    "two sizes": ("w.tar(w.entry('a', b's', ingest=write('0', b's')), w.entry('b', b's', size=7))", "two different"),
    "type": ("w.tar(w.entry('a', kind=9))", "type 9"),
    "link loop": ("w.tar(w.entry('a', kind=HARDLINK, target='b'), w.entry('b', kind=HARDLINK, target='a'))", "no file"),
    "symlink out": ("w.tar(w.entry('l', kind=SYMLINK, target='../../etc'))", "outside"),
    "too many entries": ("w.resolve([w.layer(bytes(32), 1, TAR, '')]); b = b'\\x12\\x00' * 3000000\n"
                         "m = b'\\x22\\x80\\x9b\\xee\\x02' + b; w.socket.sendall(struct.pack('<I', len(m)) + m)",
                         "not a message"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims(attack, name):
    attack.refused(*CLAIMS[name])


@pytest.mark.parametrize("path", ["", ".", "..", "../x", "/etc/passwd", "a//b", "a/../b", "a/", "x" * 256, "ab/" * 2000 + "c"])
def test_paths(attack, path):
    attack.refused(f"w.tar(w.entry({path!r}, b'p', ingest=write('0', b'p')))", "unsafe name")


@pytest.mark.parametrize("name", [".", "..", "../x", "/etc/passwd", "a/b"])
def test_names_in_the_folder(attack, name):
    attack.refused(f"w.tar(w.entry('a', b'n', ingest={name!r}))", "unsafe file")


FILES = {
    "symlink": ("os.symlink('/etc/shadow', '0')\n"
                "w.tar(w.entry('a', digest=bytes(32), size=os.stat('/etc/shadow').st_size, ingest='0'))", "a symlink"),
    "fifo": ("os.mkfifo('0'); w.tar(w.entry('a', b'', ingest='0'))", "not a regular file"),
    "directory": ("os.mkdir('0'); w.tar(w.entry('a', digest=bytes(32), size=4096, ingest='0'))", "not a regular file"),
    "two names": ("os.link(write('0', b'two'), '1'); w.tar(w.entry('a', b'two', ingest='0'))", "one name"),
    "absent": ("w.tar(w.entry('a', b'absent', ingest='0'))", "cannot open"),
    "two digests": ("write('0', b'd1'); w.tar(w.entry('a', b'd1', ingest='0'), w.entry('b', b'd2', ingest='0'))",
                    "layer 1 of 1"),
    "open": ("write('0', b'open'); f = open('0', 'r+b'); w.tar(w.entry('a', b'open', ingest='0'))\n"
             "import time; time.sleep(5)", "open for writing"),
    "mapped": ("import mmap, time; write('0', bytes(4096)); f = open('0', 'r+b'); m = mmap.mmap(f.fileno(), 0)\n"
               "f.close(); w.tar(w.entry('a', bytes(4096), ingest='0')); time.sleep(5)", "open for writing"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(attack, name):
    attack.refused(*FILES[name])


def test_what_it_leaves_is_removed(attack):
    attack.refused("for i in range(300):\n  os.mkdir('d'); os.chdir('d')\nw.hello(); w.done()")
    attack.refused("os.mkdir('d'); os.chmod('d', 0); os.chmod('.', 0); w.hello(); w.done()")
    attack.refused("os.rename('../' + os.path.basename(os.getcwd()), '../other'); w.hello()", "exit code 1")


def test_texts_are_cleaned(attack):
    result = attack.pull("w.send(failed=pb.Failed(error=5, text='a\\x1b[31m\\nb' + 'x' * 10000))")
    assert ESCAPE not in result.stderr and result.stderr.count("\n") == 1 and len(result.stderr) < 1000
    attack.pull("import sys\nfor i in range(20000): sys.stderr.write('\\x1b[31mflood\\n')")
    assert attack.daemon.log().count("flood") <= 100


def test_names_are_cleaned(attack):
    result = attack.pull("w.tar(w.entry('a', b'esc', ingest='0\\x1b[31m'))")
    assert ESCAPE not in result.stderr


def test_content_of_others_is_not_poisoned(attack):
    attack.pull("w.raw(b'EVIL', digest=sha256(b'GOOD'), ingest=write('0', b'EVIL'))")
    attack.pull("for i in w.resolve([w.layer(sha256(b'GOOD'), 4)]):\n"
                "  w.layer_done(i, w.entry('file', b'GOOD', ingest=write('0', b'GOOD')))\nw.done()", "victim.test/good:v1")
    target = attack.daemon.target("poisoned")
    attack.daemon.csi().publish("poisoned", target, "victim.test/good:v1", pullPolicy="IfNotPresent")
    try:
        with open(os.path.join(target, "file"), "rb") as file:
            assert file.read() == b"GOOD"
    finally:
        attack.daemon.csi().unpublish("poisoned", target)
        attack.daemon.ctl("verify")  # takes the damaged object out


def test_pinned_index(attack):
    assert attack.pull("w.resolve([], b'{}', index_digest=bytes.fromhex('a' * 64)); w.done()", PINNED).code != 0


def test_a_sparse_file_is_no_content(attack):
    attack.refused("open('0', 'wb').truncate(8 << 40)\n"
                   "w.tar(w.entry('a', digest=b's' * 32, size=8 << 40, ingest='0'))")


def test_deep_paths_are_refused(make_daemon, faulty, work):
    tar = Tar(work, "tar+zstd")
    for i in range(4):
        tar.add(Tar.info(f"{i}/" + "/".join(["a"] * 2040), tarfile.DIRTYPE))
    reference = faulty.add(one_tar(work, tar, "application/vnd.oci.image.layer.v1.tar+zstd"), "evil/deep", "v1")
    result = make_daemon([faulty.config()]).ctl("pull", reference)
    assert result.code != 0 and "deep" in result.stderr, result


def test_a_private_artifact_needs_its_credentials(make_daemon, make_faulty, work):
    """test_access.py has the rest."""
    private = make_faulty(users={"user": "secret"}, auth="basic")
    daemon = make_daemon([private.config()])
    reference = private.add(modelpack(work, sizes=(MIB,)), "team/private", "v1")
    target = daemon.target("owner")
    daemon.csi().publish("owner", target, reference, secrets={"username": "user", "password": "secret"})
    daemon.csi().unpublish("owner", target)
    code, _ = publish_error(daemon, "thief", reference, pullPolicy="IfNotPresent")
    assert code == grpc.StatusCode.UNAUTHENTICATED
