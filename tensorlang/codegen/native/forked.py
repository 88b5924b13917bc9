"""Use all cores for pure-Python work on many items: forked children, results through pipes.

Numba's front end holds the interpreter lock, so threads do not help, and a fresh process would import numba first.
Whatever goes wrong in a child, or with making one, costs time only: the parent does what is missing.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")

CHILD_SECONDS = 120.0  # a child that takes longer hangs on a lock that it inherited
MOST_TICKETS = 65_536  # bytes that a pipe holds before anyone reads
_TICKET = struct.Struct("<i")


def forked_map(function: Callable[[_T], _R], items: Sequence[_T], weights: Sequence[float], workers: int) -> list[_R]:
    """`[function(x) for x in items]`, on up to `workers` processes, each of which takes the heaviest item that is left.

    Args:
        function: deterministic; its results can be pickled. An exception in a child is raised by the parent's own try.
        weights: relative cost of each item.
        workers: processes in all; 1, or a process with other Python threads (whose locks a child would inherit),
            stays in this process.
    """
    workers = min(workers, len(items), MOST_TICKETS // _TICKET.size)
    if workers <= 1 or len(items) > MOST_TICKETS // _TICKET.size or not hasattr(os, "fork") or threading.active_count() > 1:
        return [function(item) for item in items]
    order = sorted(range(len(items)), key=lambda k: (-weights[k], k))
    tickets, writer = os.pipe()  # who reads an index from it has that item to do
    try:
        os.write(writer, b"".join(map(_TICKET.pack, order)))
    finally:
        os.close(writer)
    results: dict[int, _R] = {}
    children: list[tuple[int, int]] = []
    try:
        children = [child for _ in range(workers - 1) if (child := _start(function, items, tickets)) is not None]
        for index in _taken(tickets):
            results[index] = function(items[index])
    finally:
        os.close(tickets)
        deadline = time.monotonic() + CHILD_SECONDS
        for pid, pipe in children:
            results.update(_collect(pid, pipe, deadline))
    return [results[k] if k in results else function(items[k]) for k in range(len(items))]


def _taken(tickets: int) -> Iterator[int]:
    """Indices from the pipe, until it is empty; a read of so few bytes is one reader's alone."""
    while ticket := os.read(tickets, _TICKET.size):
        yield _TICKET.unpack(ticket)[0]


def _start(function: Callable[[_T], _R], items: Sequence[_T], tickets: int) -> tuple[int, int] | None:
    """(pid, pipe to read from) of a child that does what it takes; None where the system gives no process."""
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
        data = pickle.dumps({index: function(items[index]) for index in _taken(tickets)})
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
