"""Finding and replacing parts of a loop nest; everything here is structural and knows no legality."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from tensorlang.errors import InternalError, ScheduleError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr, and_
from tensorlang.ir.stmt import Allocate, Block, CallPacked, For, Seq, Stmt, Store, seq
from tensorlang.ir.visitor import children, loads, own_exprs, rewrite_stmt, walk_stmt, with_children


def path_to(root: Stmt, wanted: Callable[[Stmt], bool]) -> list[Stmt]:
    """The statements from `root` down to the first match, both included; empty when there is none."""
    stack: list[tuple[Stmt, int]] = [(root, 0)]
    path: list[Stmt] = []
    while stack:
        node, depth = stack.pop()
        del path[depth:]
        path.append(node)
        if wanted(node):
            return path
        stack += [(c, depth + 1) for c in reversed(children(node))]
    return []


def loop_path(root: Stmt, var: Expr) -> list[Stmt]:
    return path_to(root, lambda s: isinstance(s, For) and s.var is var)


def block_path(root: Stmt, name: str) -> list[Stmt]:
    return path_to(root, lambda s: isinstance(s, Block) and s.name == name)


def find_block(root: Stmt, name: str) -> Block:
    path = block_path(root, name)
    if not path or not isinstance(path[-1], Block):
        raise InternalError(f"no block {name!r}")
    return path[-1]


def loops_of(path: Iterable[Stmt]) -> list[For]:
    return [s for s in path if isinstance(s, For)]


def replace_stmt(root: Stmt, old: Stmt, new: Stmt | None) -> Stmt:
    """`root` with the node `old` replaced (or removed: None). Containers left empty disappear."""
    result = _replace(root, old, new)
    if result is None:
        raise InternalError("a program cannot be replaced by nothing")
    return result


def _replace(node: Stmt, old: Stmt, new: Stmt | None) -> Stmt | None:
    if node is old:
        return new
    kids = children(node)
    if not kids:
        return node
    results = [_replace(c, old, new) for c in kids]
    if all(a is b for a, b in zip(kids, results, strict=True)):
        return node
    kept = tuple(r for r in results if r is not None)
    if isinstance(node, Seq):
        return seq(*kept) if kept else None
    if len(kept) != len(kids):
        return None
    return with_children(node, kept)


def sole_ancestor(path: list[Stmt]) -> Stmt:
    """The highest statement on `path` that holds nothing but the path's last statement (loops only)."""
    top = path[-1]
    for node in reversed(path[:-1]):
        if not isinstance(node, For):
            break
        top = node
    return top


def own_loops(path: list[Stmt]) -> list[For]:
    """The loops that hold only the path's last statement, outermost first."""
    found: list[For] = []
    for node in reversed(path[:-1]):
        if not isinstance(node, For):
            break
        found.append(node)
    return found[::-1]


def guard_blocks(body: Stmt, condition: Expr) -> Stmt:
    """`condition` conjoined to the predicate of every block in `body`."""

    def rule(s: Stmt) -> Stmt | None:
        return replace(s, predicate=and_(s.predicate, condition)) if isinstance(s, Block) else None

    return rewrite_stmt(body, rule)


def written_buffer(block: Block) -> Buffer:
    """The buffer that a block writes.

    Raises:
        ScheduleError: it writes several: what asks for one cannot be done to it.
    """
    written = written_buffers(block)
    if len(written) != 1:
        names = ", ".join(b.name for b in written) or "nothing"
        raise ScheduleError(f"stage {block.name} computes {names}; this is possible only where a stage computes one tensor")
    return next(iter(written))


def written_buffers(s: Stmt) -> dict[Buffer, None]:
    """The buffers that `s` (of a block: its body) writes, in order."""
    found: dict[Buffer, None] = {}
    for node in walk_stmt(s.body if isinstance(s, Block) else s):
        if isinstance(node, Store):
            found.setdefault(node.buffer)
        elif isinstance(node, CallPacked):
            found.update(dict.fromkeys(node.outputs))
    return found


def read_buffers(s: Stmt) -> dict[Buffer, None]:
    found: dict[Buffer, None] = {}
    for node in walk_stmt(s):
        for e in own_exprs(node):
            for load in loads(e):
                found.setdefault(load.value)
        if isinstance(node, CallPacked):
            found.update(dict.fromkeys(node.buffers))  # what it writes, it may read as well
    return found


def allocation(root: Stmt, buffer: Buffer) -> Allocate | None:
    path = path_to(root, lambda s: isinstance(s, Allocate) and s.buffer is buffer)
    return path[-1] if path and isinstance(path[-1], Allocate) else None


def drop_allocation(root: Stmt, buffer: Buffer) -> Stmt:
    node = allocation(root, buffer)
    return root if node is None else replace_stmt(root, node, node.body)
