"""Inputs and outputs bound once, so that a call is the run alone: `Executable.bind`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np


class Binding:
    """A run on the same arrays, again and again: what they hold at the time of the call is read, and written to.

    Calls of one binding wait for each other; bindings of one executable run beside each other.

    Attributes:
        outputs: the arrays that hold the results after a call, by name. Where a shape depends on the data, or an array cannot
            be written to directly, each call makes the mapping anew.
    """

    def __init__(self, run: Callable[[], Mapping[str, np.ndarray]], outputs: Mapping[str, np.ndarray]):
        self._run = run
        self._lock = threading.Lock()
        self.outputs = outputs

    def __call__(self) -> Mapping[str, np.ndarray]:
        with self._lock:
            self.outputs = outputs = self._run()
        return outputs
