# SPDX-License-Identifier: Apache-2.0
"""The daemon's end of one modelcached-pull: starts it, sends the job and the plan, collects what it says."""
import importlib
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile

from lib.sandbox import refuse_io_uring

UID = 61235  # the pull's folder belongs to it when the tests run as root


def messages(folder):
    """The classes of proto/worker.proto."""
    source = os.environ.get("MC_SRC", os.path.join(os.path.dirname(__file__), "../../.."))
    out = tempfile.mkdtemp(dir=folder)
    subprocess.run(["protoc", f"-I{source}/proto", f"--python_out={out}", "worker.proto"], check=True)
    sys.path.insert(0, out)
    try:
        return importlib.import_module("worker_pb2")
    finally:
        sys.path.remove(out)


class Worker:
    """One process.  `folder` is the pull's; .hello, .resolved, .layers {index: entries}, .done, .failed fill up.
    no_uring: io_uring is refused to it.  ahead: what it hears before its job, the fields of an Ahead.  meanwhile():
    called between the two.  within: a command that executes the program."""

    # pylint: disable-next=too-many-arguments
    def __init__(self, program, folder, pb, job, no_uring=False, ahead=None, meanwhile=None, within=()):
        self.pb, self.folder, self.no_uring = pb, folder, no_uring
        self.hello = self.resolved = self.failed = None
        self.layers, self.entries, self.progress, self.waiting, self.done = {}, {}, {}, [], False
        self.resumed, self.ahead, self.content_max = {}, {}, 1 << 40
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            os.chown(folder, UID, UID)
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(60)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.process = self._spawn([*within, program], theirs.fileno())
        theirs.close()
        if ahead is not None:
            self.send(pb.ToWorker(ahead=pb.Ahead(**ahead)))
        if meanwhile:
            meanwhile()
        self.send(pb.ToWorker(job=job), [directory])
        os.close(directory)

    def _spawn(self, argv, sock):
        def arrange():
            if self.no_uring:
                refuse_io_uring()
            os.dup2(os.dup2(sock, 100), 3)

        return subprocess.Popen(argv, preexec_fn=arrange, close_fds=False)

    def send(self, message, descriptors=()):
        data = message.SerializeToString()
        data = struct.pack("<I", len(data)) + data
        sent = socket.send_fds(self.socket, [data], descriptors) if descriptors else 0
        self.socket.sendall(data[sent:])

    def plan(self, *layers, more=False):
        """Asks for these layers, by default all; all that were asked for may bring .content_max bytes."""
        layers = layers or range(len(self.resolved.layers))
        self.send(self.pb.ToWorker(plan=self.pb.Plan(fetch=layers, more=more, content_max_bytes=self.content_max)))

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                return None
            data += piece
        return data

    def receive(self):
        """Takes one message in; None at the end of the stream."""
        head = self._exactly(4)
        if head is None:
            return None
        message = self.pb.FromWorker.FromString(self._exactly(struct.unpack("<I", head)[0]))
        kind = message.WhichOneof("message")
        if kind == "progress":
            self.progress.update({item.index: item.bytes for item in message.progress.layers})
            self.resumed.update({item.index: item.resumed for item in message.progress.layers})
            self.ahead.update({item.index: item.ahead for item in message.progress.layers})
            self.waiting += [message.progress.waiting] if message.progress.waiting else []
        elif kind == "entries":
            assert len(message.entries.entries) <= 1000
            self.entries.setdefault(message.entries.layer, []).extend(message.entries.entries)
        elif kind == "layer_done":
            index = message.layer_done.layer
            self.layers[index] = self.entries.pop(index, [])
            self._prove_closed(index)
        elif kind == "done":
            self.done = True
        else:
            setattr(self, kind, getattr(message, kind))
        return kind

    def _prove_closed(self, index):
        """Nobody writes to the layer's files any more: a read lease is given (fcntl(2))."""
        import fcntl  # pylint: disable=import-outside-toplevel
        for entry in self.layers[index]:
            if entry.ingest:
                handle = os.open(os.path.join(self.folder, entry.ingest), os.O_RDONLY)
                fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
                os.close(handle)

    def until(self, kind):
        while True:
            got = self.receive()
            assert got is not None, f"the worker ended before {kind}"
            if got == kind:
                return self
            assert got != "failed", self.failed.text

    def finish(self):
        """Reads to the end; returns the exit code."""
        while self.receive() is not None:
            pass
        return self.process.wait(timeout=60)

    def close(self):
        self.socket.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        return self.process.wait(timeout=60)

    def file(self, entry):
        """The bytes of a file entry, which may be with another one of its content."""
        for entries in self.layers.values():
            for other in entries:
                if other.ingest and other.digest == entry.digest and other.executable == entry.executable:
                    with open(os.path.join(self.folder, other.ingest), "rb") as file:
                        return file.read()
        raise AssertionError(f"nobody brings {entry.path}")


def cpu_seconds():
    """Of the children that were waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
