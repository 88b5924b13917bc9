"""The hardware, simulated: an instruction stream runs on real numbers, and every instruction takes its time.

    in     DMA from main memory into a scratchpad      LATENCY + bytes / BANDWIDTH cycles
    array  16x16 multipliers of bytes                  16 cycles a tile, and 16 to load weights that are not in it yet
    out    DMA from the accumulators to main memory    as `in`

The three engines run side by side. An instruction begins when its engine is free and the tiles that it touches are: read after
write, write after read, write after write. The stream itself is a list of tuples, loops included:

    ("loop", "i", 4, [...])                            addresses are sums of constants and multiples of loop variables
    ("load", "a", to, "x", from, strides...)           a tile of 16x16 bytes; how far its rows lie apart there and here
    ("zero", to, stride) | ("mac", acc, a, b, strides...) | ("store", "y", to, from, strides...)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SIDE = 16
TILE = SIDE * SIDE
CAPACITY = {"accel.a": 1 << 17, "accel.b": 1 << 16, "accel.acc": 1 << 16}  # bytes: activations, weights, accumulators
ELEMENT = {"accel.a": 1, "accel.b": 1, "accel.acc": 4}
LATENCY, BANDWIDTH = 20, 32  # cycles; bytes a cycle
CLOCK = 1e9  # cycles a second

Address = Sequence[Any]  # [constant, [variable, coefficient]...]


@dataclass
class Run:
    """What a run took.

    Attributes:
        cycles: from the first instruction to the end of the last, summed over kernels.
        busy: cycles of each engine.
        moved: bytes moved by DMA.
        tiles: tile products.
    """

    cycles: int = 0
    busy: dict[str, int] = field(default_factory=lambda: {"in": 0, "array": 0, "out": 0})
    moved: int = 0
    tiles: int = 0
    kernels: int = 0

    @property
    def utilisation(self) -> float:
        """Products per cycle, of the 256 that the array could do: a tile product, zeros that fill it up
        included, keeps it busy for 16 cycles."""
        return self.tiles * SIDE / self.cycles if self.cycles else 0.0

    def __str__(self) -> str:
        busy = ", ".join(f"{name} {cycles / max(self.cycles, 1):.0%}" for name, cycles in self.busy.items())
        return (
            f"{self.kernels} kernels, {self.cycles} cycles ({self.cycles / CLOCK * 1e3:.2f} ms), array used to "
            f"{self.utilisation:.1%}; engines busy: {busy}; {self.moved} bytes moved"
        )


_MEASURED: ContextVar[tuple[Run, ...]] = ContextVar("measured", default=())


@contextmanager
def measure() -> Iterator[Run]:
    """The sum of all that runs inside."""
    run = Run()
    token = _MEASURED.set((*_MEASURED.get(), run))
    try:
        yield run
    finally:
        _MEASURED.reset(token)


class Simulator:
    """One kernel, ready to run."""

    def __init__(self, stream: Sequence[Any], params: Sequence[str]):
        self.stream, self.params = stream, params

    def __call__(self, *args: Any) -> Run:
        """Run on arrays, in place; what it took."""
        memory = {name: a.reshape(-1) for name, a in zip(self.params, args, strict=True) if isinstance(a, np.ndarray)}
        execution = _Execution(memory)
        execution.block(self.stream, {})
        run = execution.run
        run.cycles = max(execution.free.values())
        for total in _MEASURED.get():
            total.cycles += run.cycles
            total.moved += run.moved
            total.tiles += run.tiles
            total.kernels += 1
            for engine, cycles in run.busy.items():
                total.busy[engine] += cycles
        return run


class _Execution:
    def __init__(self, memory: Mapping[str, np.ndarray]):
        self.memory = memory
        self.a = np.zeros(CAPACITY["accel.a"], np.uint8)
        self.b = np.zeros(CAPACITY["accel.b"], np.int8)
        self.acc = np.zeros(CAPACITY["accel.acc"] // 4, np.int32)
        self.free = {"in": 0, "array": 0, "out": 0}
        self.written: dict[tuple[str, int], int] = {}  # when a tile will have been written
        self.read: dict[tuple[str, int], int] = {}  # when its last reader will be done
        self.weights: tuple[int, int] | None = None  # the tile of weights in the array, and which of its loads
        self.loads: dict[int, int] = {}
        self.run = Run()

    def block(self, stream: Sequence[Any], env: dict[str, int]) -> None:
        for instruction in stream:
            if instruction[0] == "loop":
                _, name, count, body = instruction
                for env[name] in range(count):
                    self.block(body, env)
            else:
                getattr(self, f"do_{instruction[0]}")(instruction[1:], env)

    # -- instructions ----------------------------------------------------------------------------------------------
    def do_load(self, operands: Sequence[Any], env: Mapping[str, int]) -> None:
        pad, to, name, source, to_stride, stride = operands
        at = _value(to, env)
        _tile(self.a if pad == "a" else self.b, at, to_stride)[:] = _tile(self.memory[name], _value(source, env), stride)
        if pad == "b":
            self.loads[at] = self.loads.get(at, 0) + 1
        self.take("in", LATENCY + TILE // BANDWIDTH, [], [(pad, at)])
        self.run.moved += TILE

    def do_zero(self, operands: Sequence[Any], env: Mapping[str, int]) -> None:
        at = _value(operands[0], env)
        _tile(self.acc, at, operands[1])[:] = 0
        self.take("array", 1, [], [("acc", at)])

    def do_mac(self, operands: Sequence[Any], env: Mapping[str, int]) -> None:
        c, a, b = (_value(o, env) for o in operands[:3])
        c_stride, a_stride, b_stride = operands[3:]
        left, right = _tile(self.a, a, a_stride).astype(np.int32), _tile(self.b, b, b_stride).astype(np.int32)
        _tile(self.acc, c, c_stride)[:] += left @ right
        wanted = (b, self.loads.get(b, 0))
        cycles = SIDE if wanted == self.weights else 2 * SIDE
        self.weights = wanted
        self.take("array", cycles, [("a", a), ("b", b), ("acc", c)], [("acc", c)])
        self.run.tiles += 1

    def do_store(self, operands: Sequence[Any], env: Mapping[str, int]) -> None:
        name, to, source, stride, from_stride = operands
        at = _value(source, env)
        _tile(self.memory[name], _value(to, env), stride)[:] = _tile(self.acc, at, from_stride)
        self.take("out", LATENCY + 4 * TILE // BANDWIDTH, [("acc", at)], [])
        self.run.moved += 4 * TILE

    def take(self, engine: str, cycles: int, reads: list[tuple[str, int]], writes: list[tuple[str, int]]) -> None:
        """An instruction of so many cycles, as soon as it can."""
        start = self.free[engine]
        for tile in (*reads, *writes):
            start = max(start, self.written.get(tile, 0))
        for tile in writes:
            start = max(start, self.read.get(tile, 0))
        end = start + cycles
        for tile in reads:
            self.read[tile] = max(self.read.get(tile, 0), end)
        for tile in writes:
            self.written[tile] = end
        self.free[engine] = end
        self.run.busy[engine] += cycles


def _value(address: Address, env: Mapping[str, int]) -> int:
    total: int = address[0]
    for name, factor in address[1:]:
        total += env[name] * factor
    return total


def _tile(flat: np.ndarray, start: int, stride: int) -> np.ndarray:
    """Sixteen rows of sixteen elements of a memory."""
    if start < 0 or start + (SIDE - 1) * stride + SIDE > flat.size:
        raise IndexError(f"a tile outside of memory: {start} + 15 * {stride} + 16 of {flat.size} elements")
    item = flat.itemsize
    return np.lib.stride_tricks.as_strided(flat[start:], (SIDE, SIDE), (stride * item, item))
