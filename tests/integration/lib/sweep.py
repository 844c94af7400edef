#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Unmounts and removes what killed test sessions left in /tmp; run-tests calls it at its end."""
import sandbox

sandbox.sweep()
