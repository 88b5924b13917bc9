"""Functions of the host process that a program may call by name: `te.extern`, classic TVM's `tir.call_packed`.

A registered function gets one NumPy array for each buffer argument, in the program's order, and Python numbers for scalars.
It writes the arrays of its outputs in place; the others are passed read-only. The registry belongs to this process: a
program that calls into it runs here, under the interpreter or natively, and cannot be exported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from tensorlang.errors import BuildError, InputError, TensorlangError

PackedFunction = Callable[..., Any]

_FUNCTIONS: dict[str, PackedFunction] = {}
_LOCK = threading.Lock()


class PackedCallError(TensorlangError, RuntimeError):
    """A registered function raised; what it raised is the cause."""


def register(name: str, function: PackedFunction, override: bool = False) -> None:
    """Make `function` known as `name`.

    Raises:
        InputError: another function has that name (and `override` is not set), or `function` cannot be called.
    """
    if not callable(function):
        raise InputError(f"{name}: {function!r} is not a function")
    with _LOCK:
        if not override and _FUNCTIONS.get(name, function) is not function:
            raise InputError(f"a packed function {name!r} is registered already: choose another name, or override=True")
        _FUNCTIONS[name] = function


def unique_name(stem: str, function: PackedFunction) -> str:
    """The name under which `function` gets registered: `stem`, or with a number if that is another function's."""
    with _LOCK:
        name, serial = stem, 1
        while _FUNCTIONS.get(name, function) is not function:
            name, serial = f"{stem}_{serial}", serial + 1
        _FUNCTIONS[name] = function
        return name


def lookup(name: str) -> PackedFunction:
    """The function registered as `name`.

    Raises:
        BuildError: there is none.
    """
    found = _FUNCTIONS.get(name)
    if found is None:
        raise BuildError(f"no packed function {name!r} is registered in this process")
    return found


def call(name: str, args: tuple[Any, ...], outputs: tuple[int, ...]) -> None:
    """Call the function `name`; arrays at positions other than `outputs` are passed as read-only views.

    Raises:
        PackedCallError: the function raised.
    """
    function = lookup(name)
    passed = []
    for n, a in enumerate(args):
        if isinstance(a, np.ndarray) and n not in outputs:
            a = a.view()
            a.flags.writeable = False
        passed.append(a)
    try:
        function(*passed)
    except Exception as error:
        raise PackedCallError(f"packed function {name!r} failed: {type(error).__name__}: {error}") from error
