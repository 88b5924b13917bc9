"""The living definition: what a program means, on NumPy arrays, one element at a time.

    run(func, [x, w, out])            inputs, outputs (written in place), then sizes; sizes left out follow from the shapes

Meaning, where another reading were possible:

* Arithmetic happens in the operands' own type: f32 rounds to f32 at every operation, integers wrap modulo 2**bits.
  `//` and `%` round toward minus infinity; integer division by zero is an error. `min` and `max` of NaN are NaN.
* `select` alone is lazy. `and` and `or` evaluate both operands.
* A block runs where its predicate holds. Its `init` runs just before the body at each executed point where all reduce
  bindings are 0 (at every point if it has none). Hence, where the predicate excludes the point 0 of a reduction, `init`
  never runs and the result is poison; where a point 0 is executed twice (an overlapping spatial tile), the element starts
  afresh; where reduce points are executed twice, they count twice. Lowering and schedules must respect all three.
* Parallel and vectorized loops run in ascending order, or in the order asked for: a correct program cannot tell.
* Freshly allocated memory is poisoned (`semantics.poison`), and so are the outputs, unless they alias an input.
* A vector is its lanes. A store under a vector condition writes the lanes where it holds, ascending; within it, as within
  the arms of a `select` on a vector condition, only those lanes are evaluated.

A function is compiled once to plain Python source (`python_source`), which then runs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from tensorlang.errors import InputError, InternalError, TensorlangError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr, const, format_expr
from tensorlang.ir.interp_source import Site, Variant, python_source
from tensorlang.ir.packed import call
from tensorlang.ir.semantics import BINARY_NUMPY, call_numpy, cast_numpy, poison
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tensor_intrin import find_part
from tensorlang.ir.tensor_parts import OLD, part_program, strides_of, tile_view
from tensorlang.ir.visitor import free_vars, substitute

OnAccess = Callable[[str, Buffer, tuple[int, ...], Mapping[Expr, int]], None]
OnBarrier = Callable[[str], None]

ORDERS = ("ascending", "reversed", "shuffled")
_COMPILED: WeakKeyDictionary[PrimFunc, dict[Variant, tuple[Callable[..., None], list[Site]]]] = WeakKeyDictionary()


class ExecutionError(TensorlangError, IndexError):
    """A program that did what no program may: an access out of bounds, or an integer division by zero."""


def run(
    func: PrimFunc,
    args: Sequence[np.ndarray | int],
    check_bounds: bool = True,
    *,
    order: str = "ascending",
    seed: int = 0,
    on_access: OnAccess | None = None,
    on_barrier: OnBarrier | None = None,
) -> None:
    """Execute `func`.

    Args:
        args: one array per buffer (inputs, then outputs, which are written in place), then the sizes. Sizes may be left
            out where a dimension of some array is that variable alone. For a one-dimensional buffer (lowered programs) a
            C-contiguous array of any shape with as many elements will do.
        check_bounds: check every index.
        order: in which order parallel and vectorized loops run: "ascending", "reversed" or "shuffled" (by `seed`).
        on_access: called before every access as `on_access("read" | "write", buffer, indices, env)`; `env` holds the
            values of the loop and block variables around it.
        on_barrier: called at every barrier of a grid's program, with "barrier" or "launch", and where groups of copies end or
            are waited for, with "commit" or "wait N". Threads run one after the other, from barrier
            to barrier: whoever wants to know whether another order could matter asks `ir.races`.

    Raises:
        InputError: arrays do not fit the parameters.
        ExecutionError: an access is out of bounds (the message names buffer, index, shape and block), or an integer is
            divided by zero.
    """
    if order not in ORDERS:
        raise InputError(f"order is one of {', '.join(ORDERS)}, not {order!r}")
    arrays, sizes = bind_arguments(func, args)
    inputs = arrays[: len(func.inputs)]
    for output, array in zip(func.outputs, arrays[len(func.inputs) :], strict=True):
        if not any(np.shares_memory(array, a) for a in inputs):
            array[...] = poison(output.dtype)
    variant = Variant(check_bounds, order != "ascending", on_access is not None)
    variants = _COMPILED.setdefault(func, {})
    if variant not in variants:
        variants[variant] = _compile(func, variant)
    function, sites = variants[variant]
    runtime = _Runtime(func, sites, variant, order, seed, on_access)
    runtime.on_barrier = on_barrier
    with np.errstate(all="ignore"):
        try:
            function(runtime, *arrays, *(sizes[v] for v in func.size_vars))
        except ZeroDivisionError as error:
            raise ExecutionError(f"{func.name}: integer division by zero") from error


def bind_arguments(func: PrimFunc, args: Sequence[Any]) -> tuple[list[np.ndarray], dict[Expr, int]]:
    """The arrays of `func`'s buffers and the values of its size variables.

    Raises:
        InputError: the number, dtype, rank or a size does not fit, or a size is not determined.
    """
    buffers, size_vars = func.buffers, func.size_vars
    if not len(buffers) <= len(args) <= len(buffers) + len(size_vars):
        raise InputError(f"{func.name} takes {len(buffers)} array(s) and {len(size_vars)} size(s), got {len(args)} argument(s)")
    sizes = {v: int(n) for v, n in zip(size_vars, args[len(buffers) :], strict=False)}
    arrays: list[np.ndarray] = []
    for b, a in zip(buffers, args, strict=False):
        if not isinstance(a, np.ndarray):
            raise InputError(f"{func.name}: {b.name} must be a NumPy array, got {type(a).__name__}")
        if a.dtype != b.dtype.numpy:
            raise InputError(f"{func.name}: {b.name} must be {b.dtype}, got {a.dtype}")
        if b.ndim == 1 and a.ndim != 1 and a.flags.c_contiguous:
            a = a.reshape(-1)
        if a.ndim != b.ndim:
            raise InputError(f"{func.name}: {b.name} must have {b.ndim} dimension(s), got shape {a.shape}")
        arrays.append(a)
        for d, n in zip(b.shape, a.shape, strict=True):
            if d.op == "var":
                sizes.setdefault(d, n)
    if unknown := [v.name for v in size_vars if v not in sizes]:
        raise InputError(f"{func.name}: size {unknown[0]} is no dimension of an argument: give its value after the arrays")
    for b, a in zip(buffers, arrays, strict=True):
        for axis, (d, n) in enumerate(zip(b.shape, a.shape, strict=True)):
            if (expected := evaluate_size(d, sizes)) != n:
                raise InputError(f"{func.name}: dimension {axis} of {b.name} must be {format_expr(d)} = {expected}, got {n}")
    return arrays, sizes


def evaluate_size(e: Expr, sizes: Mapping[Expr, int]) -> int:
    """An integer expression of size variables as a number.

    Raises:
        InputError: a variable in it has no value.
    """
    value = substitute(e, {v: const(sizes[v], v.dtype) for v in free_vars(e) if v in sizes})
    if value.op != "const":
        raise InputError(f"the size {e} is not determined by the arguments")
    return int(value.value)


def run_meaning(call: str, given: Mapping[str, Any]) -> None:
    """A part of a registered tensor intrinsic ("name.part") does what it means.

    Args:
        given: by parameter of the instruction: a one-dimensional array that begins with the tile's first element, or a number.

    Raises:
        IndexError: a tile is larger than its array.
    """
    found = find_part(call)
    if found is None:
        raise InternalError(f"{call} is no part of a registered tensor intrinsic")
    intrin, part, _ = found
    program = part_program(intrin, part)
    sizes = {v: int(given.get(v.name, 0)) for v in program.size_vars}
    tiles: dict[str, np.ndarray] = {}
    for b in program.buffers:
        name = intrin.output.name if b.name == OLD else b.name
        shape = tuple(evaluate_size(d, sizes) for d in b.shape)
        tiles[b.name] = tile_view(given[name], 0, shape, strides_of(name, shape, given))
    copies = {name: np.ascontiguousarray(t).reshape(t.shape).copy() for name, t in tiles.items()}
    run(program, [*copies.values(), *sizes.values()])
    tiles[intrin.output.name][...] = copies[intrin.output.name]


def _compile(func: PrimFunc, variant: Variant) -> tuple[Callable[..., None], list[Site]]:
    source, namespace, sites = python_source(func, variant)
    exec(compile(source, f"<interpreter: {func.name}>", "exec"), namespace)  # text of our own making
    return namespace["kernel"], sites


class _Runtime:
    """What the generated source calls: memory, vectors, and the less frequent conversions."""

    def __init__(self, func: PrimFunc, sites: list[Site], variant: Variant, order: str, seed: int, on_access: OnAccess | None):
        self.func, self.sites, self.variant, self.on_access = func, sites, variant, on_access
        self.on_barrier: OnBarrier | None = None
        self.rng = random.Random(seed) if order == "shuffled" else None

    def order(self, n: int) -> Sequence[int]:
        if self.rng is None:
            return range(n)[::-1]
        indices = list(range(n))
        self.rng.shuffle(indices)
        return indices

    def allocate(self, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
        return np.full(shape, poison(dtype), dtype.numpy)

    # -- accesses --------------------------------------------------------------------------------------------------
    def access(self, kind: str, site: int, index: tuple[int, ...], env: tuple[int, ...]) -> None:
        at = self.sites[site]
        if self.on_access is not None:
            self.on_access(kind, at.buffer, index, dict(zip(at.variables, env, strict=True)))

    def synchronise(self, kind: str) -> None:
        if self.on_barrier is not None:
            self.on_barrier(kind)

    def fail(self, kind: str, site: int, index: tuple[int, ...], array: np.ndarray, env: tuple[int, ...]) -> None:
        at = self.sites[site]
        shape = ", ".join(map(str, array.shape))
        where = f" in block {at.block!r}" if at.block else ""
        values = ", ".join(f"{v.name}={n}" for v, n in zip(at.variables, env, strict=True))
        raise ExecutionError(
            f"{self.func.name}: {kind} of {at.buffer.name}[{', '.join(map(str, index))}] is out of bounds: "
            f"{at.buffer.name} is {at.buffer.dtype}[{shape}]{where}" + (f", at {values}" if values else "")
        )

    def _lanes(
        self, kind: str, site: int, array: np.ndarray, index: tuple[Any, ...], mask: Any, env: tuple[int, ...]
    ) -> tuple[np.ndarray, ...]:
        """The lanes' indices, those of inactive lanes 0; checked and reported."""
        lanes = np.broadcast_arrays(*(np.asarray(i, np.int64) for i in index))
        active = range(lanes[0].size) if mask is None else np.flatnonzero(mask)
        if self.variant.check_bounds:
            wrong = np.zeros(lanes[0].size, bool)
            for i, n in zip(lanes, array.shape, strict=True):
                wrong |= (i < 0) | (i >= n)
            for lane in np.flatnonzero(wrong if mask is None else wrong & mask)[:1]:
                self.fail(kind, site, tuple(int(i[lane]) for i in lanes), array, env)
        if self.variant.trace:
            for lane in active:
                self.access(kind, site, tuple(int(i[lane]) for i in lanes), env)
        return tuple(lanes) if mask is None else tuple(np.where(mask, i, 0) for i in lanes)

    def vector_load(self, site: int, array: np.ndarray, index: tuple[Any, ...], mask: Any, env: tuple[int, ...]) -> np.ndarray:
        lanes = self._lanes("read", site, array, index, mask, env)
        if mask is None:
            return array[lanes]
        result = np.full(len(mask), poison(self.sites[site].buffer.dtype), array.dtype)
        result[mask] = array[tuple(i[mask] for i in lanes)]
        return result

    def vector_store(
        self, site: int, array: np.ndarray, index: tuple[Any, ...], value: Any, mask: Any, env: tuple[int, ...]
    ) -> None:
        lanes = self._lanes("write", site, array, index, mask, env)
        values = np.broadcast_to(value, lanes[0].shape)
        for lane in range(lanes[0].size) if mask is None else np.flatnonzero(mask):
            array[tuple(i[lane] for i in lanes)] = values[lane]

    def array(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        view = array.view()
        view.shape = shape  # never a copy: what is written must reach the memory
        return view

    def tensor_call(self, value: str, args: tuple[Any, ...]) -> None:
        """A part of a tensor intrinsic does what it means, on the tiles where its operands lie."""
        found = find_part(value)
        assert found is not None  # or the source would not call it
        names = [name for _, name in found[2].params]
        given: dict[str, Any] = {}
        for name, a in zip(names, args, strict=True):
            if not isinstance(a, tuple):
                given[name] = a
                continue
            array, index = a
            start = sum(i * s // array.itemsize for i, s in zip(index, array.strides, strict=True))
            given[name] = array.reshape(-1)[start:] if 0 <= start <= array.size else array[:0]
        try:
            run_meaning(value, given)
        except IndexError as error:
            raise ExecutionError(f"{self.func.name}: {value}: {error}") from None

    def call_packed(self, name: str, args: tuple[Any, ...], outputs: tuple[int, ...]) -> None:
        call(name, args, outputs)

    # -- values ----------------------------------------------------------------------------------------------------
    def broadcast(self, value: Any, lanes: int, dtype: DType) -> np.ndarray:
        return np.full(lanes, value, dtype.numpy)

    def blend(self, mask: Any, a: Any, b: Any, dtype: DType) -> np.ndarray:
        return np.where(mask, a, b).astype(dtype.numpy, copy=False)

    def binary(self, op: str, a: Any, b: Any) -> Any:
        return BINARY_NUMPY[op](a, b)

    def int_divide(self, op: str, a: Any, b: Any, mask: Any) -> Any:
        zero = np.asarray(b) == 0
        if np.any(zero if mask is None else zero & mask):
            raise ZeroDivisionError
        return BINARY_NUMPY[op](a, b)

    def cast(self, value: Any, to: DType) -> Any:
        return cast_numpy(value, to)

    def float_to_int(self, value: Any, to: DType) -> int:
        if -128 < value < 128:  # fits every signed type, and is by far the most frequent
            whole = int(value)
            if whole >= 0 or to.kind == "i":
                return whole
        return int(cast_numpy(value, to))

    def call(self, name: str, dtype: DType, args: tuple[Any, ...]) -> Any:
        return call_numpy(name, dtype, args)
