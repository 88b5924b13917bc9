"""Tensor intrinsics: what an instruction means, as a small program over tiles, and the instruction, as Python text.

A nest that was bound to an intrinsic stays a nest: its outermost loop carries the annotation `tensor_intrin="name"`. So the
interpreter runs the meaning, legality sees every access, and the text parses back. Lowering finds the operands again
(`symbolic.tile`, `symbolic.unify`) and puts the instruction in the nest's place.

The parts of an intrinsic: `body`, all that the meaning says; and of a reduction `reset`, its initialisation, and `update`,
the accumulation without it, for programs that reduce outside of the tile too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

from tensorlang.errors import ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Block, For, PrimFunc, Stmt, Store
from tensorlang.ir.visitor import blocks, substitute

TENSORIZED = "tensor_intrin"  # annotation of the outermost loop of a tile: the intrinsic's name
RESET = "tensor_reset"  # the same on the initialisation that `init_nest` makes of a tile
FALLBACK = "tensor_fallback"  # beside TENSORIZED: where the machine lacks the instruction, the loops run
BLOCKIZED = "blockized"  # annotation of a loop: it and all below are one unit
PARTS = ("body", "update", "reset")


@dataclass(frozen=True)
class Instruction:
    """One Python function over pointers and strides, as text.

    Attributes:
        params: (type text, name) as in a kernel's signature: `("f32*", "a")`, `("i64", "a_stride0")`, `("i64", "K")`.
        body: the function's statements, one string, indented by four.
        source: file:line of its definition.
        native_only: it has no plain-Python twin.
    """

    params: tuple[tuple[str, str], ...]
    body: str
    source: str
    native_only: bool = False

    def text(self, name: str, requires: Sequence[str] = (), means: str = "") -> str:
        """The function as it stands in an emitted module.

        Args:
            requires: the CPU features that it needs.
            means: "intrinsic.part", which runs with the jit off where the function has no plain twin.
        """
        signature = ", ".join(f"{t} {n}" for t, n in self.params)
        names = ", ".join(["ctx", *(n for _, n in self.params)])
        needs = f', requires="{" ".join(requires)}"' if requires else ""
        needs += f', means="{means}"' if self.native_only else ""
        return f'@instruction("{signature}"{needs})\ndef {name}({names}):\n    # {self.source}\n{self.body}\n'


@dataclass(frozen=True)
class Pattern:
    """One part of a meaning as loops around one store.

    Attributes:
        axes: (variable, extent, "spatial" or "reduce").
    """

    axes: tuple[tuple[Expr, Expr, str], ...]
    store: Store


@dataclass(frozen=True, eq=False)
class TensorIntrin:
    """A meaning with its instruction.

    Attributes:
        meaning: a program of one stage over tiles; its parameters' dimensions are constants or size variables.
        parts: the instruction of each part; None: the meaning's loops run.
        requires: LLVM names of the CPU features that the instructions need.
        around: what a thread does once before any number of tiles of the same sizes, and once after them; of sizes alone.
        verify: runs meaning and instruction on random inputs, once per process.

    `verify` raises ScheduleError with a counterexample where they differ.
    """

    name: str
    meaning: PrimFunc
    parts: Mapping[str, Instruction | None]
    requires: tuple[str, ...] = ()
    around: tuple[Instruction, ...] = ()
    verify: Callable[[TensorIntrin], None] = lambda intrin: None

    @property
    def block(self) -> Block:
        """The meaning's only block."""
        return blocks(self.meaning.body)[0]

    @property
    def is_reduction(self) -> bool:
        return self.block.init is not None

    @property
    def output(self) -> Buffer:
        return self.meaning.outputs[0]

    def pattern(self, part: str) -> Pattern:
        """The loops and the store of `"update"` (or a whole `"body"` without initialisation), or of `"reset"`."""
        block = self.block
        s: Stmt | None = block.init if part == "reset" else block.body
        if not isinstance(s, Store):
            raise ScheduleError(f"intrinsic {self.name} has no part {part!r}")
        kinds = ("spatial",) if part == "reset" else ("spatial", "reduce")
        named = {it.var: it.binding if it.binding.op == "var" else it.var for it in block.iters}  # the user's names
        axes = tuple((named[it.var], it.extent, it.kind) for it in block.iters if it.kind in kinds)
        return Pattern(
            axes, Store(s.buffer, tuple(substitute(i, named) for i in s.indices), substitute(s.value, named))
        )


_REGISTRY: dict[str, TensorIntrin] = {}
_LOCK = Lock()


def register(intrin: TensorIntrin) -> TensorIntrin:
    """Make `intrin` known by its name; the last one of a name counts."""
    with _LOCK:
        _REGISTRY[intrin.name] = intrin
    return intrin


def registered(name: str) -> TensorIntrin | None:
    return _REGISTRY.get(name)


def find_part(call: Any) -> tuple[TensorIntrin, str, Instruction] | None:
    """The intrinsic, the part and the instruction that `call("name.part", ...)` in a lowered program stands for."""
    name, _, part = str(call).rpartition(".")
    intrin = _REGISTRY.get(name)
    instruction = None if intrin is None else intrin.parts.get(part)
    return None if intrin is None or instruction is None else (intrin, part, instruction)


def names() -> list[str]:
    return sorted(_REGISTRY)


def tile_annotation(loop: For) -> str | None:
    """The name of the intrinsic that the nest below `loop` is bound to."""
    name = loop.annotations.get(TENSORIZED)
    return name if isinstance(name, str) else None


def of_initialisation(loop: For) -> For:
    """`loop` for the initialisation of a tile: it is matched with another part of the intrinsic."""
    if TENSORIZED not in loop.annotations and BLOCKIZED not in loop.annotations:
        return loop
    kept = {k: v for k, v in loop.annotations.items() if k not in (TENSORIZED, BLOCKIZED)}
    name = tile_annotation(loop)
    return replace(loop, annotations=kept if name is None else {**kept, RESET: name})
