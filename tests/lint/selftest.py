#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Proves that each lint check finds the bad sample made for it, and nothing in a good tree."""
import os
import shutil
import sys
import tempfile

import lint

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
HEAD = lint.SPDX + "\n/* sample: a file for the self-test. */\n"
GOOD = HEAD + '#include "base/other.h"\n\nint sample(void) {\n    return 0;\n}\n'


def function(name, lines):
    return f"int {name}(void) {{\n" + "    name();\n" * (lines - 2) + "}\n\n"


# (check, file, content, part of the finding)
BAD = [
    (lint.check_functions, "base/a.c", HEAD + function("big", 101), "big() has 101 lines, limit 100"),
    (lint.check_functions, "base/a.c", HEAD + function("a", 21) + function("b", 22), "median"),
    (lint.check_functions, "base/a.c", HEAD + "".join(function(f"f{i}", 3) for i in range(8)) +
     function("p", 60) + function("q", 60), "90th percentile"),
    (lint.check_parameters, "base/a.h", HEAD + "int f(int a, int b, int c, int d, int e, int f, int g);\n",
     "f() takes 7 parameters, limit 6"),
    (lint.check_parameters, "base/a.c", HEAD + "static SIGNATURE_OF(their_callback) g;\n"
     "static int f(int a, int b, int c, int d, int e, int f, int g) {\n    return 0;\n}\n", "f() takes 7"),
    (lint.check_parameters, "base/a.c", HEAD + "int f(int a, void (*b)(int, int), int c,\n    int d, "
     "int e, int f, int g) {\n    return 0;\n}\n", "takes 7 parameters"),
    (lint.check_file_length, "base/a.c", HEAD + "\n" * 699, "a.c:701: 701 lines, limit 700"),
    (lint.check_file_length, "tool", "#!/usr/bin/env bash\n" + ":\n" * 700, "limit 700"),
    (lint.check_includes, "base/a.c", HEAD + '#include "cache/store.h"\n', "base/ includes cache/store.h"),
    (lint.check_includes, "ctl/a.c", HEAD + '#include "oci/ref.h"\n', "ctl/ includes oci/ref.h"),
    (lint.check_includes, "csi/a.c", HEAD + '#include "agent/pull.h"\n', "csi/ includes agent/pull.h"),
    (lint.check_includes, "oci/a.c", HEAD + '#include "ref.h"\n', "folder/name.h"),
    (lint.check_includes, "oci/a.c", HEAD + "".join(f'#include "base/h{i}.h"\n' for i in range(13)),
     "13 own includes, limit 12"),
    (lint.check_head, "base/a.c", "/* sample: a file for the self-test. */\n", "a.c:1:"),
    (lint.check_head, "base/a.h", lint.SPDX + "\n#pragma once\n", "a.h:2:"),
    (lint.check_format, "base/a.c", HEAD + "int  f( void ){return 0;}\n", "clang-format"),
    (lint.check_unfinished, "base/a.c", HEAD + "/* TO" + "DO: later */\n", "a.c:3: says"),
    (lint.check_unfinished, "a.py", "# FIX" + "ME\n", "a.py:1: says"),
    (lint.check_unfinished, "CMakeLists.txt", "# " + "X" * 3 + "\n", "says"),
    (lint.check_shell, "tool", "#!/bin/bash\nif [ $1 = a; then\n", "(shellcheck)"),
    (lint.check_python, "a.py", "def f(:\n", "a.py:1:"),
]
# What looks bad and is not.
FINE = [
    (lint.check_unfinished, "base/a.c", HEAD + 'char t[] = "/tmp/a-' + "X" * 6 + '";\n'),
    (lint.check_functions, "base/a.c", HEAD + function("f", 20)),
    (lint.check_parameters, "base/a.c", HEAD + "int f(void (*a)(int, int, int, int), int b, int c);\n"),
    (lint.check_parameters, "base/a.c", HEAD + "static SIGNATURE_OF(their_callback) f;\n"
     "static int f(int a, int b, int c, int d, int e, int f, int g) {\n    return 0;\n}\n"),
    (lint.check_includes, "agent/a.c", HEAD + '#include "csi/server.h"\n#include "agent/b.h"\n'),
    (lint.check_includes, "tests/unit/test_a.c", HEAD + '#include "agent/b.h"\n'),
]


def findings(check, path, content):
    with tempfile.TemporaryDirectory(prefix="mc-lint-") as root:
        shutil.copy(os.path.join(HERE, "../../.clang-format"), root)
        full = os.path.join(root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as file:
            file.write(content)
        return check(lint.Tree(root))


def main():
    failures = 0
    for check, path, content, want in BAD:
        if check is lint.check_shell and not shutil.which("shellcheck"):
            print("skipped: shellcheck is not installed")
            continue
        got = findings(check, path, content)
        if not any(want in line for line in got):
            print(f"{check.__name__} does not find '{want}' in {path}: {got}")
            failures += 1
    for check in lint.CHECKS:
        FINE.append((check, "base/a.c", GOOD))
    for check, path, content in FINE:
        got = findings(check, path, content)
        if got:
            print(f"{check.__name__} finds something in a good file {path}: {got}")
            failures += 1
    untested = set(lint.CHECKS) - {bad[0] for bad in BAD}
    for check in untested:
        print(f"{check.__name__} has no bad sample")
    print(f"lint self-test: {len(BAD)} bad and {len(FINE)} good samples, {failures} failures")
    return 1 if failures or untested else 0


if __name__ == "__main__":
    sys.exit(main())
