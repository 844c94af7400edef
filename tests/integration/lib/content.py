# SPDX-License-Identifier: Apache-2.0
"""Bytes for tests, made as they are read: blobs, tar archives and the trees they become."""
import dataclasses
import gzip
import hashlib
import io
import os
import random
import stat
import subprocess
import tarfile
import tempfile

CHUNK = 1 << 20


class Blob:
    """`size` bytes that chunks() gives again and again; `digest` is "sha256:…"."""

    def __init__(self, size):
        self.size = size
        self._sha256 = None

    def chunks(self):
        raise NotImplementedError

    @property
    def sha256(self):
        if self._sha256 is None:
            state = hashlib.sha256()
            for chunk in self.chunks():
                state.update(chunk)
            self._sha256 = state.hexdigest()
        return self._sha256

    @property
    def digest(self):
        return "sha256:" + self.sha256

    def read(self):
        """All of it; for small ones."""
        return b"".join(self.chunks())


class Bytes(Blob):
    """Bytes at hand."""

    def __init__(self, data):
        super().__init__(len(data))
        self.data = data if isinstance(data, bytes) else data.encode()

    def chunks(self):
        for start in range(0, len(self.data), CHUNK):
            yield self.data[start:start + CHUNK]


class Random(Blob):
    """Incompressible bytes that `seed` decides.  Every MiB begins with its number, so none equals another."""

    def __init__(self, size, seed):
        super().__init__(size)
        self.seed = str(seed)

    def chunks(self):
        block = random.Random(self.seed).randbytes(min(CHUNK, self.size))
        for number, start in enumerate(range(0, self.size, CHUNK)):
            chunk = number.to_bytes(8, "little") + block[8:] if number else block
            yield chunk[:self.size - start]


class Text(Blob):
    """Compressible lines that `seed` decides."""

    def __init__(self, size, seed):
        super().__init__(size)
        self.seed = str(seed)

    def chunks(self):
        pick, left = random.Random(self.seed), self.size
        words = [f"{pick.getrandbits(40):x}" for _ in range(200)]
        while left > 0:
            text = " ".join(pick.choices(words, k=min(8192, left))).encode()[:left]
            left -= len(text)
            yield text


class File(Blob):
    """A file on disk (not changed while it is used)."""

    def __init__(self, path):
        super().__init__(os.path.getsize(path))
        self.path = path

    def chunks(self):
        with open(self.path, "rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk


class Reader(io.RawIOBase):
    """A file object over a blob's chunks, for tarfile and http.client."""

    def __init__(self, blob):
        super().__init__()
        self.chunks, self.rest = blob.chunks(), b""

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self.rest:
            self.rest = next(self.chunks, b"")
        count = min(len(buffer), len(self.rest))
        buffer[:count] = self.rest[:count]
        self.rest = self.rest[count:]
        return count

    def read(self, size=-1):
        """Like a buffered file: short only at the end (tarfile relies on it)."""
        parts, left = [], size
        while left != 0:
            part = super().read(left if left > 0 else CHUNK)
            if not part:
                break
            parts.append(part)
            left -= len(part) if left > 0 else 0
        return b"".join(parts)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One path of an expected or real tree."""
    kind: str  # "file" "directory" "symlink"
    sha256: str = ""
    size: int = 0
    executable: bool = False
    target: str = ""


def file_entry(blob, mode=0o644):
    return Entry("file", blob.sha256, blob.size, bool(mode & 0o111))


def with_parents(tree):
    """The tree with a directory entry for each parent."""
    full = dict(tree)
    for path in tree:
        while path := os.path.dirname(path):
            full.setdefault(path, Entry("directory"))
    return full


def tree_at(root):
    """{relative path: Entry} of what really lies beneath the directory."""
    found = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            relative = os.path.relpath(path, root)
            if stat.S_ISLNK(st.st_mode):
                found[relative] = Entry("symlink", target=os.readlink(path))
            elif stat.S_ISDIR(st.st_mode):
                found[relative] = Entry("directory")
            elif stat.S_ISREG(st.st_mode):
                blob = File(path)
                found[relative] = Entry("file", blob.sha256, st.st_size, bool(st.st_mode & 0o111))
            else:
                found[relative] = Entry(f"mode {st.st_mode:o}")
    return found


def assert_tree(root, expected):
    """The directory holds exactly `expected` (parents are implied), byte for byte."""
    want, got = with_parents(expected), tree_at(root)
    wrong = [f"missing: {p}" for p in sorted(want.keys() - got.keys())]
    wrong += [f"too much: {p} {got[p]}" for p in sorted(got.keys() - want.keys())]
    wrong += [f"{p}: {got[p]}, want {want[p]}" for p in sorted(want.keys() & got.keys())
              if got[p] != want[p]]
    assert not wrong, f"{root} is not the expected tree:\n" + "\n".join(wrong[:20])


class Tar:
    """Builds a tar in a file of `folder`; `tree` follows what unpacking it gives.

    codec: "tar", "tar+gzip" or "tar+zstd".  add() takes any TarInfo, so hostile ones can be made."""

    def __init__(self, folder, codec="tar"):
        self.codec, self.tree = codec, {}
        handle, self.path = tempfile.mkstemp(suffix=".tar", dir=folder)
        self.file = os.fdopen(handle, "wb")
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.PAX_FORMAT)
        self.blobs = {}

    @staticmethod
    def info(name, kind=tarfile.REGTYPE, mode=0o644, **fields):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.mtime = kind, mode, 1700000000
        for key, value in fields.items():
            setattr(info, key, value)
        return info

    def add(self, info, blob=None):
        info.size = blob.size if blob else info.size
        self.tar.addfile(info, Reader(blob) if blob else None)

    def add_file(self, name, blob, mode=0o644):
        self.add(self.info(name, mode=mode), blob)
        self.tree[name], self.blobs[name] = file_entry(blob, mode), blob

    def add_directory(self, name, mode=0o755):
        self.add(self.info(name, tarfile.DIRTYPE, mode))
        self.tree[name] = Entry("directory")

    def add_symlink(self, name, target):
        self.add(self.info(name, tarfile.SYMTYPE, 0o777, linkname=target))
        self.tree[name] = Entry("symlink", target=target)

    def add_hardlink(self, name, target):
        self.add(self.info(name, tarfile.LNKTYPE, linkname=target))
        self.tree[name] = self.tree[target]

    def close(self):
        """Returns (blob of the layer, digest of the plain tar)."""
        self.tar.close()
        self.file.close()
        plain = File(self.path)
        diff_id = plain.digest
        if self.codec == "tar":
            return plain, diff_id
        path = self.path + (".gz" if self.codec == "tar+gzip" else ".zst")
        if self.codec == "tar+gzip":
            with open(path, "wb") as raw, gzip.GzipFile("", "wb", 1, raw, 0) as out:
                for chunk in plain.chunks():
                    out.write(chunk)
        elif self.codec == "tar+zstd":
            subprocess.run(["zstd", "-q", "-1", "-o", path, self.path], check=True)
        else:
            raise ValueError(self.codec)
        os.unlink(self.path)
        return File(path), diff_id
