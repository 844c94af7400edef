# SPDX-License-Identifier: Apache-2.0
"""Fixtures and helpers of the tests that play the daemon for a worker."""
import os
import shutil

import pytest

from lib.daemon import program
from lib.worker import Worker, messages

MIB = 1 << 20


@pytest.fixture(scope="module")
def pb(module_work):
    if not shutil.which("protoc"):
        pytest.skip("protoc is not installed")
    return messages(module_work)


@pytest.fixture
def start(work, pb):
    """start(reference, **job): a Worker whose Job names the reference; plain http unless there is a CA, or tls.  io: a name of
    IoMode, or "refused": left to the worker, which the kernel refuses io_uring.  release: of the release build.
    limits: with all memory, unless they say how much.  options: see Worker."""
    workers = []

    # pylint: disable-next=too-many-arguments
    def make(reference="", ca_pem=b"", tls=False, folder=None, registry_connections=0, release=False, options=None, **job):
        host, _, rest = reference.partition("/")
        repository, _, digest = rest.partition("@sha256:")
        repository, _, tag = repository.partition(":")
        job = {"os": "linux", "architecture": "amd64", "memory_bytes": 128 * MIB, "connections": 8,
               "file_max_bytes": 1 << 40, "user_agent": "test", "range_min_bytes": 64 * MIB,
               "stall_seconds": 30, "give_up_seconds": 60, **job}
        if "limits" in job:
            job["limits"] = {"memory_bytes": job["memory_bytes"], **job["limits"]}
        refused = job.get("io") == "refused"
        if refused:
            job["io"] = "IO_AUTO"
        path = program("modelcached-pull", release)
        if not path:
            pytest.skip(f"modelcached-pull is not built{' (release)' if release else ''}")
        config = pb.RegistryConfig(host=host, plain_http=not (ca_pem or tls), ca_pem=ca_pem,
                                   connections=registry_connections)
        workers.append(Worker(path, folder or os.path.join(work, f"pull{len(workers)}"), pb, pb.Job(
            registry=host, repository=repository, tag=tag, digest=bytes.fromhex(digest),
            registries=[config], **job), no_uring=refused, **(options or {})))
        return workers[-1]

    yield make
    for worker in workers:
        worker.close()


def pull(worker):
    """Everything, well."""
    worker.until("resolved")
    worker.plan()
    assert worker.finish() == 0
    assert worker.failed is None and worker.done
    return worker
