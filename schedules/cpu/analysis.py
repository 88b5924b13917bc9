"""What the rules ask about a stage: who reads it, how an axis runs through memory, how much work there is."""

from __future__ import annotations

from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, const
from tensorlang.ir.reduction import COMBINE, init_stores, reduction_of, stores_of
from tensorlang.ir.stmt import Block, Store
from tensorlang.ir.tree import block_path, loops_of, own_loops, read_buffers, sole_ancestor, written_buffers
from tensorlang.ir.visitor import blocks, free_vars, loads, walk
from tensorlang.schedule import Loop, Schedule, Stage
from tensorlang.schedule.rules import Machine
from tensorlang.symbolic.affine import linear_form

PARALLEL_WORK = 32 * 1024  # scalar operations below which a parallel region costs more than it gains


def store_of(block: Block) -> Store:
    """The store of a block that has one: ask `is_plain` first."""
    assert isinstance(block.body, Store)
    return block.body


def source_of(block: Block) -> Expr:
    """What the block adds up, or stores."""
    reduction = reduction_of(block)
    return reduction.source if reduction else store_of(block).value


def is_reduction(block: Block) -> bool:
    return block.init is not None


def readers_of(s: Schedule, buffer: Buffer) -> list[Block]:
    return [b for b in blocks(s.func.body) if buffer in read_buffers(b) and buffer not in written_buffers(b)]


def is_plain(s: Schedule, block: Block) -> bool:
    """Whether the stage is what the rules understand: one store of an element, or one reduction by an operator of the
    language, by the only stage that writes its tensor; and, of a reduction, in loops of its own."""
    if not isinstance(block.body, Store):
        return False
    buffer = block.body.buffer
    if any(b is not block and buffer in written_buffers(b) for b in blocks(s.func.body)):
        return False
    if block.init is None:
        return block.body.indices == tuple(it.var for it in block.iters if it.kind == "spatial") and not reduce_vars(block)
    reduction = reduction_of(block)
    known = reduction is not None and reduction.kind in COMBINE and isinstance(block.init, Store)
    if not known or any(loads(store.value) for store in init_stores(block)):
        return False
    path = block_path(s.func.body, block.name)
    return not loops_of(path[: path.index(sole_ancestor(path))])


def has_own_axes(s: Schedule, stage: Stage, loops: tuple[Loop, ...] | None = None) -> bool:
    """Whether nothing else is computed in `loops` (default: those over the stage's elements): else they must stay."""
    own = {f.var for f in own_loops(block_path(s.func.body, stage.name))}
    return all(loop.var in own for loop in (stage.axis if loops is None else loops))


def is_pointwise(block: Block) -> bool:
    """Whether points of the stage write an element each, of the axes' own numbers (in concatenations, at a distance from
    them), and read none that others write."""
    store, axes = store_of(block), spatial_vars(block)
    if len(store.indices) != len(axes) or store.buffer in read_buffers(block):
        return False
    return all(_is_shifted(i, v, set(axes)) for i, v in zip(store.indices, axes, strict=True))


def _is_shifted(index: Expr, var: Expr, axes: set[Expr]) -> bool:
    """Whether `index` is `var`, or `var` and something that no axis moves."""
    if index is var:
        return True
    rest = [a for a in index.args if a is not var] if index.op == "add" else []
    return len(rest) == 1 and not free_vars(rest[0]) & axes


def spatial_vars(block: Block) -> list[Expr]:
    return [it.var for it in block.iters if it.kind == "spatial"]


def reduce_vars(block: Block) -> list[Expr]:
    return [it.var for it in block.iters if it.kind == "reduce"]


def extent(block: Block, var: Expr) -> int | None:
    """The constant extent of an iteration variable, or None."""
    size = next(it.extent for it in block.iters if it.var is var)
    return size.value if size.op == "const" else None


def step(access: Expr, var: Expr) -> str:
    """How a load moves when `var` grows by one: "still", "unit" (to the next element), or "far"."""
    if not any(var in free_vars(i) for i in access.args):
        return "still"
    last = len(access.args) - 1
    while last and access.value.shape[last] is const(1):
        last -= 1
    if any(var in free_vars(i) for i in access.args[:last]):
        return "far"
    form = linear_form(access.args[last], {var})
    return "unit" if form is not None and form[0].get(var) == 1 else "far"


def stride(access: Expr, var: Expr) -> int | None:
    """By how many neighbouring elements a load moves when `var` grows by one, if that is a number."""
    if not access.args or any(var in free_vars(i) for i in access.args[:-1]):
        return None
    form = linear_form(access.args[-1], {var})
    coefficient = form[0].get(var) if form is not None else None
    return coefficient if isinstance(coefficient, int) else None


def is_contraction(block: Block) -> bool:
    """A sum of products of two loads, each of which lacks a spatial variable that the other has."""
    reduction = reduction_of(block)
    if reduction is None or reduction.kind != "sum" or reduction.source.op != "mul":
        return False
    a, b = (set().union(*(free_vars(x) for x in loads(arg))) if loads(arg) else set() for arg in reduction.source.args)
    own = set(spatial_vars(block))
    return bool((a - b) & own) and bool((b - a) & own)


def work(block: Block) -> int | None:
    """Scalar operations of the whole stage, or None where a size is symbolic."""
    values = [store.value for store in stores_of(block.body) or ()]
    total = max(1, sum(1 for value in values for n in walk(value) if n.op not in ("const", "var")))
    for it in block.iters:
        if it.extent.op != "const":
            return None
        total *= it.extent.value
    return total


def worth_parallel(amount: int | None) -> bool:
    return amount is None or amount >= PARALLEL_WORK


# ten instructions and more
COSTLY = frozenset({"exp", "expm1", "log", "log1p", "log2", "sigmoid", "tanh", "erf", "sin", "cos", "tan", "pow"})


def is_costly(block: Block) -> bool:
    """Whether the stage computes a transcendental function."""
    return any(n.op == "call" and n.value in COSTLY for n in walk(source_of(block)))


def interleaved(block: Block, size: int | None, lanes: int, machine: Machine) -> int:
    """How many vectors of a line of `size` elements a step should take at once. A transcendental function is a chain of
    dependent instructions longer than the processor looks ahead: several chains beside each other keep its units busy. Only
    where a line has many steps, since the last one may be mostly empty."""
    count = 4 if machine.vector_registers >= 32 else 2
    if not is_costly(block):
        return 1
    return count if size is None or size % (count * lanes) == 0 or size >= 4 * count * lanes else 1


def is_index_math(e: Expr) -> bool:
    """A plain load: the stage only moves elements."""
    return e.op == "load"
