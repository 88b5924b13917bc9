"""Functions known by name, as classic TVM's global registry: `register_func`, `get_global_func`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from tensorlang.errors import InputError
from tensorlang.ir.expr import user_location

_FUNCTIONS: dict[str, Callable[..., Any]] = {}


@overload
def register_func(name: str, f: None = None, override: bool = False) -> Callable[[Callable[..., Any]], Any]: ...
@overload
def register_func(name: str | Callable[..., Any], f: Callable[..., Any], override: bool = False) -> Any: ...
@overload
def register_func(name: Callable[..., Any], f: None = None, override: bool = False) -> Any: ...
def register_func(name: Any, f: Callable[..., Any] | None = None, override: bool = False) -> Any:
    """Make a Python function known as `name`; a decorator where `f` is left out.

    Raises:
        InputError: the name is taken and `override` is False.
    """
    if callable(name):
        return register_func(name.__name__, name, override)

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        if name in _FUNCTIONS and not override:
            raise InputError(f"{user_location()}: a function {name!r} is registered already; pass override=True to replace it")
        _FUNCTIONS[name] = fn
        return fn

    return register if f is None else register(f)


def get_global_func(name: str, allow_missing: bool = False) -> Callable[..., Any] | None:
    """The function registered as `name`; None if there is none and `allow_missing`.

    Raises:
        InputError: there is none.
    """
    found = _FUNCTIONS.get(name)
    if found is None and not allow_missing:
        raise InputError(f"{user_location()}: no function is registered as {name!r}; see register_func")
    return found


def remove_global_func(name: str) -> None:
    """Forget the function registered as `name`."""
    _FUNCTIONS.pop(name, None)


def list_global_func_names() -> list[str]:
    """All registered names, sorted."""
    return sorted(_FUNCTIONS)
