#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the style rules that a program can check: lint.py ROOT [PREFIX...].

With prefixes (agent/, tests/unit/test_buf.c) only the files beneath them are looked at.  Prints one line a
finding, "file:line: what, limit", and ends with 1 when there is any.
"""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys

FUNCTION_MAX, FUNCTION_MEDIAN, FUNCTION_P90 = 100, 20, 50
FILE_MAX, PARAMETERS_MAX, INCLUDES_MAX = 700, 6, 12
SPDX = "/* SPDX-License-Identifier: Apache-2.0 */"
# Each folder with those whose headers it may include.
DIRECTION = {"base": "", "proto": "base", "cache": "base proto", "oci": "base proto cache",
             "csi": "base proto cache oci", "agent": "base proto cache oci csi", "ctl": "base proto"}
SKIPPED_FOLDERS = {".git", "build", "corpus", "__pycache__", ".cache", ".pytest_cache"}
UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" * 3]) + r")\b")
INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


class Tree:
    """The files of ROOT that lint looks at, as paths relative to it."""

    def __init__(self, root, prefixes=()):
        self.root = root
        self.files = []
        for folder, names, files in os.walk(root):
            names[:] = sorted(n for n in names if n not in SKIPPED_FOLDERS)
            for name in sorted(files):
                path = os.path.relpath(os.path.join(folder, name), root)
                if not prefixes or path.startswith(tuple(prefixes)):
                    self.files.append(path)
        self.c_files = [p for p in self.files if p.endswith((".c", ".h"))]

    def lines(self, path):
        try:
            with open(os.path.join(self.root, path), encoding="utf-8") as file:
                return file.read().splitlines()
        except UnicodeDecodeError:
            return []

    def is_shell(self, path):
        if path.endswith(".sh"):
            return True
        if os.path.splitext(path)[1]:
            return False
        with open(os.path.join(self.root, path), "rb") as file:
            return re.match(rb"#!.*\b(ba)?sh\b", file.readline()) is not None

    def run(self, *command):
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=False)


def need(tool):
    if not shutil.which(tool):
        sys.exit(f"lint: {tool} is not installed; run tools/install-deps")


def parameter_count(signature):
    """Top-level commas of "(int a, void (*cb)(int, int))", plus one."""
    inner = signature.strip()[1:-1].strip()
    if inner in ("", "void"):
        return 0
    depth = commas = 0
    for char in inner:
        depth += (char in "([{") - (char in ")]}")
        commas += char == "," and depth == 0
    return commas + 1


def ctags(tree, kinds):
    if not tree.c_files:
        return []
    need("ctags")
    result = subprocess.run(
        ["ctags", "--options=NONE", "--output-format=json", "--fields=+neS", f"--kinds-C={kinds}",
         "--langmap=C:.c.h", "-L", "-", "-f", "-"],
        cwd=tree.root, input="\n".join(tree.c_files), capture_output=True, text=True, check=False)
    if result.returncode != 0:
        return [{"_type": "error", "text": result.stderr.strip()}]
    return [json.loads(line) for line in result.stdout.splitlines()]


def check_functions(tree):
    """Function lengths."""
    found, sizes = [], []
    for tag in ctags(tree, "f"):
        if tag["_type"] == "error":
            return [f"ctags: {tag['text']}"]
        if "end" not in tag:
            continue
        size = tag["end"] - tag["line"] + 1
        sizes.append((size, tag))
        if size > FUNCTION_MAX:
            found.append(f"{tag['path']}:{tag['line']}: {tag['name']}() has {size} lines, "
                         f"limit {FUNCTION_MAX}")
    if not sizes:
        return found
    sizes.sort(key=lambda item: item[0])
    median = statistics.median(size for size, _ in sizes)
    p90, tag = sizes[min(len(sizes) - 1, len(sizes) * 9 // 10)]
    if median > FUNCTION_MEDIAN:
        found.append(f".:0: median function has {median:g} lines, limit {FUNCTION_MEDIAN}")
    if p90 > FUNCTION_P90:
        found.append(f"{tag['path']}:{tag['line']}: 90th percentile of functions ({tag['name']}()) has "
                     f"{p90} lines, limit {FUNCTION_P90}")
    return found


def dictated(tree):
    """{(path, name)} of functions whose signature is the typedef of somebody else's callback, as a declaration
    with base/macro.h's SIGNATURE_OF() proves to the compiler."""
    matches = ((path, re.match(r"static SIGNATURE_OF\(\w+\) (\w+);", line))
               for path in tree.c_files if path.endswith(".c") for line in tree.lines(path))
    return {(path, match[1]) for path, match in matches if match}


def check_parameters(tree):
    """Parameters of functions and prototypes."""
    found, exempt = [], dictated(tree)
    for tag in ctags(tree, "fp"):
        if tag["_type"] == "error":
            return [f"ctags: {tag['text']}"]
        count = parameter_count(tag.get("signature", "()"))
        if count > PARAMETERS_MAX and (tag["path"], tag["name"]) not in exempt:
            found.append(f"{tag['path']}:{tag['line']}: {tag['name']}() takes {count} parameters, "
                         f"limit {PARAMETERS_MAX}")
    return found


def check_file_length(tree):
    """Lines a file."""
    found = []
    for path in tree.files:
        if path.endswith((".c", ".h", ".py", ".proto", ".cmake")) or tree.is_shell(path):
            count = len(tree.lines(path))
            if count > FILE_MAX:
                found.append(f"{path}:{FILE_MAX + 1}: {count} lines, limit {FILE_MAX}")
    return found


def check_includes(tree):
    """Number, form and direction of our own includes."""
    found = []
    for path in tree.c_files:
        folder, count = path.split("/")[0], 0
        for number, line in enumerate(tree.lines(path), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            count += 1
            target = match[1].split("/")[0]
            if "/" not in match[1]:
                found.append(f'{path}:{number}: "{match[1]}" is not written "folder/name.h"')
            elif folder in DIRECTION and target != folder and target not in DIRECTION[folder].split():
                found.append(f"{path}:{number}: {folder}/ includes {match[1]}, allowed: {folder} "
                             f"{DIRECTION[folder]}".rstrip())
        if count > INCLUDES_MAX:
            found.append(f"{path}:1: {count} own includes, limit {INCLUDES_MAX}")
    return found


def check_head(tree):
    """Line 1 SPDX, line 2 what the file is for."""
    found = []
    for path in tree.c_files:
        lines = tree.lines(path) + ["", ""]
        if lines[0] != SPDX:
            found.append(f"{path}:1: is not {SPDX}")
        if not re.match(r"/\* \S.{8,}", lines[1]):
            found.append(f"{path}:2: is not a comment that says what the file is for")
    return found


def check_format(tree):
    """clang-format has nothing to change."""
    if not tree.c_files:
        return []
    need("clang-format")
    places = {}
    for line in tree.run("clang-format", "--dry-run", "-Werror", "--style=file",
                         *tree.c_files).stderr.splitlines():
        match = re.match(r"(\S+?):(\d+):\d+: error: ", line)
        if match:
            places.setdefault(match[1], []).append(match[2])
    return [f"{path}:{lines[0]}: clang-format changes {len(lines)} places, limit 0; run clang-format -i"
            for path, lines in places.items()]


def check_unfinished(tree):
    """No word that says that something is unfinished."""
    found = []
    for path in tree.files:
        if not path.endswith((".c", ".h", ".py", ".proto", ".cmake", ".txt")) and not tree.is_shell(path):
            continue
        for number, line in enumerate(tree.lines(path), 1):
            match = UNFINISHED.search(line)
            if match:
                found.append(f"{path}:{number}: says {match[1]}: finish it or file an issue")
    return found


def check_shell(tree):
    """shellcheck, where it is installed."""
    scripts = [p for p in tree.files if tree.is_shell(p)]
    if not scripts or not shutil.which("shellcheck"):
        return []
    output = tree.run("shellcheck", "-x", "-f", "gcc", "--", *scripts).stdout
    return [f"{line} (shellcheck)" for line in output.splitlines() if ": note: " not in line]


def check_python(tree):
    """Python that compiles."""
    found = []
    for path in tree.files:
        if path.endswith(".py"):
            try:
                compile("\n".join(tree.lines(path)) + "\n", path, "exec")
            except SyntaxError as error:
                found.append(f"{path}:{error.lineno}: {error.msg}")
    return found


CHECKS = (check_functions, check_parameters, check_file_length, check_includes, check_head, check_format,
          check_unfinished, check_shell, check_python)


def main(arguments):
    if not arguments:
        sys.exit("usage: lint.py ROOT [PREFIX...]")
    tree = Tree(arguments[0], arguments[1:])
    if not tree.files:
        sys.exit("lint: no file to look at")
    found = [finding for check in CHECKS for finding in check(tree)]
    for finding in found:
        print(finding)
    print(f"lint: {len(tree.files)} files, {len(CHECKS)} checks, {len(found)} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
