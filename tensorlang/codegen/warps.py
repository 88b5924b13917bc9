"""What the 32 threads of a warp do together on tiles that lie in their registers: the instructions of tensor cores.

    for ii in range(16, tensor_intrin="cuda.mma_bf16"):          c[0:16, 0:8] += a[0:16, 0:16] * b[0:16, 0:8]: one `mma.sync`
        for jj in 8: for kk in 16: c[ii, jj] += a[ii, kk] * b[kk, jj]

In the program a tile is an array like any other, and the nest is loops. On the device each lane holds some elements of it in
registers, the same ones for every instruction of a kind (PTX ISA, "Matrix multiply-accumulate operation using mma
instruction"): `Role` says which. So who owns an element is known, and races are decided as for all other threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, floordiv, floormod, var
from tensorlang.ir.stmt import Allocate, Block, For, If, Seq, Stmt, Store
from tensorlang.ir.tensor_intrin import RESET, TENSORIZED
from tensorlang.ir.visitor import loads, walk_stmt
from tensorlang.symbolic.affine import linear_form

WARP = 32
ROWS, COLUMNS = 16, 8  # of the result of one instruction
DEPTHS = {"bf16": 16, "f16": 16, "tf32": 8}
# Which of its two registers along a dimension: pseudo-loops of two iterations each.
REGISTERS = (var("register0"), var("register1"))


@dataclass(frozen=True)
class Instruction:
    """One of them: "mma" or "load", of operand "a" or "b"; `near`: the dimension along which the source of a load lies side by
    side ("k", "i" of a, "j" of b)."""

    name: str
    kind: str
    action: str
    operand: str = ""
    near: str = ""

    @property
    def depth(self) -> int:
        return DEPTHS[self.kind]


def _instructions() -> Iterator[Instruction]:
    for kind in DEPTHS:
        yield Instruction(f"cuda.mma_{kind}", kind, "mma")
        yield Instruction(f"cuda.mma_{kind}_f32", kind, "mma")  # of operands that are cast to f32
        for operand, other in (("a", "i"), ("b", "j")):
            yield Instruction(f"cuda.load_{operand}_{kind}", kind, "load", operand, "k" if operand == "a" else other)
            yield Instruction(f"cuda.load_{operand}_turned_{kind}", kind, "load", operand, other if operand == "a" else "k")


INSTRUCTIONS = {i.name: i for i in _instructions()}


@dataclass(frozen=True, eq=False)
class Tile:
    """An operand of an instruction in the program.

    Attributes:
        buffer, base: the array, and the place of the tile's first element.
        steps: how far elements lie apart along "i", "j", "k".
    """

    buffer: Buffer
    base: Expr
    steps: dict[str, int]


@dataclass(frozen=True, eq=False)
class Call:
    """A nest of loops that is one instruction.

    Attributes:
        reset: it sets the result to zero.
        target: the tile in registers that it writes.
        sources: the tiles that it reads: a and b of a product; the place in memory of a load.
        loops: the loops of the nest, by the letter of the dimension.
    """

    instruction: Instruction
    reset: bool
    target: Tile
    sources: tuple[Tile, ...]
    loops: dict[str, Expr]

    def role(self, buffer: Buffer) -> str:
        """What a tile of registers is: "c", "a" or "b"; "" of memory that all threads see."""
        if buffer is self.target.buffer:
            return self.instruction.operand or "c"
        if self.instruction.action == "load":
            return ""
        return "a" if buffer is self.sources[0].buffer else "b"

    def lane(self, buffer: Buffer) -> Expr | None:
        """Whose the element is that the nest's loops are at; None of memory that all threads see."""
        role = self.role(buffer)
        if not role:
            return None
        if role == "c":
            return self.loops["i"] % 8 * 4 + floordiv(self.loops["j"], 2)
        outer = floormod(self.loops["i"], 8) if role == "a" else self.loops["j"]
        quarter = self.instruction.depth // 2
        return outer * 4 + floordiv(floormod(self.loops["k"], quarter), quarter // 4)

    def registers(self, tile: Tile) -> Expr:
        """The places of the first lane's registers in a tile's array, by `REGISTERS`; of a and b, each holds 32 bits."""
        first, second = REGISTERS
        role, half = self.role(tile.buffer), self.instruction.depth // 2
        if role == "c":
            return tile.base + first * (8 * tile.steps["i"]) + second * tile.steps["j"]
        if role == "a":
            return tile.base + first * (half * tile.steps["k"]) + second * (8 * tile.steps["i"])
        return tile.base + first * (half * tile.steps["k"])


def call_of(s: Stmt) -> Call | None:
    """The instruction that a lowered nest is.

    Raises:
        BuildError: it is marked as one, and is another.
    """
    if not isinstance(s, For):
        return None
    name = s.annotations.get(TENSORIZED) or s.annotations.get(RESET)
    instruction = INSTRUCTIONS.get(str(name))
    if instruction is None:
        return None
    reset = TENSORIZED not in s.annotations
    extents: dict[Expr, int] = {}
    body: Stmt = s
    while isinstance(body, For | Allocate | Block):
        if isinstance(body, For):
            extents[body.var] = body.extent.value if body.extent.op == "const" else 0
        body = body.body
    if isinstance(body, If | Seq) or not isinstance(body, Store):
        raise BuildError(f"the nest of {s.var.name} is not {name} any more: its tile is not whole")
    places = [(body.buffer, body.indices[0]), *((e.value, e.args[0]) for e in loads(body.value))]
    places = [p for n, p in enumerate(places) if n == 0 or p[0] is not body.buffer]
    forms = [linear_form(index, set(extents)) for _, index in places]
    steps = [{v: c for v, c in form[0].items() if isinstance(c, int) and c} if form is not None else {} for form in forms]
    expected = 1 if reset else 3 if instruction.action == "mma" else 2
    if len(places) != expected or any(form is None for form in forms):
        raise BuildError(f"the nest of {s.var.name} is not {name} any more: its elements lie at other places")
    loops = _dimensions(instruction, reset, extents, steps)
    if loops is None:
        raise BuildError(f"{name}: its operands do not lie as it wants them: {', '.join(b.name for b, _ in places)}")
    tiles = [
        Tile(b, form[1], {d: by.get(v, 0) for d, v in loops.items()})
        for (b, _), form, by in zip(places, forms, steps, strict=True) if form is not None
    ]  # fmt: skip
    if instruction.action == "mma" and not reset and "i" in loops and not tiles[1].steps["i"]:
        tiles[1:] = tiles[:0:-1]  # b * a
    return Call(instruction, reset, tiles[0], tuple(tiles[1:]), loops)


def _dimensions(
    instruction: Instruction, reset: bool, extents: dict[Expr, int], steps: list[dict[Expr, int]]
) -> dict[str, Expr] | None:
    """The loop of each dimension."""
    if instruction.action == "load":
        near = [v for v in extents if steps[1].get(v) == 1]
        other = [v for v in extents if v not in near]
        letters = (instruction.near, ({"i", "j", "k"} - {instruction.near, "j" if instruction.operand == "a" else "i"}).pop())
        found = dict(zip(letters, [*near, *other], strict=False)) if len(near) == len(other) == 1 else None
    else:
        rows = [v for v, n in extents.items() if v in steps[0] and n == ROWS]
        columns = [v for v, n in extents.items() if v in steps[0] and n == COLUMNS]
        deep = [v for v in extents if v not in steps[0]]
        ok = len(rows) == len(columns) == 1 and len(deep) == (0 if reset else 1)
        found = {"i": rows[0], "j": columns[0], **({} if reset else {"k": deep[0]})} if ok else None
    sizes = {"i": ROWS, "j": COLUMNS, "k": instruction.depth}
    if found is None or any(extents[v] != sizes[d] for d, v in found.items()):
        return None
    return found


def calls_in(s: Stmt) -> dict[Expr, Call]:
    """The instructions of a program, by the variables of their nests' loops."""
    found = {}
    for c in walk_stmt(s):
        if (call := call_of(c)) is not None:
            found.update(dict.fromkeys(call.loops.values(), call))
    return found


def fragments(s: Stmt) -> set[Buffer]:
    """Arrays whose tiles lie in the registers of warps."""
    calls = set(calls_in(s).values())
    return {t.buffer for c in calls for t in (c.target, *c.sources) if c.role(t.buffer)}
