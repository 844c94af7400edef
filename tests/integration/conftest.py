# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests.  A file whose tests were all skipped ends with 77, which ctest knows."""
import os

import pytest

from lib import sandbox
from lib.daemon import Daemon, program
from lib.faulty import FaultyRegistry
from lib.registry import Registry

ALL_SKIPPED = 77


@pytest.fixture(scope="session", autouse=True)
def _sweep():
    sandbox.sweep()


def _work_dir():
    path = sandbox.make_work_dir()
    yield path
    sandbox.remove_work_dir(path)


@pytest.fixture
def work():
    """A folder of the test's own; what is mounted beneath it is unmounted."""
    yield from _work_dir()


@pytest.fixture(scope="module")
def module_work():
    """The same for all tests of a file."""
    yield from _work_dir()


@pytest.fixture(scope="module")
def registry(module_work):
    """A docker-registry for the tests of a file."""
    if not Registry.available():
        pytest.skip("docker-registry is not installed")
    registry = Registry(os.path.join(module_work, "registry"))
    yield registry
    registry.stop()


@pytest.fixture
def make_registry(work):
    """make_registry(users=…, tls=…): docker-registries of the test's own."""
    made = []

    def make(**options):
        if not Registry.available(options.get("tls", False)):
            pytest.skip("docker-registry or nginx is not installed")
        made.append(Registry(os.path.join(work, f"registry{len(made)}"), **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def make_faulty(work):
    """make_faulty(tls=…, users=…, auth=…): FaultyRegistries."""
    made = []

    def make(**options):
        folder = os.path.join(work, f"faulty{len(made)}")
        os.makedirs(folder)
        made.append(FaultyRegistry(folder, **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()


@pytest.fixture
def faulty(make_faulty):
    """A FaultyRegistry over plain http without authentication."""
    return make_faulty()


@pytest.fixture
def make_daemon(work):
    """make_daemon(registries, …): a started Daemon; start=False leaves the start to the test."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts")
    made = []

    def make(*arguments, start=True, release=False, **options):
        for name in ("modelcached", "modelcached-pull", "cache-ctl"):
            if not program(name, release):
                pytest.skip(f"{name} is not built{' (release)' if release else ''}")
        daemon = Daemon(os.path.join(work, f"d{len(made)}"), *arguments, release=release, **options)
        made.append(daemon)
        return daemon.start() if start else daemon

    make.made = made
    yield make
    for one in made:
        one.close()


@pytest.fixture
def daemon(make_daemon, registry):
    """A started daemon that may use `registry`."""
    return make_daemon([registry.config()])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    """Shows the logs of a failed test's daemons."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for daemon in getattr(item.funcargs.get("make_daemon"), "made", []):
            if os.path.exists(daemon.log_path):
                report.sections.append((f"log of {daemon.folder}", daemon.log()[-8000:]))


class Outcome:
    """Counts, to tell a run in which everything was skipped."""

    def __init__(self):
        self.skipped = self.other = 0

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            self.skipped += 1
        elif report.when == "call" or report.failed:
            self.other += 1

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session, exitstatus):
        if exitstatus == 0 and self.skipped and not self.other:
            session.exitstatus = ALL_SKIPPED


def pytest_configure(config):
    config.pluginmanager.register(Outcome(), "outcome")
    if sandbox.IO_URING_REFUSED:
        sandbox.refuse_io_uring()  # all that the tests start inherits it


def pytest_runtest_setup(item):
    if sandbox.IO_URING_REFUSED and item.get_closest_marker("both_ways"):
        pytest.skip("runs both with io_uring and without it when MC_IO is not set")
