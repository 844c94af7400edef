# SPDX-License-Identifier: Apache-2.0
"""Looks at something again and again while something else happens."""
import threading


class Watch:
    """Calls look() every `seconds` in a thread of its own, until it is left; .samples: how often."""

    seconds = 0.01

    def __init__(self):
        self.samples, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def look(self):
        raise NotImplementedError

    def _run(self):
        while not self._ended.wait(self.seconds):
            self.look()
            self.samples += 1

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
