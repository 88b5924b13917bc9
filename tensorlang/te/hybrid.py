"""`te.hybrid`: a stage written as loops and assignments, for what is no single expression per element.

    @te.hybrid
    def running_sum(x):                                     y = running_sum(x) is a tensor, as from te.compute
        y = te.output_tensor(x.shape, x.dtype)
        y[0] = x[0]
        for i in range(1, x.shape[0]):
            y[i] = y[i - 1] + x[i]
        return y
->  with block("y", ...): y[0] = x[0]
    for i in N - 1:
        with block("y_1", vi=spatial(N - 1, i)): y[vi + 1] = y[vi] + x[vi + 1]

The function's source is read, not run: `for ... in range(...)` becomes a loop, `if` a guard, an assignment to an element a
block of its own, which schedules like any other. What is known while the program is built (`if stride == 1`, loops over a
tuple, calls of helpers that return expressions) happens then.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, cast

from tensorlang.errors import TypeCheckError
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import Expr, and_, cast as cast_expr, const, fail, lt, not_, var, wrap
from tensorlang.ir.stmt import TRUE, Block, For, If, Iter, Stmt, Store, seq
from tensorlang.ir.visitor import free_vars, loads, rewrite_stmt, substitute, walk_stmt
from tensorlang.symbolic.access import Access, accesses
from tensorlang.symbolic.bounds import Unbounded, bounds
from tensorlang.symbolic.conflict import uncovered
from tensorlang.symbolic.simplify import simplify
from tensorlang.te import hybrid_names as names
from tensorlang.te.hybrid_names import Declared
from tensorlang.te.tensor import DTypeLike, Op, Tensor, checked_name, normalise_shape, unwrap_dtype


class HybridOp(Op):
    """A stage, or several, given by statements on elements.

    Attributes:
        body: loops around blocks, which are named "0", "1", ... until they are put into a program.
        blocks: per block the name of the tensor that it writes, and its file:line.
        scratch: tensors that live inside.
    """

    def __init__(self, name: str, inputs: Sequence[Tensor], source: str):
        super().__init__(name, source)
        self._inputs = tuple(inputs)
        self.axis = self.reduce_axis = ()
        self.body: Stmt = seq()
        self.blocks: list[tuple[str, str]] = []
        self.scratch: list[Tensor] = []

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self._inputs

    def renamed(self, block_names: Sequence[str]) -> Stmt:
        """`body` with these names of blocks."""

        def rule(s: Stmt) -> Stmt | None:
            if not isinstance(s, Block):
                return None
            return Block(block_names[int(s.name)], s.iters, s.body, s.init, s.predicate, s.annotations)

        return rewrite_stmt(self.body, rule)


def output_tensor(shape: Any, dtype: DTypeLike = "f32") -> Declared:
    """Inside `@te.hybrid`: a tensor that the function computes and returns."""
    return Declared(shape, unwrap_dtype(dtype), True)


def allocate(shape: Any, dtype: DTypeLike = "f32", scope: str = "global") -> Declared:
    """Inside `@te.hybrid`: a tensor of its own, such as a one-element accumulator. `scope` (classic TVM) has no effect."""
    return Declared(shape, unwrap_dtype(dtype), False)


def hybrid(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose statements are the program: called on tensors it gives tensors.

    Parameters are tensors, or constants known while the program is built. Statements:

        y = te.output_tensor(shape, dtype)      what it computes; `te.allocate(shape, dtype)`: memory of its own
        for i in range(n), range(a, b):         a loop; the ends may depend on loops outside
        y[i, j] = e;  y[i, j] += e              an element (also -= *= /= //= %=)
        t = e                                   a name for an expression of what is not written here
        if c: ... elif ...: ... else: ...       a guard; in expressions `a if c else b`, `and`, `or`, `not`, `==`
        return y                                or a tuple of tensors, at the end

    Raises:
        TypeCheckError: at the call, for what has no meaning here, with the file and line of the statement; so too where an
            element of an output is known to be written by nothing.
    """
    if not inspect.isfunction(fn):
        fail(f"te.hybrid takes a function, not {type(fn).__name__}")

    @functools.wraps(fn)
    def build(*args: Any, **kwargs: Any) -> Any:
        return _Builder(fn, args, kwargs).run()

    return build


hybrid.script = hybrid  # type: ignore[attr-defined]  # classic TVM's name


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b, ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b,
}  # fmt: skip


class _Builder:
    """One call of a hybrid function: its statements, walked."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.name = checked_name(fn.__name__)
        self.file = fn.__code__.co_filename
        self.line = fn.__code__.co_firstlineno
        self.tree = self._parsed(fn)
        try:
            bound = inspect.signature(fn).bind(*args, **kwargs)
        except TypeError as error:
            fail(f"{self.name}: {error}")
        bound.apply_defaults()
        closure = inspect.getclosurevars(fn)
        self.globals = fn.__globals__
        self.env: dict[str, Any] = {**names.CLASSIC, **closure.nonlocals, **bound.arguments}
        inputs = [t for t in bound.arguments.values() if isinstance(t, Tensor)]
        if not inputs:
            fail(f"{self.name}: none of its arguments is a tensor")
        self.op = HybridOp(self.name, tuple(dict.fromkeys(inputs)), f"{self.file}:{self.line}")
        self.own: dict[Tensor, bool] = {}  # tensors declared here -> whether outputs
        self.loops: list[tuple[Expr, Expr]] = []
        self.conditions: list[Expr] = []
        self.returned: tuple[Tensor, ...] | None = None

    def _parsed(self, fn: Callable[..., Any]) -> ast.FunctionDef:
        try:
            source = textwrap.dedent(inspect.getsource(fn))
        except (OSError, TypeError):
            fail(f"{self.name}: its source is not to be found, so it cannot be read; write it in a file")
        tree = ast.increment_lineno(ast.parse(source), self.line - 1)
        found = tree.body[0]
        if not isinstance(found, ast.FunctionDef):
            fail(f"{self.name} is not a function made by def")
        return found

    def fail(self, node: ast.AST, message: str) -> NoReturn:
        raise TypeCheckError(f"{self.file}:{getattr(node, 'lineno', self.line)}: {self.name}: {message}")

    def run(self) -> Any:
        body = self.block(self.tree.body)
        outputs = [t for t, is_output in self.own.items() if is_output]
        if self.returned is None or set(self.returned) != set(outputs):
            missing = ", ".join(t.name for t in outputs if t not in (self.returned or ())) or "a tensor"
            self.fail(self.tree, f"it ends without returning {missing}; every te.output_tensor is returned, and nothing else")
        self.op.body = body
        self.op._outputs = list(self.returned)
        self.op.scratch = [t for t, is_output in self.own.items() if not is_output]
        self._check_written()
        return self.returned[0] if len(self.returned) == 1 else self.returned

    def _check_written(self) -> None:
        """Refuses where an element of an output is known to be written by nothing."""
        found = accesses([self.op.body])
        for t in self.op.outputs:
            index = tuple(var(f"d{n}") for n in range(t.ndim))
            everything = Access("", t.buffer, index, False, tuple(zip(index, t.buffer.shape, strict=True)))
            missing = uncovered(everything, [a for a in found if a.write and a.buffer is t.buffer], ())
            if isinstance(missing, tuple):
                element = ", ".join(map(str, missing[1]))
                self.fail(self.tree, f"{t.name}[{element}], an element of its output, is written by no statement")

    # -- statements ------------------------------------------------------------------------------------------------
    def block(self, statements: Sequence[ast.stmt]) -> Stmt:
        return seq(*(s for node in statements if (s := self.statement(node)) is not None))

    def statement(self, node: ast.stmt) -> Stmt | None:
        if self.returned is not None:
            self.fail(node, "a statement after return")
        if isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return None
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            return self.assign(node, node.targets[0], None, node.value)
        if isinstance(node, ast.AugAssign):
            return self.assign(node, node.target, node.op, node.value)
        if isinstance(node, ast.For):
            return self.loop(node)
        if isinstance(node, ast.If):
            return self.branch(node)
        if isinstance(node, ast.Return):
            self.finish(node)
            return None
        what = type(node).__name__.lower()
        self.fail(node, f"{what} has no meaning here; there are: for over range, if, assignments to elements, return")

    def assign(self, node: ast.stmt, target: ast.expr, op: ast.operator | None, value: ast.expr) -> Stmt | None:
        if isinstance(target, ast.Subscript):
            return self.store(node, target, op, value)
        if not isinstance(target, ast.Name):
            self.unpack(node, target, op, value)
            return None
        result = self.value(value)
        if isinstance(result, Declared):
            self.declare(node, target.id, result)
            return None
        known, remedy = self.env.get(target.id), "make it an element of te.allocate((1,), dtype)"
        if isinstance(known, Expr | Tensor) or (op is not None and isinstance(result, Expr)):
            self.fail(node, f"{target.id} has a value already; what changes has a place in memory: {remedy}")
        if isinstance(result, Expr) and (stale := self.changing(result)):
            self.fail(node, f"{target.id} would name {stale[0]}, which may change; {remedy}")
        if op is not None:
            if target.id not in self.env or type(op) not in _OPERATORS:
                self.fail(node, f"{target.id} has no value yet")
            result = _OPERATORS[type(op)](known, result)
        self.env[target.id] = result
        return None

    def unpack(self, node: ast.stmt, target: ast.expr, op: ast.operator | None, value: ast.expr) -> None:
        """`M, N = x.shape`"""
        parts = target.elts if isinstance(target, ast.Tuple) else []
        result = self.value(value)
        plain = op is None and parts and all(isinstance(t, ast.Name) for t in parts) and isinstance(result, tuple)
        if not plain or len(result) != len(parts):
            self.fail(node, "on the left stands a name, names for the parts of a tuple, or an element of a tensor")
        for part, item in zip(parts, result, strict=True):
            self.env[cast(ast.Name, part).id] = item

    def declare(self, node: ast.stmt, name: str, what: Declared) -> None:
        if self.loops or self.conditions:
            self.fail(node, f"{name} is made inside a loop or an if; make it at the beginning")
        shape = self.at(node, lambda: normalise_shape(what.shape, name))
        tensor = Tensor(self.op, shape, what.dtype, checked_name(name))
        self.own[tensor] = what.is_output
        self.env[name] = tensor

    def store(self, node: ast.stmt, target: ast.Subscript, op: ast.operator | None, value: ast.expr) -> Stmt:
        tensor = self.value(target.value)
        if not isinstance(tensor, Tensor) or tensor not in self.own:
            shown = ast.unparse(target.value)
            self.fail(node, f"{shown} is not made here by te.output_tensor or te.allocate, so it cannot be assigned to")
        index = self.value(target.slice)
        indices = tuple(wrap(i) for i in (index if isinstance(index, tuple) else (index,)))
        element = self.at(node, lambda: tensor[indices])
        result = self.value(value)
        if op is not None:
            if type(op) not in _OPERATORS:
                self.fail(node, "in place there are += -= *= /= //= %=")
            result = self.at(node, lambda: _OPERATORS[type(op)](element, result))
        if isinstance(result, Tensor) or not isinstance(result, Expr | int | float | bool):
            self.fail(node, f"{ast.unparse(value)} is {type(result).__name__}, not the value of an element")
        stored = self.at(node, lambda: _as(tensor.dtype, wrap(result)))
        return self.made(node, tensor, element.args, stored)

    def made(self, node: ast.stmt, tensor: Tensor, indices: tuple[Expr, ...], value: Expr) -> Stmt:
        """The block of one assignment, under what guards it."""
        own = {v: var(f"v{v.name}") for v, _ in self.loops}
        iters = tuple(Iter(own[v], n, "spatial", v) for v, n in self.loops)
        body = Store(tensor.buffer, tuple(substitute(i, own) for i in indices), substitute(value, own))
        predicate, outside = TRUE, TRUE
        for c in self.conditions:
            if loads(c):
                outside = and_(outside, c)
            else:
                predicate = and_(predicate, simplify(c, dict(self.loops)))
        self.op.blocks.append((tensor.name, f"{self.file}:{node.lineno}"))
        block: Stmt = Block(str(len(self.op.blocks) - 1), iters, body, None, predicate)
        return block if outside is TRUE else If(outside, block)

    def changing(self, e: Expr) -> list[Expr]:
        """What `e` reads of tensors that are written here."""
        own = {t.buffer for t in self.own}
        return [x for x in loads(e) if x.value in own]

    def loop(self, node: ast.For) -> Stmt | None:
        if node.orelse or not isinstance(node.target, ast.Name):
            self.fail(node, "a loop is `for i in range(...)`, without else")
        name = node.target.id
        over = self.value(node.iter)
        if not isinstance(over, names.Range):
            if not isinstance(over, tuple | list | range):
                self.fail(node, f"{ast.unparse(node.iter)} is {type(over).__name__}; a loop runs over range(...), or a tuple")
            parts = []  # known while the program is built: written out
            for item in over:
                self.env[name] = item
                parts.append(self.block(node.body))
            self.env.pop(name, None)
            return seq(*parts)
        if name in self.env:
            self.fail(node, f"{name} has a value already; give the loop another name")
        low, extent = wrap(over.low), simplify(wrap(over.high) - over.low)
        outer = dict(self.loops)
        length = extent
        if free_vars(extent) & outer.keys():  # a triangle: as long as it can be, and guarded
            try:
                length = bounds(extent, outer)[1]
            except Unbounded:
                self.fail(node, f"how long range({over.low}, {over.high}) can be is not known")
        if loads(length):
            self.fail(node, f"{length} iterations are read from memory: loop as often as can be, and guard with if")
        v = var(name)
        self.loops.append((v, length))
        guard = lt(v, extent) if length is not extent else None
        if guard is not None:
            self.conditions.append(guard)
        self.env[name] = simplify(v + low)
        body = self.block(node.body)
        del self.env[name]
        if guard is not None:
            self.conditions.pop()
        self.loops.pop()
        if not any(isinstance(s, Block) for s in walk_stmt(body)):
            return None
        return For(v, length, "serial", _accumulating(body, v))

    def branch(self, node: ast.If) -> Stmt | None:
        cond = self.value(node.test)
        if not isinstance(cond, Expr):
            return self.block(node.body if cond else node.orelse)
        if not cond.dtype.is_bool:
            self.fail(node, f"{ast.unparse(node.test)} is {cond.dtype}, not a condition")
        if node.orelse and self.changing(cond):
            self.fail(node, f"{ast.unparse(node.test)} may change before else is reached; write two ifs on a copy of it")
        if (len(node.body) > 1 or not isinstance(node.body[0], ast.Assign | ast.AugAssign)) and self.changing(cond):
            self.fail(node, f"{ast.unparse(node.test)} may change between the statements under it; test a copy of it")
        parts = []
        for c, statements in ((cond, node.body), (not_(cond), node.orelse)):
            before = dict(self.env)
            self.conditions.append(c)
            parts.append(self.block(statements))
            self.conditions.pop()
            self.env = before
        return seq(*parts)

    def finish(self, node: ast.Return) -> None:
        if self.loops or self.conditions:
            self.fail(node, "return stands at the end, outside of loops and ifs")
        result = self.value(node.value) if node.value is not None else ()
        found = result if isinstance(result, tuple) else (result,)
        if not found or not all(isinstance(t, Tensor) and self.own.get(t) for t in found) or len(set(found)) != len(found):
            self.fail(node, "it returns tensors made by te.output_tensor, each once")
        self.returned = found

    # -- expressions -----------------------------------------------------------------------------------------------
    def value(self, node: ast.expr) -> Any:
        """What an expression is: evaluated as Python, where names of the function mean what they mean here."""
        tree = ast.fix_missing_locations(ast.Expression(_Meanings().visit(ast.parse(ast.unparse(node), mode="eval").body)))
        for n in ast.walk(tree):
            if isinstance(n, ast.expr):
                n.lineno = n.end_lineno = node.lineno
        code = compile(tree, self.file, "eval")
        env = {**names.BUILT_INS, **self.env}
        return self.at(node, lambda: eval(code, {**self.globals, names.HELPERS: names.Helpers, **env}))

    def at(self, node: ast.AST, run: Callable[[], Any]) -> Any:
        """`run()`, whose faults are the user's, at this line."""
        try:
            return run()
        except TypeCheckError as error:
            _, _, message = str(error).partition(": ")
            self.fail(node, message)
        except (NameError, TypeError, ValueError, AttributeError, IndexError, ZeroDivisionError, KeyError) as error:
            self.fail(node, str(error))


def _accumulating(body: Stmt, v: Expr) -> Stmt:
    """`body`, all of a loop over `v`; a block alone in it that adds to an element whatever `v` is, is a reduction along `v`."""
    inner = body
    while isinstance(inner, For):
        inner = inner.body
    if not isinstance(inner, Block) or not isinstance(inner.body, Store):
        return body
    block, store = inner, inner.body
    own = next(it.var for it in block.iters if it.binding is v)
    again = any(e.value is store.buffer and e.args == store.indices for e in loads(store.value))
    if not again or any(own in free_vars(i) for i in store.indices):
        return body
    iters = tuple(replace(it, kind="reduce") if it.var is own else it for it in block.iters)
    return rewrite_stmt(body, lambda s: replace(s, iters=iters) if s is block else None)


def _as(dtype: DType, value: Expr) -> Expr:
    return const(value.value, dtype) if value.op == "const" else cast_expr(dtype, value)


class _Meanings(ast.NodeTransformer):
    """`and`, `or`, `not`, `==`, chains and `a if c else b` as calls, since Python does not let objects say what they mean."""

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        return _call("all_of" if isinstance(node.op, ast.And) else "any_of", node.values)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return _call("negated", [node.operand]) if isinstance(node.op, ast.Not) else node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        return _call("chosen", [node.test, node.body, node.orelse])

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        operands = [node.left, *node.comparators]
        parts: list[ast.expr] = []
        for op, a, b in zip(node.ops, operands, operands[1:], strict=False):
            if isinstance(op, ast.Eq | ast.NotEq):
                parts.append(_call("equal" if isinstance(op, ast.Eq) else "not_equal", [a, b]))
            else:
                parts.append(ast.Compare(a, [op], [b]))
        return parts[0] if len(parts) == 1 else _call("all_of", parts)


def _call(helper: str, args: Sequence[ast.expr]) -> ast.expr:
    return ast.Call(ast.Attribute(ast.Name(names.HELPERS, ast.Load()), helper, ast.Load()), list(args), [])
