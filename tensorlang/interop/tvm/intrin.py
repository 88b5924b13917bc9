"""Tensor intrinsics: what one computes, as a tensor expression, and how it is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from tensorlang.errors import TypeCheckError
from tensorlang.interop.tvm.tensor import Operation, Tensor, outputs_of, plain_name
from tensorlang.interop.tvm.tir.buffer import Buffer, Calls, HostCall, decl_buffer
from tensorlang.ir.expr import user_location
from tensorlang.ir.tensor_intrin import TensorIntrin as Core, register, registered
from tensorlang.te.primfunc import create_prim_func


class TensorIntrin:
    """A tensor intrinsic.

    Attributes:
        op: what it computes.
        calls: of foreign functions, by role: "body", "reset" and "update".
    """

    def __init__(self, op: Operation, calls: Mapping[str, tuple[HostCall, ...]], where: str):
        self.op = op
        self.calls = dict(calls)
        self.where = where

    @property
    def name(self) -> str:
        """That of the function it calls."""
        return self.calls["body"][0].name if "body" in self.calls else self.op.name

    def __repr__(self) -> str:
        return f"TensorIntrin(name={self.name})"

    @cached_property
    def core(self) -> Core:
        """The intrinsic of tensorlang: `op` is its meaning, and without instructions the meaning's loops run."""
        outputs = outputs_of(self.op.core)
        meaning = create_prim_func(plain_name(self.name), [t.core for t in self.op.input_tensors], outputs)
        name, serial = meaning.name, 1
        while (known := registered(name)) is not None and str(known.meaning) != str(meaning):
            name, serial = f"{meaning.name}_{serial}", serial + 1
        parts = ("body", "update", "reset") if self.op.reduce_axis else ("body",)
        return register(Core(name, meaning, dict.fromkeys(parts)))


def decl_tensor_intrin(
    op: Operation,
    fcompute: Callable[..., Any],
    name: str = "tensor_intrin",
    binds: Mapping[Tensor, Buffer] | None = None,
    scalar_params: Any = None,
    default_buffer_params: Mapping[str, Any] | None = None,
) -> TensorIntrin:
    """A tensor intrinsic: `op` says what it computes, `fcompute(ins, outs)` which foreign functions do that.

    `fcompute` returns one body, or a triple of body, reset and update for a reduction that is only in part inside.

    No compiler for foreign code is here, so the meaning stands in for the call: the loops that the intrinsic replaces are
    checked to compute `op`, and then are compiled as they are.
    """
    where = user_location()
    if not isinstance(op, Operation) or not hasattr(op.core, "axis"):
        raise TypeCheckError(f"{where}: decl_tensor_intrin: the first argument is the operation of a computed tensor")
    if scalar_params:
        raise TypeCheckError(f"{where}: decl_tensor_intrin: scalar_params are not supported; make them tensors")
    bound = {t.core: b for t, b in (binds or {}).items()}
    params = dict(default_buffer_params or {})

    def buffer_of(core: Any) -> Buffer:
        return bound.get(core) or decl_buffer(core.shape, core.dtype.numpy.name, core.name, **params)

    ins = [buffer_of(t.core) for t in op.input_tensors]
    outs = [buffer_of(t) for t in outputs_of(op.core)]
    made = fcompute(ins, outs)
    roles = made if isinstance(made, tuple | list) and not isinstance(made, Calls) else (made,)
    parts = dict(zip(("body", "reset", "update"), roles, strict=False))
    calls = {}
    for role, part in parts.items():
        if part is None:
            continue
        items = part if isinstance(part, tuple | list) else (part,)
        if not items or not all(isinstance(i, HostCall) for i in items):
            raise TypeCheckError(f"{where}: decl_tensor_intrin: the {role} consists of calls (tir.call_extern), not {part}")
        calls[role] = tuple(items)
    return TensorIntrin(op, calls, where)


def defined_functions(source: str) -> set[str]:
    """The names of the functions that C text defines."""
    return set(re.findall(r"\b(\w+)\s*\([^()]*\)\s*\{", source)) - {"if", "for", "while", "switch"}
