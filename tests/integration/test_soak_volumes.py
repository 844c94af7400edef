# SPDX-License-Identifier: Apache-2.0
"""10,000 times publish and unpublish.  500 are in test_volumes.py."""
from lib.check import need_programs
from lib.check import show_fixture  # noqa: F401  # pylint: disable=unused-import
from lib.volumes import cycles_leave_nothing


def test_ten_thousand_cycles_leave_nothing(make_daemon, faulty, work, show):
    need_programs(release=True)
    daemon = make_daemon([faulty.config()], release=True, config={"log": {"level": "warn"}})
    cycles_leave_nothing(daemon, faulty, work, 10_000, show)
