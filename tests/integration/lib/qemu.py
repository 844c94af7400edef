# SPDX-License-Identifier: Apache-2.0
"""Debian kernels that are not the host's, run by qemu's TCG: no KVM, no network, nothing installed on the host.

The guest's root is an ext4 image made of the host's own Python, libraries and our programs; NVMe and ext4 are built
into Debian's cloud kernels, so it needs neither initramfs nor modules.  What is written to the image is thrown away."""
import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
import time

CACHE = os.path.expanduser("~/.cache/modelcached-tests/kernels")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRRORS = ("http://deb.debian.org/debian", "http://archive.debian.org/debian")
PYTHON_NOT_NEEDED = ("test", "idlelib", "ensurepip", "lib2to3", "pydoc_data", "turtledemo", "tkinter", "config-3*")


class Unavailable(Exception):
    """What a guest needs cannot be had here."""


class Apt:
    """apt-get for one suite with lists and settings of its own beneath `folder`: the host's are neither read nor changed.
    Packages are proved by Debian's signature."""

    def __init__(self, folder, mirror, suite):
        self.folder = folder
        for name in ("state/lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(folder, name), exist_ok=True)
        with open(os.path.join(folder, "sources.list"), "w", encoding="ascii") as file:
            file.write(f"deb [signed-by={KEYRING}] {mirror} {suite} main\n")
        with open(os.path.join(folder, "status"), "w", encoding="ascii"):
            pass
        settings = {"Dir::State": "state", "Dir::State::status": "status", "Dir::Cache": "cache",
                    "Dir::Etc::sourcelist": "sources.list"}
        self.options = [f"-o{key}={folder}/{value}" for key, value in settings.items()]
        self.options += ["-oDir::Etc::sourceparts=-", "-oAcquire::Languages=none", "-oAPT::Sandbox::User=root",
                         "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false", "-q"]

    def run(self, program, *arguments):
        done = subprocess.run([program, *self.options, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise Unavailable(f"{program} {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def fetch_kernel(self):
        """Unpacks the cloud kernel of the suite into folder/unpacked."""
        self.run("apt-get", "-oAPT::Update::Error-Mode=any", "update")
        depends = self.run("apt-cache", "depends", "linux-image-cloud-amd64")
        found = re.search(r"Depends: (linux-image-\d\S*)", depends)
        if not found:
            raise Unavailable(f"linux-image-cloud-amd64 names no kernel: {depends}")
        self.run("apt-get", "download", found[1])
        [package] = glob.glob(os.path.join(self.folder, "*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, os.path.join(self.folder, "unpacked")], check=True)


def kernel(suite):
    """The path of the kernel of a Debian suite, from the cache or from Debian."""
    path = os.path.join(CACHE, suite, "vmlinuz")
    if os.path.exists(path):
        return path
    if not shutil.which("apt-get") or not os.path.exists(KEYRING):
        raise Unavailable("not a Debian system: no apt-get or no debian-archive-keyring")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    errors = []
    for mirror in MIRRORS:  # an old suite moves to the archive
        with tempfile.TemporaryDirectory(prefix="mc-it-apt-") as folder:
            try:
                Apt(folder, mirror, suite).fetch_kernel()
            except Unavailable as error:
                errors.append(str(error))
                continue
            [image] = glob.glob(os.path.join(folder, "unpacked/boot/vmlinuz-*"))
            shutil.copyfile(image, path + ".new")
            os.rename(path + ".new", path)
            return path
    raise Unavailable(f"no kernel of {suite}: {'; '.join(errors)}")


def libraries(paths):
    """The libraries and the loader that the programs and modules need, as ldd names them."""
    output = subprocess.run(["ldd", *paths], capture_output=True, text=True, check=False).stdout
    return sorted(set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", output, re.MULTILINE)))


def make_ext4(path, root, mib):
    """The folder `root`, with its extended attributes, becomes a file system in a file."""
    with open(path, "wb") as file:
        file.truncate(mib << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, path], check=True)
    shutil.rmtree(root)


class Image:
    """A root file system in the making: a folder that becomes an ext4 image."""

    def __init__(self, folder):
        self.root, self.path = os.path.join(folder, "root"), os.path.join(folder, "root.img")
        for name in ("bin", "dev", "etc", "lib64", "mnt", "proc", "run", "sys", "tmp", "usr/bin", "var/lib"):
            os.makedirs(os.path.join(self.root, name))
        self.write("etc/passwd", "root:x:0:0::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n")
        self.write("etc/hosts", "127.0.0.1 localhost\n")
        self.elf = []

    def write(self, path, text):
        with open(os.path.join(self.root, path), "w", encoding="utf-8") as file:
            file.write(text)

    def copy(self, source, path=None, without=()):
        """Copies a file (or what a symlink names) or a folder to `path`, by default where it is on the host."""
        target = os.path.join(self.root, (path or source).lstrip("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(source):
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns(*without),
                            ignore_dangling_symlinks=True)
        elif not os.path.exists(target):
            shutil.copy2(source, target)

    def program(self, source, path=None):
        self.copy(source, path)
        self.elf.append(source)

    def python(self, *packages):
        """The system's Python with these packages of Debian's."""
        folder = f"/usr/lib/{os.path.basename(os.path.realpath('/usr/bin/python3'))}"
        self.program("/usr/bin/python3")
        self.copy(folder, without=PYTHON_NOT_NEEDED)
        for package in packages:
            self.copy(f"/usr/lib/python3/dist-packages/{package}")
        for place in (f"{folder}/lib-dynload", *(f"/usr/lib/python3/dist-packages/{p}" for p in packages)):
            self.elf += glob.glob(f"{place}/**/*.so", recursive=True)

    def make(self, mib):
        """Writes the image, of that size, with the libraries of all programs."""
        for library in libraries(self.elf):
            self.copy(library)
        make_ext4(self.path, self.root, mib)
        return self


class Run:
    """One boot of the image's file: `lines` are the JSON documents that the guest wrote to its second serial line."""

    def __init__(self, folder, kernel_path, image_path, boot, seconds):
        console, results = (os.path.join(folder, name) for name in ("console", "results"))
        start = time.monotonic()
        argv = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1G",
                "-nodefaults", "-no-reboot", "-display", "none", "-serial", f"file:{console}",
                "-serial", f"file:{results}", "-device", "nvme,drive=root,serial=root",
                "-drive", f"file={image_path},format=raw,if=none,id=root,snapshot=on",
                "-kernel", kernel_path, "-append",
                f"console=ttyS0 quiet panic=-1 root=/dev/nvme0n1 rootwait rw {boot}"]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds,
                                  check=False)
            self.end = f"qemu ended with {done.returncode} {done.stderr[-1000:]}"
        except subprocess.TimeoutExpired:
            self.end = f"the guest was stopped after {seconds} s"
        self.seconds = time.monotonic() - start
        with open(console, encoding="utf-8", errors="replace") as file:
            self.console = file.read()
        with open(results, encoding="utf-8", errors="replace") as file:
            self.lines = [json.loads(line) for line in file if line.endswith("\n")]
