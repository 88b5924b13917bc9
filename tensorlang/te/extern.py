"""`te.extern`: a stage that a function of the user's computes as a whole: NumPy, numba, or a library behind Python.

    def sort_rows(x, out):                    arrays in, arrays out
        out[...] = np.sort(x, axis=1)

    y = te.extern(x.shape, [x], sort_rows, name="y")
->  with block("y"): call_packed("y", x, y, outputs=[y])

In the program that is one block without iteration variables around an `ir.stmt.CallPacked`: its arguments are the buffers
of the inputs, then of the outputs. Schedules see that it reads and writes them, not which elements: nothing that depends on
that is proved. `extern_ir` takes a statement of the IR instead of a function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import fail, user_location
from tensorlang.ir.packed import unique_name
from tensorlang.ir.stmt import Allocate, CallPacked, Stmt
from tensorlang.ir.tree import read_buffers, written_buffers
from tensorlang.ir.visitor import walk_stmt
from tensorlang.te.tensor import DTypeLike, Op, Tensor, checked_name, normalise_shape, unwrap_dtype


class ExternOp(Op):
    """A stage given by a statement on whole buffers.

    Attributes:
        body: the statement, on the buffers of the inputs and outputs.
    """

    body: Stmt

    def __init__(self, name: str, shapes: Sequence[Any], dtypes: Sequence[DTypeLike], inputs: Sequence[Tensor], source: str):
        super().__init__(name, source)
        self._inputs = tuple(inputs)
        self.axis = self.reduce_axis = ()
        names = [name] if len(shapes) == 1 else [f"{name}_v{n}" for n in range(len(shapes))]
        self._outputs = [
            Tensor(self, normalise_shape(s, name), unwrap_dtype(d), n) for s, d, n in zip(shapes, dtypes, names, strict=True)
        ]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self._inputs


def extern(
    shape: Any,
    inputs: Sequence[Tensor],
    fcompute: Callable[..., Any],
    name: str | None = None,
    dtype: DTypeLike | Sequence[DTypeLike] | None = None,
) -> Any:
    """A stage whose tensors `fcompute(*inputs, *outputs)` computes, on NumPy arrays.

    Args:
        shape: of the output, or a list of shapes for several outputs.
        inputs: the tensors whose arrays are passed first, read-only.
        fcompute: any Python function, numba's `njit` included. It writes the output arrays in place and returns nothing;
            what it raises reaches the caller of the kernel as `PackedCallError`.
        name: of the stage; by default the function's.
        dtype: of the outputs, one for all or one for each; by default that of the first input.

    The program then runs in this process only: models that contain it cannot be exported.

    Raises:
        TypeCheckError: shapes or inputs are none, or no type is known.
    """
    if not callable(fcompute):
        fail(f"te.extern takes a function of arrays, not {type(fcompute).__name__}")
    name = _name_of(fcompute, name)
    op, many = _operation(shape, inputs, name, dtype)
    buffers = tuple(t.buffer for t in (*op.inputs, *op.outputs))
    registered = unique_name(name, fcompute)
    op.body = CallPacked(registered, buffers, tuple(t.buffer for t in op.outputs))
    return op.outputs if many else op.output()


def extern_ir(
    shape: Any,
    inputs: Sequence[Tensor],
    fcompute: Callable[[Sequence[Buffer], Sequence[Buffer]], Stmt],
    name: str | None = None,
    dtype: DTypeLike | Sequence[DTypeLike] | None = None,
) -> Any:
    """A stage that a statement of the IR computes: `fcompute(ins, outs)` gets buffers and returns it.

    The statement may hold loops, conditions, allocations, stores and `CallPacked`; it is taken as it is: schedules do not
    reach into it. Arguments as for `extern`.

    Raises:
        TypeCheckError: it is no statement, or touches other buffers, or does not write an output.
    """
    name = _name_of(fcompute, name)
    op, many = _operation(shape, inputs, name, dtype)
    ins, outs = [t.buffer for t in op.inputs], [t.buffer for t in op.outputs]
    body = fcompute(ins, outs)
    if not isinstance(body, Stmt):
        fail(f"te.extern_ir {name}: the function returned {type(body).__name__}, not a statement of the IR")
    written = written_buffers(body)
    local = {s.buffer for s in walk_stmt(body) if isinstance(s, Allocate)}
    if wrong := [b.name for b in written if b not in outs and b not in local]:
        fail(f"te.extern_ir {name}: the statement writes {wrong[0]}, which is no output")
    if wrong := [b.name for b in read_buffers(body) if b not in ins and b not in outs and b not in local]:
        fail(f"te.extern_ir {name}: the statement reads {wrong[0]}, which is no input")
    if missing := [b.name for b in outs if b not in written]:
        fail(f"te.extern_ir {name}: the statement does not write {missing[0]}")
    op.body = body
    return op.outputs if many else op.output()


def _operation(shape: Any, inputs: Sequence[Tensor], name: str, dtype: Any) -> tuple[ExternOp, bool]:
    many = isinstance(shape, tuple | list) and bool(shape) and all(isinstance(s, tuple | list) for s in shape)
    shapes = list(shape) if many else [shape]
    if not isinstance(inputs, tuple | list) or [t for t in inputs if not isinstance(t, Tensor)]:
        fail(f"te.extern {name}: the inputs are a list of tensors")
    if dtype is None:
        if not inputs:
            fail(f"te.extern {name}: without inputs, dtype= is needed")
        dtype = inputs[0].dtype
    dtypes = list(dtype) if isinstance(dtype, tuple | list) else [dtype] * len(shapes)
    if len(dtypes) != len(shapes):
        fail(f"te.extern {name}: {len(dtypes)} types for {len(shapes)} outputs")
    return ExternOp(name, shapes, dtypes, inputs, user_location()), many


def _name_of(fcompute: Any, name: str | None) -> str:
    own = getattr(fcompute, "__name__", "extern")
    return checked_name(name if name is not None else own if own.isidentifier() else "extern")
