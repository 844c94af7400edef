# SPDX-License-Identifier: Apache-2.0
"""kill -9 of the worker or the daemon at 50 random moments of one pull; MC_SEED chooses them.  Ten of each are in
test_scheduling.py."""
import pytest

from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.kills import SEND_BUFFER, kill_and_go_on


@pytest.mark.parametrize("victim", ["worker", "daemon"])
@pytest.mark.parametrize("no_uring", [False, True], ids=["uring", "refused"])
def test_kill_at_fifty_moments_of_one_pull(work, make_faulty, show, victim, no_uring):
    kill_and_go_on(work, make_faulty(send_buffer=SEND_BUFFER), show, victim, 50, no_uring)
