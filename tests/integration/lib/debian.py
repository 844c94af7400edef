# SPDX-License-Identifier: Apache-2.0
"""Root file systems of Debian, made by mmdebstrap and kept in our cache."""
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import subprocess

import pytest

from lib.deploy import CACHE
from lib.sandbox import need

UNREACHABLE = r"Could not resolve|Failed to fetch|Temporary failure|Could not connect"


def run(*argv, **options):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, **options)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(argv)} failed:\n{done.stdout[-4000:]}")
    return done.stdout


@contextlib.contextmanager
def cache_lock():
    """Of the cache, which other checkouts use too."""
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, "image.lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cached_root(folder, name, recipe, make):
    """make() fills the folder, by what `recipe` says: our cache has it as long as that is the same.  Skips where Debian's
    archive is not reachable."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it makes a root of Debian")
    need("mmdebstrap")
    path = os.path.join(CACHE, f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}.tar")
    os.makedirs(folder)
    with cache_lock():
        if os.path.exists(path):
            run("tar", "-C", folder, "-xpf", path)
            return
        try:
            make()
        except RuntimeError as error:
            if re.search(UNREACHABLE, str(error)):
                pytest.skip(f"Debian's archive is not reachable: {str(error)[-200:]}")
            raise
        run("tar", "-C", folder, "-cpf", path + ".new", ".")
        os.rename(path + ".new", path)


def debian_root(folder, suite, packages):
    """`folder` becomes a Debian with these packages besides the essential ones and apt."""
    options = ["--variant=minbase", "--format=directory", f"--include={','.join(packages)}",
               "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
               "--dpkgopt=path-exclude=/usr/share/locale/*"]
    cached_root(folder, suite, " ".join(options), lambda: run("mmdebstrap", *options, suite, folder))
