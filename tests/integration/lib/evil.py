# SPDX-License-Identifier: Apache-2.0
"""A pull worker that was taken over: what it says to the daemon, and does in its folder, is the test's to choose.

install() puts it beside a copy of the daemon; the test's file of Python statements runs in it with `w`, a Worker."""
import hashlib
import json
import os
import shutil
import socket
import struct
import subprocess

PROGRAM = """#!/usr/bin/python3 -I
import sys
sys.path[:0] = [{here!r}, {folder!r}]
import evil, worker_pb2
evil.main(worker_pb2, {script!r})
"""
SOCKET_FD, FOLDER_FD = 3, 4
RAW, TAR = 0, 1
FILE, DIRECTORY, SYMLINK, HARDLINK, WHITEOUT, OPAQUE = range(6)


def install(folder, binaries, source):
    """Fills `folder` with the programs, ours as modelcached-pull; the statements go to folder/script."""
    os.makedirs(folder)
    for name in ("modelcached", "cache-ctl"):
        shutil.copy2(os.path.join(binaries, name), folder)
    subprocess.run(["protoc", f"-I{source}/proto", f"--python_out={folder}", "worker.proto"], check=True)
    path = os.path.join(folder, "modelcached-pull")
    with open(path, "w", encoding="utf-8") as file:
        file.write(PROGRAM.format(here=os.path.dirname(__file__), folder=folder,
                                  script=os.path.join(folder, "script")))
    os.chmod(path, 0o755)


class Worker:
    """Speaks the protocol of proto/worker.proto, well or not."""

    def __init__(self, pb):
        self.pb = pb
        self.socket = socket.socket(fileno=SOCKET_FD)
        self.job = self._job()

    def _job(self):
        """The first message but for those that come ahead of it; with it the folder, which becomes FOLDER_FD."""
        while True:
            first, descriptors, _, _ = socket.recv_fds(self.socket, 1, 1)
            if not first:
                os._exit(0)  # nobody needs it
            message = self.receive(first)
            if descriptors:
                os.dup2(descriptors[0], FOLDER_FD)
                return message.job

    def receive(self, begin=b""):
        size = struct.unpack("<I", begin + self.exactly(4 - len(begin)))[0]
        return self.pb.ToWorker.FromString(self.exactly(size))

    def exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                os._exit(0)  # the daemon has ended this pull
            data += piece
        return data

    def send(self, **message):
        data = self.pb.FromWorker(**message).SerializeToString()
        self.socket.sendall(struct.pack("<I", len(data)) + data)

    def hello(self):
        self.send(hello=self.pb.Hello())

    def layer(self, digest, size, kind=RAW, path="file", **more):
        return self.pb.LayerInfo(digest=digest, size=size, media_type="x/y", kind=kind, path=path, **more)

    def resolve(self, layers, manifest=None, **more):
        """Hello, Resolved, and the daemon's plan."""
        manifest = manifest or json.dumps({"layers": ["sha256:" + layer.digest.hex() for layer in layers]}).encode()
        self.hello()
        fields = {"digest": sha256(manifest), "media_type": "application/vnd.oci.image.manifest.v1+json",
                  "family": "oras", "manifest": manifest, "layers": layers, **more}
        self.send(resolved=self.pb.Resolved(**fields))
        while True:
            message = self.receive()
            if message.WhichOneof("message") == "plan":
                return list(message.plan.fetch)

    def entry(self, path, data=None, kind=FILE, **more):
        fields = {"type": kind, "path": path, **more}
        if data is not None:
            fields = {"digest": sha256(data), "size": len(data), **fields}
        return self.pb.Entry(**fields)

    def entries(self, layer, *entries):
        self.send(entries=self.pb.Entries(layer=layer, entries=entries))

    def layer_done(self, layer, *entries):
        self.entries(layer, *entries)
        self.send(layer_done=self.pb.LayerDone(layer=layer))

    def done(self):
        self.send(done=self.pb.Done())

    def tar(self, *entries, digest=None):
        """A whole pull of one tar layer with these entries."""
        for index in self.resolve([self.layer(digest or os.urandom(32), 10, TAR, "")]):
            self.layer_done(index, *entries)
        self.done()

    def raw(self, data, digest=None, ingest="0", **more):
        """A whole pull of one raw layer, whose digest may be a lie."""
        digest = digest or sha256(data)
        for index in self.resolve([self.layer(digest, len(data), **more)], more.get("manifest")):
            self.layer_done(index, self.entry("file", data, digest=digest, ingest=ingest))
        self.done()


def sha256(data):
    return hashlib.sha256(data).digest()


def write(name, data):
    """A file in the pull's folder."""
    with open(f"/proc/self/fd/{FOLDER_FD}/{name}", "wb") as file:
        file.write(data)
    return name


def become_nobody():
    """As a worker that its sandbox has reached; the rest of the sandbox is not there."""
    owner = os.fstat(FOLDER_FD)
    os.setgroups([])
    os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
    os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def main(pb, script):
    worker = Worker(pb)
    if worker.job.probe:
        worker.hello()
        return
    with open(script, encoding="utf-8") as file:
        text = file.read()
    become_nobody()
    os.chdir(FOLDER_FD)
    exec(compile(text, script, "exec"), {**globals(), "w": worker, "pb": pb})  # pylint: disable=exec-used
