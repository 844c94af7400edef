# SPDX-License-Identifier: Apache-2.0
"""`cmake --install` of the release build: everything where a distribution puts it, and it works from there."""
import os
import re
import shutil
import subprocess

import pytest

from lib.artifacts import modelpack
from lib.check import need_programs
from lib.content import assert_tree
from lib.csi import SOURCE
from lib.daemon import Daemon, run
from lib.sandbox import need

PROGRAMS = {"bin/modelcached", "bin/cache-ctl", "libexec/modelcached/modelcached-pull"}
PLACES = {
    *PROGRAMS,
    "lib/systemd/system/modelcached.service",
    "share/man/man1/cache-ctl.1", "share/man/man8/modelcached.8", "share/man/man8/modelcached-pull.8",
    "share/man/man5/modelcached-config.5",
    "share/bash-completion/completions/cache-ctl", "share/zsh/site-functions/_cache-ctl",
    "share/fish/vendor_completions.d/cache-ctl.fish",
}


@pytest.fixture(scope="module", name="build")
def build_fixture():
    """The release build's folder."""
    need_programs(release=True)
    need("cmake")
    return os.path.dirname(os.environ["MC_RELEASE_BIN"])


@pytest.fixture(scope="module", name="prefix")
def prefix_fixture(build):
    """CMAKE_INSTALL_PREFIX of the build."""
    with open(os.path.join(build, "CMakeCache.txt"), encoding="utf-8") as file:
        return re.search(r"^CMAKE_INSTALL_PREFIX:PATH=(\S+)$", file.read(), re.M)[1]


@pytest.fixture(scope="module", name="root")
def root_fixture(build, prefix, module_work):
    """What is the prefix beneath a DESTDIR that was installed to."""
    destination = os.path.join(module_work, "root")
    done = subprocess.run(["cmake", "--install", build], capture_output=True, text=True, check=False,
                          env={**os.environ, "DESTDIR": destination})
    assert done.returncode == 0, done.stderr
    return destination + prefix


def files_beneath(root):
    return {os.path.relpath(os.path.join(folder, name), root) for folder, _, names in os.walk(root) for name in names}


def test_everything_is_in_its_place(root):
    found = files_beneath(root)
    assert not PLACES - found
    assert any(re.fullmatch(r"etc/modelcached/config\.yaml", path) for path in found), found
    assert any(path.startswith("share/doc/") for path in found)


def test_nothing_else_is_installed(root):
    strange = [path for path in files_beneath(root) if re.search(r"\.(a|h|o|py|cmake)$|test|fuzz|bench", path)]
    assert not strange


def test_modes(root):
    for path in files_beneath(root):
        mode = os.stat(os.path.join(root, path)).st_mode & 0o7777
        assert mode == (0o755 if path in PROGRAMS else 0o644), f"{path}: {mode:o}"


def elf_facts(path):
    def readelf(*options):
        return subprocess.run(["readelf", "-W", *options, path], capture_output=True, text=True, check=True).stdout
    return readelf("-h") + readelf("-l") + readelf("-d") + readelf("-s")


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_programs_are_hardened(root, name):
    need("readelf")
    facts = elf_facts(os.path.join(root, name))
    assert re.search(r"Type:\s+DYN", facts), "no position independent executable"
    assert "GNU_RELRO" in facts and re.search(r"BIND_NOW|NOW", facts)
    assert re.search(r"GNU_STACK.* RW +0x", facts), "an executable stack"
    assert "__stack_chk_fail" in facts
    assert re.search(r"__\w+_chk\b", facts.replace("__stack_chk_fail", "")), "no FORTIFY_SOURCE"
    assert not re.search(r"RPATH|RUNPATH", facts)
    assert "asan" not in facts


def test_unit_names_the_installed_program(root):
    with open(os.path.join(root, "lib/systemd/system/modelcached.service"), encoding="utf-8") as file:
        unit = file.read()
    assert "@" not in unit.replace("@system-service", "")
    start = re.search(r"^ExecStart=(\S+) --config (\S+)$", unit, re.M)
    assert start[1].endswith("/bin/modelcached") and start[2].endswith("/modelcached/config.yaml")
    assert "Type=notify" in unit


def test_unit_is_good_for_systemd(root, module_work):
    need("systemd-analyze")
    path = os.path.join(root, "lib/systemd/system/modelcached.service")
    here = os.path.join(module_work, "modelcached.service")
    with open(path, encoding="utf-8") as file, open(here, "w", encoding="utf-8") as out:
        out.write(re.sub(r"^ExecStart=\S+", f"ExecStart={root}/bin/modelcached", file.read(), flags=re.M))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", here], capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "modelcached" in line]
    assert not complaints, complaints


def test_installed_config_is_accepted(root):
    [path] = [path for path in files_beneath(root) if path.endswith("etc/modelcached/config.yaml")]
    result = run([os.path.join(root, "bin/modelcached"), "--config", os.path.join(root, path), "--check-config"], 20)
    assert result.code == 0, result


def test_installing_again_keeps_an_edited_config(root, build, module_work):
    [path] = [os.path.join(root, path) for path in files_beneath(root) if path.endswith("etc/modelcached/config.yaml")]
    with open(path, "a", encoding="utf-8") as file:
        file.write("# edited\n")
    subprocess.run(["cmake", "--install", build], capture_output=True, check=True,
                   env={**os.environ, "DESTDIR": os.path.join(module_work, "root")})
    with open(path, encoding="utf-8") as file:
        assert file.read().endswith("# edited\n")


@pytest.mark.parametrize("page", ["man1/cache-ctl.1", "man8/modelcached.8", "man8/modelcached-pull.8",
                                  "man5/modelcached-config.5"])
def test_man_pages_are_well_formed(root, page):
    need("man")
    done = subprocess.run(["man", "--warnings", "-l", os.path.join(root, "share/man", page)], capture_output=True,
                          text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"})
    assert done.returncode == 0 and not done.stderr, done.stderr
    for section in ("NAME", "DESCRIPTION", "SEE ALSO"):
        assert f"\n{section}\n" in done.stdout, f"no {section}"


def test_config_page_names_every_key(root):
    help_text = run([os.path.join(root, "bin/modelcached"), "--help"], 20).stdout
    keys = re.findall(r"^  ([a-z_]+(?:\[\])?(?:\.[a-z_]+)*) \(default", help_text, re.M)
    assert len(keys) > 10, help_text
    with open(os.path.join(root, "share/man/man5/modelcached-config.5"), encoding="utf-8") as file:
        page = file.read().replace("\\-", "-")
    with open(os.path.join(SOURCE, "docs/config.md"), encoding="utf-8") as file:
        markdown = file.read()
    for key in keys:
        assert key in page, f"modelcached-config(5) does not name {key}"
        assert f"`{key}`" in markdown, f"docs/config.md does not name {key}"


def test_helps_of_the_programs(root):
    for name in ("modelcached", "cache-ctl"):
        for option in ("--help", "--version"):
            result = run([os.path.join(root, "bin", name), option], 20)
            assert result.code == 0 and result.stdout and not result.stderr, result


LAUNCHER = """#!/bin/sh
# The installed daemon, where its prefix says, in a mount name space of its own.
exec unshare --mount sh -c 'mount --bind "$0" {prefix} && exec {prefix}/bin/modelcached "$@"' {root} "$@"
"""


def use_installed(root, prefix, folder):
    """Programs that run as if DESTDIR were the root."""
    os.makedirs(folder)
    path = os.path.join(folder, "modelcached")
    with open(path, "w", encoding="utf-8") as file:
        file.write(LAUNCHER.format(root=root, prefix=prefix))
    os.chmod(path, 0o755)
    shutil.copy2(os.path.join(root, "bin/cache-ctl"), folder)


def use_side_by_side(root, _, folder):
    """All three in one folder."""
    os.makedirs(folder)
    for name in PROGRAMS:
        shutil.copy2(os.path.join(root, name), folder)


@pytest.mark.parametrize("use", [use_installed, use_side_by_side])
def test_daemon_finds_its_worker(root, prefix, faulty, work, monkeypatch, use):
    need("unshare")
    if use is use_installed and not os.path.isdir(prefix):
        pytest.skip(f"there is no {prefix} to mount on")
    folder = os.path.join(work, "bin")
    use(root, prefix, folder)
    monkeypatch.setenv("MC_BIN", folder)
    daemon, artifact = Daemon(os.path.join(work, "d"), [faulty.config()]), modelpack(work)
    try:
        daemon.start()
        result = daemon.ctl("pull", faulty.add(artifact, "team/model", "v1"))
        assert result.code == 0, result
        assert_tree(os.path.join(daemon.store, "trees", artifact.digest.removeprefix("sha256:")), artifact.tree)
    finally:
        daemon.close()
