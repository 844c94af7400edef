# SPDX-License-Identifier: Apache-2.0
"""kill -9 at 50 random moments of one pull: the daemon, and where io_uring is refused.  The rest is in
test_scheduling.py."""
import pytest

from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.kills import SEND_BUFFER, kill_and_go_on


@pytest.mark.parametrize("victim,no_uring", [("daemon", False), ("daemon", True), ("worker", True)])
def test_kill_at_fifty_moments_of_one_pull(work, make_faulty, show, victim, no_uring):
    kill_and_go_on(work, make_faulty(send_buffer=SEND_BUFFER), show, victim, 50, no_uring)
