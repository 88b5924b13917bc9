"""Stages given by calls of registered Python functions, or by loops written out: `te.extern`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensorlang import te
from tensorlang.errors import TypeCheckError
from tensorlang.interop.tvm.device import cpu
from tensorlang.interop.tvm.nd import NDArray
from tensorlang.interop.tvm.registry import get_global_func
from tensorlang.interop.tvm.tensor import Tensor, dtype_name, plain_name, plain_shape
from tensorlang.interop.tvm.tir.buffer import AccessPtr, Buffer, HostCall
from tensorlang.ir.buffer import Buffer as CoreBuffer
from tensorlang.ir.expr import Expr, user_location
from tensorlang.ir.packed import unique_name
from tensorlang.ir.stmt import CallPacked, Stmt, seq


def extern(
    shape: Any,
    inputs: Sequence[Tensor],
    fcompute: Callable[..., Any],
    name: str = "extern",
    dtype: Any = None,
    in_buffers: Any = None,
    out_buffers: Any = None,
    tag: str = "",
    attrs: Any = None,
) -> Any:
    """A stage that a registered function computes as a whole, or loops written with `tir.ir_builder`.

    Args:
        shape: of the output, or a list of shapes for several outputs.
        fcompute: `fcompute(ins, outs)` gets a symbolic buffer for each tensor and returns `tir.call_packed(...)` on them,
            several of them in order, or what an `ir_builder` wrote.
        dtype: of the output or outputs; by default that of the inputs, which must agree.
        in_buffers, out_buffers: refused unless None: where buffers lie is the compiler's choice.

    Raises:
        TypeCheckError: the body is something else, or calls a foreign function that no Python function stands for.
    """
    where = user_location()
    if in_buffers is not None or out_buffers is not None:
        raise TypeCheckError(f"{where}: extern {name}: in_buffers and out_buffers are not supported; buffers are made compact")
    many = bool(shape) and isinstance(shape, list | tuple) and isinstance(shape[0], list | tuple)
    shapes = [plain_shape(s) for s in shape] if many else [plain_shape(shape)]
    if wrong := [t for t in inputs if not isinstance(t, Tensor)]:
        raise TypeCheckError(f"{where}: extern {name}: input {wrong[0]!r} is not a tensor")
    if dtype is None:
        kinds = sorted({t.dtype for t in inputs})
        if len(kinds) != 1:
            raise TypeCheckError(f"{where}: extern {name}: the inputs' types {kinds} tell no output type; give dtype=")
        dtype = kinds[0]

    def body(ins: Sequence[CoreBuffer], outs: Sequence[CoreBuffer]) -> Stmt:
        sources, targets = [_face(b) for b in ins], [_face(b) for b in outs]
        return _statement(fcompute(sources, targets), sources, targets, plain_name(name), where)

    made = te.extern_ir(
        shapes if many else shapes[0], [t.core for t in inputs], body, name=plain_name(name), dtype=dtype
    )
    return [Tensor(t) for t in made] if isinstance(made, tuple | list) else Tensor(made)


def _face(b: CoreBuffer) -> Buffer:
    return Buffer([d.value if d.op == "const" else d for d in b.shape], dtype_name(b.dtype), b.name, core=b)


def _statement(body: Any, ins: Sequence[Buffer], outs: Sequence[Buffer], name: str, where: str) -> Stmt:
    if isinstance(body, Stmt):
        return body
    calls = body if isinstance(body, tuple | list) else (body,)
    if not calls or not all(isinstance(c, HostCall) for c in calls):
        raise TypeCheckError(
            f"{where}: extern {name}: the body is tir.call_packed(...) or written by ir_builder, not {type(body).__name__}"
        )
    return seq(*(_packed(c, ins, outs, name) for c in calls))


def _packed(call: HostCall, ins: Sequence[Buffer], outs: Sequence[Buffer], name: str) -> Stmt:
    """The call of a Python function that looks `call.name` up when it runs and gives it arrays of classic TVM's kind.

    What a function gets a pointer to for reading only, it cannot write; of other buffers, outputs are written.
    """
    passed: list[CoreBuffer | Expr] = []
    written: dict[CoreBuffer, None] = {}
    plan: list[tuple[bool, Any]] = []  # of each argument: whether it is passed, and its place or its value
    for a in call.args:
        value = a.buffer if isinstance(a, AccessPtr) else a
        if isinstance(a, AccessPtr) and not (isinstance(a.offset, int) and a.offset == 0):
            raise TypeCheckError(f"{call.where}: extern {name}: a pointer into the middle of {value.name}; pass the buffer")
        if isinstance(value, Buffer):
            if not [b for b in (*ins, *outs) if b is value]:
                raise TypeCheckError(f"{call.where}: extern {name}: {value.name} is no buffer of this stage")
            if [b for b in outs if b is value] and not (isinstance(a, AccessPtr) and a.mask == "r"):
                written[value.core] = None
            plan.append((True, len(passed)))
            passed.append(value.core)
        elif isinstance(value, Expr):
            plan.append((True, len(passed)))
            passed.append(value)
        else:
            plan.append((False, value))

    def run(*given: Any) -> None:
        function = get_global_func(call.name)
        assert function is not None
        function(*(_array(given[v]) if is_passed else v for is_passed, v in plan))

    return CallPacked(unique_name(plain_name(call.name), run), tuple(passed), tuple(written))


def _array(value: Any) -> Any:
    return NDArray(value, cpu(0)) if isinstance(value, np.ndarray) else value
