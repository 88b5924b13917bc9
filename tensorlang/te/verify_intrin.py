"""Whether an instruction does what its meaning says: both run on random inputs, once per process, before the first use.

Every part runs as plain Python and, where this machine has the features, as machine code, on tiles that lie anywhere in
larger arrays with random strides; whatever it should not write has to stay as it was. Integers must agree exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import RLock
from weakref import WeakSet

import numpy as np

from tensorlang.build import compile_and_load
from tensorlang.codegen.emit import HEADER
from tensorlang.codegen.native import CpuTarget, run_plain
from tensorlang.config import Settings
from tensorlang.errors import InternalError, ScheduleError
from tensorlang.ir import interp
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import PrimFunc
from tensorlang.ir.tensor_intrin import Instruction, TensorIntrin
from tensorlang.ir.tensor_parts import OLD, part_program, tile_view
from tensorlang.runtime.context import context_address

TRIALS = 4
PADDING = 8  # elements before and after a tile
RTOL = {"f64": 1e-12, "f32": 2e-5, "f16": 2e-3, "bf16": 2e-2}

_verified: WeakSet[TensorIntrin] = WeakSet()
_lock = RLock()


def verify_intrinsic(intrin: TensorIntrin, rtol: float | None = None) -> None:
    """Run the parts of `intrin` against its meaning.

    Raises:
        ScheduleError: they differ; the message has the inputs' sizes, the element and both values.
    """
    with _lock:
        if intrin in _verified:
            return
        for part, instruction in intrin.parts.items():
            if instruction is not None:
                _verify_part(intrin, part, instruction, rtol)
        _verified.add(intrin)


@dataclass(frozen=True)
class _Place:
    """A tensor of the meaning inside a larger array."""

    array: np.ndarray
    start: int
    strides: tuple[int, ...]
    shape: tuple[int, ...]

    def tile(self, array: np.ndarray) -> np.ndarray:
        """The tile's elements in a copy of the larger array (a view)."""
        return tile_view(array, self.start, self.shape, self.strides)


def _verify_part(intrin: TensorIntrin, part: str, instruction: Instruction, rtol: float | None) -> None:
    runs = _runs(intrin, part, instruction)
    program = part_program(intrin, part)
    rng = np.random.default_rng(20)
    for trial in range(TRIALS):
        sizes = {v: int(rng.integers(1, 7)) for v in intrin.meaning.size_vars}
        tensors = [b for b in program.buffers if b.name != OLD]
        places = {b.name: _place(b, b is intrin.output, instruction, sizes, rng, trial) for b in tensors}
        wanted = _wanted(intrin, part, program, places, sizes)
        for how, run in runs.items():
            arrays = {name: p.array.copy() for name, p in places.items()}
            try:
                run(_arguments(instruction, arrays, places, sizes))
            except Exception as error:  # the user's code may do anything
                raise ScheduleError(
                    f"intrinsic {intrin.name}: its {part} ({instruction.source}) fails, run as {how} on "
                    f"{_shown(places, sizes)}: {type(error).__name__}: {error}"
                ) from error
            _compare(intrin, part, instruction, how, arrays, wanted, places, sizes, rtol)


def _place(
    buffer: Buffer,
    written: bool,
    instruction: Instruction,
    sizes: Mapping[Expr, int],
    rng: np.random.Generator,
    trial: int,
) -> _Place:
    """A random place for a tensor: strides that the instruction takes are random, the others those of a tile without gaps."""
    shape = tuple(interp.evaluate_size(d, sizes) for d in buffer.shape)
    taken = {name for _, name in instruction.params}
    strides, step = [0] * len(shape), 1
    free = [f"{buffer.name}_stride{d}" in taken for d in range(len(shape))]
    order = range(len(shape))
    for d in order if trial == 2 and all(free) else reversed(order):  # transposed in one trial
        if free[d] and trial:
            step = 0 if not written and trial == TRIALS - 1 else step + int(rng.integers(0, 5))
        strides[d] = step
        step *= shape[d]
    start = PADDING + int(rng.integers(0, 5))
    last = sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    # In the first trial memory ends with the tile: plain Python notices who reads beyond.
    room = PADDING if trial else 0
    return _Place(_random(buffer.dtype, start + last + 1 + room, rng, trial), start, tuple(strides), shape)


def _random(dtype: DType, count: int, rng: np.random.Generator, trial: int) -> np.ndarray:
    """Random values: of integers the whole range, in one trial its ends only."""
    if dtype.is_bool:
        return rng.integers(0, 2, count).astype(np.bool_)
    if dtype.is_int:
        info = np.iinfo(dtype.numpy)
        if trial == 1:
            return rng.choice(np.array([info.min, info.max], dtype.numpy), count)
        return rng.integers(info.min, info.max, count, dtype=dtype.numpy, endpoint=True)
    return rng.standard_normal(count).astype(dtype.numpy)


def _wanted(
    intrin: TensorIntrin, part: str, program: PrimFunc, places: Mapping[str, _Place], sizes: Mapping[Expr, int]
) -> np.ndarray:
    """The output's larger array after the meaning has run."""
    out = places[intrin.output.name]
    array = out.array.copy()
    arguments = []
    for b in program.buffers:
        place = out if b.name == OLD else places[b.name]
        arguments.append(np.ascontiguousarray(place.tile(place.array)).reshape(place.shape).copy())
    interp.run(program, [*arguments, *(sizes[v] for v in program.size_vars)])
    out.tile(array)[...] = arguments[-1]
    return array


def _arguments(
    instruction: Instruction, arrays: Mapping[str, np.ndarray], places: Mapping[str, _Place], sizes: Mapping[Expr, int]
) -> list[np.ndarray | int]:
    values: dict[str, np.ndarray | int] = {v.name: n for v, n in sizes.items()}
    for name, p in places.items():
        values[name] = arrays[name][p.start :]
        values.update({f"{name}_stride{d}": s for d, s in enumerate(p.strides)})
        values.update({f"{name}_ahead": 0, f"{name}_turn": 0, f"{name}_turns": 1})
    return [values[name] for _, name in instruction.params]


def _runs(
    intrin: TensorIntrin, part: str, instruction: Instruction
) -> dict[str, Callable[[list[np.ndarray | int]], None]]:
    """The ways to execute an instruction here."""
    signature = ", ".join(f"{t} {n}" for t, n in instruction.params)
    names = ", ".join(["ctx", *(n for _, n in instruction.params)])
    text = instruction.text("instruction_under_test", intrin.requires, f"{intrin.name}.{part}")
    calls = [f"instruction_under_test({names})"]
    for n, part_around in enumerate(intrin.around):
        text = f"{part_around.text(f'around_{n}', intrin.requires)}\n\n{text}"
        calls.insert(n * len(calls), f"around_{n}({', '.join(['ctx', *(name for _, name in part_around.params)])})")
    lines = "".join(f"    {call}\n" for call in calls)
    source = f'{HEADER}\n\n{text}\n\n@kernel("{signature}")\ndef run({names}):\n{lines}'
    runs: dict[str, Callable[[list[np.ndarray | int]], None]] = {}
    if not instruction.native_only:  # or plain Python runs the meaning itself
        plain = run_plain(source)
        runs["plain Python"] = lambda args: plain["run"](None, *args)
    settings = Settings.from_env()
    if settings.jit and all(CpuTarget.host().has(r) for r in intrin.requires):
        try:
            library = compile_and_load(source, settings=settings)
        except InternalError as error:  # here it is the user's text that does not compile
            raise ScheduleError(f"intrinsic {intrin.name}: {instruction.source} does not compile:\n{error}") from error

        def native(args: list[np.ndarray | int]) -> None:
            library["run"](context_address(), *(a.ctypes.data if isinstance(a, np.ndarray) else a for a in args))

        runs["machine code"] = native
    return runs


def _compare(
    intrin: TensorIntrin,
    part: str,
    instruction: Instruction,
    how: str,
    arrays: Mapping[str, np.ndarray],
    wanted: np.ndarray,
    places: Mapping[str, _Place],
    sizes: Mapping[Expr, int],
    rtol: float | None,
) -> None:
    for name, array in arrays.items():
        want = wanted if name == intrin.output.name else places[name].array
        wrong = _differs(array, want, places[name], written=name == intrin.output.name, rtol=rtol)
        if not wrong.any():
            continue
        position = int(np.flatnonzero(wrong)[0])
        element = _element(places[name], position)
        where = (
            f"{name}[{', '.join(map(str, element))}]"
            if element is not None
            else f"an element of {name} outside of the tile"
        )
        raise ScheduleError(
            f"intrinsic {intrin.name}: its {part} ({instruction.source}) is not what it means: run as {how} on random inputs "
            f"({_shown(places, sizes)}), {where} is {array[position]}, and should be {want[position]}; "
            f"{int(wrong.sum())} element(s) differ"
        )


def _shown(places: Mapping[str, _Place], sizes: Mapping[Expr, int]) -> str:
    shapes = ", ".join(f"{n} {list(p.shape)} with strides {list(p.strides)}" for n, p in places.items())
    return shapes + "".join(f"; {v.name} = {n}" for v, n in sizes.items())


def _differs(array: np.ndarray, want: np.ndarray, place: _Place, written: bool, rtol: float | None) -> np.ndarray:
    exact = array.view(np.uint8).reshape(len(array), -1) != want.view(np.uint8).reshape(len(want), -1)
    wrong: np.ndarray = exact.any(axis=1)
    if not written or array.dtype.kind in "iub":
        return wrong
    inside = np.zeros(len(array), bool)
    place.tile(inside)[...] = True
    got, expected = array.astype(np.float64), want.astype(np.float64)
    scale = max(1.0, float(np.abs(expected[inside]).max(initial=0.0)))
    limit = (RTOL.get(_short(array.dtype), 2e-5) if rtol is None else rtol) * scale
    near = np.abs(got - expected) <= limit
    return np.where(inside, ~near & ~(np.isnan(got) & np.isnan(expected)), wrong)


def _short(dtype: np.dtype) -> str:
    return {"float64": "f64", "float32": "f32", "float16": "f16", "bfloat16": "bf16"}.get(dtype.name, dtype.name)


def _element(place: _Place, position: int) -> tuple[int, ...] | None:
    """The index of the tile's element at a position of the larger array."""
    numbers = np.arange(len(place.array))
    found = np.argwhere(place.tile(numbers) == position)
    return tuple(int(i) for i in found[0]) if len(found) else None
