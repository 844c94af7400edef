# SPDX-License-Identifier: Apache-2.0
"""The image of deploy/daemonset/Containerfile, made without a registry of images: its steps, done on a base of our own.

The stage that builds is done on this machine, in a folder with what its COPY lines name; the stage that is kept, in a
chroot."""
import filecmp
import json
import os
import re
import shlex
import shutil

from lib.debian import cache_lock, cached_root, run
from lib.deploy import CACHE, SOURCE, read
from lib.sandbox import need

CONTAINERFILE = "deploy/daemonset/Containerfile"
SUITE = "bookworm"


def instructions():
    """The stages of the Containerfile, each a list of (instruction, rest of the line)."""
    text = re.sub(r"^#.*\n", "", read(CONTAINERFILE), flags=re.M)
    stages = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if not line.strip():
            continue
        name, rest = line.split(None, 1)
        if name == "FROM":
            stages.append([])
        if stages:
            stages[-1].append((name, rest))
    assert len(stages) == 2, "one stage builds, one is kept"
    return stages


def all_of(stage, name):
    return [rest for found, rest in stage if found == name]


def runtime_packages():
    """What the stage that is kept installs."""
    [command] = all_of(instructions()[1], "RUN")
    words = re.search(r"apt-get install (.*?) &&", command)[1].split()
    return [word for word in words if not word.startswith("-")]


def entrypoint():
    [text] = all_of(instructions()[1], "ENTRYPOINT")
    return json.loads(text)


def same_files(source, path):
    """`path` becomes a copy of the file or folder.  What is the same already keeps its time, for the next build."""
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
        names = os.listdir(source)
        for name in set(os.listdir(path)) - set(names):
            run("rm", "-r", "--", os.path.join(path, name))
        for name in names:
            same_files(os.path.join(source, name), os.path.join(path, name))
    elif not os.path.exists(path) or not filecmp.cmp(source, path, shallow=False):
        shutil.copy(source, path)


def build_context(folder):
    """What COPY lays into the stage that builds."""
    for line in all_of(instructions()[0], "COPY"):
        *sources, destination = line.split()
        for source in sources:
            path = os.path.join(folder, destination, os.path.basename(source) if destination == "./" else "")
            os.makedirs(os.path.dirname(os.path.normpath(path)), exist_ok=True)
            same_files(os.path.join(SOURCE, source), os.path.normpath(path))


def build_programs(destination):
    """Does the RUN lines of the stage that builds, but for the packages, which are here; /out is `destination`."""
    folder = os.path.join(CACHE, "image-src")
    build_context(folder)
    steps = all_of(instructions()[0], "RUN")
    assert steps[0] == "tools/install-deps build" and len(steps) == 2
    assert "DESTDIR=/out " in steps[1]
    run("sh", "-ec", steps[1].replace("DESTDIR=/out ", f"DESTDIR={shlex.quote(destination)} "), cwd=folder)


def make_kept(folder, command):
    """`folder` becomes the root of the stage that is kept, without what it copies."""
    run("mmdebstrap", "--variant=minbase", "--format=directory", SUITE, folder)
    shutil.copy("/etc/resolv.conf", os.path.join(folder, "etc/resolv.conf"))
    run("chroot", folder, "/bin/sh", "-ec", command, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                                                          "DEBIAN_FRONTEND": "noninteractive"})


def copy_programs(out, root):
    for line in all_of(instructions()[1], "COPY"):
        source, destination = re.fullmatch(r"--from=build /out(\S+) (\S+)", line).groups()
        shutil.copytree(out + source, root + destination, dirs_exist_ok=True)


def make_image(folder):
    """Does all of the Containerfile; returns the image's root.  Skips where the base cannot be made."""
    need("cmake", "ninja")
    root, out = os.path.join(folder, "root"), os.path.join(folder, "out")
    [command] = all_of(instructions()[1], "RUN")
    cached_root(root, "image", command, lambda: make_kept(root, command))
    with cache_lock():
        build_programs(out)
    copy_programs(out, root)
    return root
