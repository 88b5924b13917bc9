"""Rewrites of the emitted source for the front end only; the text that a person reads and steps stays as it is.

1. `for i in range(a, b)` becomes `i = a; while i < b: ...; i = i + 1`. Numba makes an iterator of every range, some thirty
   instructions and a dozen typing steps; a counted `while` is four.
2. Loops over `unrolled(n)`, and constant-trip loops over a local array, are marked to be unrolled in full: only then are an
   array's elements at constant places, and become registers. LLVM's own limit would stop at about eight accumulators. An
   array larger than all vector registers stays in memory, and so do the loops over it: unrolled, every element would be
   spilled and reloaded by itself, where a loop keeps what one iteration needs in registers and what all iterations share too.
   Loops around the tile (the steps of a sum) are unrolled only where they are few: LLVM keeps what neighbouring steps read in
   common, and of many steps that is more than there are registers.
3. `x += y` becomes `x = x + y`: vectors know only the operators proper.
4. Local names get a final `_` where they end in a digit: numba calls the value of `i1` at bytecode offset 24, and that of `i`
   at offset 124, both `$i124`.
"""

from __future__ import annotations

import ast
import copy
import re

UNROLLED = "unrolled"  # a range whose loop the schedule wants unrolled
_RANGES = ("range", UNROLLED)
UNROLL_MARK = "_unroll"  # a call of this name at a loop's end; the front end turns it into loop metadata
MAX_UNROLLED = 1024  # statements that one nest may become
MAX_STEPS = 96  # statements that the steps of a sum may become together
REGISTER_BYTES = 32 * 64  # the largest vector register file there is


def rewrite_loops(tree: ast.Module) -> ast.Module:
    """Rewrite, in place, every range loop for which it means the same."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            _Rewriter(_local_arrays(statement)).visit(statement)
            _end_names_without_digits(statement)
    return ast.fix_missing_locations(tree)


def _end_names_without_digits(function: ast.FunctionDef) -> None:
    arguments = function.args.args
    local = {a.arg for a in arguments} | _assigned(function.body)
    renamed: dict[str, str] = {}
    for name in sorted(n for n in local if n[-1].isdigit()):
        new = f"{name}_"
        while new in local:
            new += "_"
        local.add(new)
        renamed[name] = new
    for a in arguments:
        a.arg = renamed.get(a.arg, a.arg)
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            node.id = renamed.get(node.id, node.id)
    for decorator in function.decorator_list:
        for node in ast.walk(decorator):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):  # the signature names the parameters too
                node.value = re.sub(r"\w+", lambda word: renamed.get(word[0], word[0]), node.value)


def _local_arrays(function: ast.FunctionDef) -> dict[str, int]:
    """The bytes of each local array, 0 where they are no literal."""
    return {
        target.id: _array_bytes(node.value)
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        if isinstance(node.value.func, ast.Name) and node.value.func.id == "local_array"
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _array_bytes(call: ast.Call) -> int:
    """Of `local_array(f32, 16)`: 64."""
    element, count = call.args
    bits = re.search(r"\d+$", element.id) if isinstance(element, ast.Name) else None
    return (_literal(count) or 0) * (int(bits[0]) if bits else 8) // 8


class _Rewriter(ast.NodeTransformer):
    def __init__(self, local_arrays: dict[str, int]) -> None:
        self.local_arrays = local_arrays
        self.fresh = 0

    def visit_For(self, node: ast.For) -> ast.AST | list[ast.stmt]:
        unroll = self._unrolls(node)  # before the loops inside are rewritten
        self.generic_visit(node)
        parts = _range_parts(node)
        if isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name) and node.iter.func.id == UNROLLED:
            node.iter.func.id = "range"  # where it stays a loop over a range, numba knows that
        if parts is None or not isinstance(node.target, ast.Name):
            return node
        start, stop, step = parts
        target = node.target.id
        changed = _assigned(node.body) | {target}
        if target in _assigned(node.body) or _continues(node.body):
            return node
        before: list[ast.stmt] = []
        if not isinstance(stop, ast.Constant) and not (isinstance(stop, ast.Name) and stop.id not in changed):
            self.fresh += 1
            name = f"_stop_{self.fresh}_"
            before.append(ast.Assign([ast.Name(name, ast.Store())], stop))
            stop = ast.Name(name, ast.Load())
        before.append(ast.Assign([ast.Name(target, ast.Store())], start))
        test = ast.Compare(ast.Name(target, ast.Load()), [ast.Lt()], [stop])
        more = ast.BinOp(ast.Name(target, ast.Load()), ast.Add(), ast.Constant(step))
        advance = ast.Assign([ast.Name(target, ast.Store())], more)
        mark = [ast.Expr(ast.Call(ast.Name(UNROLL_MARK, ast.Load()), [], []))] if unroll else []
        loop = ast.While(test, [*node.body, *mark, advance], [])
        return [ast.copy_location(statement, node) for statement in (*before, loop)]

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        read = copy.deepcopy(node.target)
        read.ctx = ast.Load()  # evaluated twice: emitted code has no side effects there
        return ast.copy_location(ast.Assign([node.target], ast.BinOp(read, node.op, node.value)), node)

    def _unrolls(self, node: ast.For) -> bool:
        if isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Name) and node.iter.func.id == UNROLLED:
            return _unrolled_size(node) <= MAX_UNROLLED
        inside = list(ast.walk(node))
        mentions = any(isinstance(n, ast.Name) and n.id in self.local_arrays for n in inside)
        # A tile with tests inside is the rare one at the edge: it stays loops in memory, small and quick to compile.
        tested = any(isinstance(n, ast.If) for n in inside)
        if not mentions or tested:
            return False
        indexed = self._indexed(node)
        if not indexed:  # steps of a sum: a few are worth it, for what they read in common; many would spill that
            return _unrolled_size(node) <= MAX_STEPS
        in_memory = all(self.local_arrays[name] > REGISTER_BYTES for name in indexed)
        return _unrolled_size(node) <= MAX_UNROLLED and not in_memory

    def _indexed(self, node: ast.For) -> set[str]:
        """The local arrays that the loop's variable is an index of."""
        if not isinstance(node.target, ast.Name):
            return set()
        return {
            name
            for inner in ast.walk(node)
            for name, index in _accesses(inner)
            if name in self.local_arrays
            if any(isinstance(n, ast.Name) and n.id == node.target.id for n in ast.walk(index))
        }


def _accesses(node: ast.AST) -> list[tuple[str, ast.expr]]:
    """The array and index of `a[i]`, `vload(a, i, ...)` and `vstore(a, i, ...)`."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        return [(node.value.id, node.slice)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) >= 2:
        array, index = node.args[:2]
        return [(array.id, index)] if isinstance(array, ast.Name) else []
    return []


def _trip_count(node: ast.For) -> int | None:
    """Iterations of a loop over a range of literals."""
    call = node.iter
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _RANGES:
        values = [_literal(argument) for argument in call.args]
        if values and all(value is not None for value in values):
            return len(range(*(v for v in values if v is not None)))
    return None


def _literal(node: ast.expr) -> int | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, int) else None


def _unrolled_size(statement: ast.stmt) -> int:
    """Statements after unrolling every loop; more than the limit where a loop's trip count is not a literal."""
    if isinstance(statement, ast.For):
        trips = _trip_count(statement)
        return MAX_UNROLLED + 1 if trips is None else trips * sum(map(_unrolled_size, statement.body))
    if isinstance(statement, ast.If):
        return 1 + sum(map(_unrolled_size, statement.body)) + sum(map(_unrolled_size, statement.orelse))
    return MAX_UNROLLED + 1 if isinstance(statement, ast.While) else 1


def _range_parts(node: ast.For) -> tuple[ast.expr, ast.expr, int] | None:
    """(start, stop, step) of a loop over `range` that may be counted."""
    call = node.iter
    if node.orelse or not isinstance(call, ast.Call) or call.keywords:
        return None
    if not isinstance(call.func, ast.Name) or call.func.id not in _RANGES or not 1 <= len(call.args) <= 3:
        return None
    if len(call.args) == 1:
        return ast.Constant(0), call.args[0], 1
    start, stop = call.args[:2]
    if len(call.args) == 2:
        return start, stop, 1
    step = call.args[2]
    # with another step LLVM cannot rule out that the counter wraps, unless it sees the bounds
    constant = all(isinstance(a, ast.Constant) for a in call.args)
    if constant and isinstance(step, ast.Constant) and isinstance(step.value, int) and step.value > 0:
        return start, stop, step.value
    return None


def _assigned(body: list[ast.stmt]) -> set[str]:
    return {
        node.id
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }


def _continues(body: list[ast.stmt]) -> bool:
    """Whether a `continue` of this very loop stands in `body` (inner loops keep theirs to themselves)."""
    for statement in body:
        if isinstance(statement, ast.Continue):
            return True
        if isinstance(statement, ast.If) and (_continues(statement.body) or _continues(statement.orelse)):
            return True
    return False
