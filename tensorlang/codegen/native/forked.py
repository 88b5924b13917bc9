"""Use all cores for pure-Python work on many items: forked children, results through pipes.

Numba's front end holds the interpreter lock, so threads do not help, and a fresh process would import numba first.
Whatever goes wrong in a child, or with making one, costs time only: the parent does what is missing.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

CHILD_SECONDS = 120.0  # a child that takes longer hangs on a lock that it inherited


def forked_map(function: Callable[[_T], _R], items: Sequence[_T], weights: Sequence[float], workers: int) -> list[_R]:
    """`[function(x) for x in items]`, on up to `workers` processes.

    Args:
        function: deterministic; its results can be pickled. An exception in a child is raised by the parent's own try.
        weights: relative cost of each item, to balance the processes.
        workers: processes in all; 1, or a process with other Python threads (whose locks a child would inherit),
            stays in this process.
    """
    if workers <= 1 or len(items) < 2 or not hasattr(os, "fork") or threading.active_count() > 1:
        return [function(item) for item in items]
    shares = balanced(weights, min(workers, len(items)))
    started = [_start(function, items, share) for share in shares[1:]]
    children = [child for child in started if child is not None]
    results: dict[int, _R] = {}
    try:
        for index in shares[0]:
            results[index] = function(items[index])
    finally:
        deadline = time.monotonic() + CHILD_SECONDS
        for pid, pipe in children:
            results.update(_collect(pid, pipe, deadline))
    return [results[k] if k in results else function(items[k]) for k in range(len(items))]


def balanced(weights: Sequence[float], parts: int) -> list[list[int]]:
    """Indices in `parts` lists of about equal weight, heaviest first."""
    shares: list[list[int]] = [[] for _ in range(parts)]
    totals = [0.0] * parts
    for index in sorted(range(len(weights)), key=lambda k: (-weights[k], k)):
        lightest = totals.index(min(totals))
        shares[lightest].append(index)
        totals[lightest] += weights[index]
    return shares


def _start(function: Callable[[_T], _R], items: Sequence[_T], share: list[int]) -> tuple[int, int] | None:
    """(pid, pipe to read from) of a child that computes `share`; None where the system gives no process."""
    reader, writer = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the pool's never touch Python
            pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        return None
    if pid:
        os.close(writer)
        return pid, reader
    try:
        os.close(reader)
        data = pickle.dumps({index: function(items[index]) for index in share})
        with os.fdopen(writer, "wb") as file:
            file.write(data)
    finally:
        os._exit(0)  # nothing of the parent's may run: no exit handlers, no buffers written twice


def _collect(pid: int, pipe: int, deadline: float) -> dict[int, _R]:
    """What a child computed; nothing if it failed."""
    data = bytearray()
    try:
        while select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = os.read(pipe, 1 << 20)
            if not part:
                break
            data += part
        else:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(pipe)
        os.waitpid(pid, 0)
    try:
        return pickle.loads(bytes(data))  # from our own child, through a pipe that nobody else has
    except (EOFError, pickle.UnpicklingError):
        return {}
