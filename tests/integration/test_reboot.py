# SPDX-License-Identifier: Apache-2.0
"""The power goes in the middle of a pull: what was durable is gone on with, and nothing else of it is believed."""
import os
import uuid

from lib.check import assert_store_good
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.content import assert_tree
from lib.daemon import with_daemon_script
from lib.disk import MIB, cut_power, mount_again, small_disk_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.kills import SEND_BUFFER, Pull, artifact, tree_of, wire
from lib.sandbox import wait_ended, wait_for

SIZE, CONNECTIONS = 32 * MIB, 4
SECONDS = 6.5  # a file that is being fetched is made durable each five
RATE = MIB  # of a connection


def with_another_boot_id(folder, monkeypatch):
    """MC_BIN with a daemon that sees, like its workers, a boot id of its own."""
    programs, boot_id = os.path.join(folder, "programs"), os.path.join(folder, "boot_id")
    with open(boot_id, "w", encoding="ascii") as file:
        file.write(f"{uuid.uuid4()}\n")
    with_daemon_script(programs, f'exec unshare -m sh -c \'mount --bind {boot_id} /proc/sys/kernel/random/boot_id && '
                                 'exec "$0" "$@"\' "$real" "$@"')
    monkeypatch.setenv("MC_BIN", programs)


# pylint: disable-next=too-many-arguments
def test_only_what_was_durable_is_there_after_a_power_cut(work, small_disk, make_faulty, make_daemon, monkeypatch, show):
    registry = make_faulty(send_buffer=SEND_BUFFER)
    made = artifact(work, ["w"], SIZE, "w")
    reference = registry.add(made, "team/model", "v1")
    registry.rate = RATE
    daemon = make_daemon([registry.config()], store=os.path.join(small_disk, "store"),
                         config={"pull": {"connections": CONNECTIONS, "range_min": MIB, "memory": "16MiB"}})
    pull = Pull(daemon, reference)
    wait_for(lambda: wire(registry) > SECONDS * CONNECTIONS * RATE, "enough of it", 60)
    workers = daemon.worker_pids()
    cut_power(small_disk)
    daemon.kill9()
    pull.join()
    assert pull.result.code != 0
    wait_ended(workers, "the worker's end")
    mount_again(work)
    before = wire(registry)
    assert before < SIZE, "the pull was to be slower"
    registry.rate = 0
    with_another_boot_id(work, monkeypatch)
    daemon.start()
    assert daemon.ctl_json("status")["partial_layers"] == 1
    Pull(daemon, reference).good()
    assert_tree(tree_of(daemon, reference), made.tree)
    assert_store_good(daemon)
    again = wire(registry) - before
    show(f"{before / MIB:.1f} of {SIZE / MIB:.0f} MiB came before the power cut, {again / MIB:.1f} after it")
    assert SIZE - before < again, "bytes that were not durable were believed"
    assert again < 0.75 * SIZE, "little was kept"
