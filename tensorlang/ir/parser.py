"""The text of `printer` back to programs: `parse_func(str(f))` prints as `str(f)` and equals `f` structurally.

Python's own parser reads the syntax; the tree is then translated, and nothing in it is executed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from tensorlang.errors import TensorlangError, TypeCheckError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType, dtype as as_dtype, i64
from tensorlang.ir.expr import (
    Expr,
    add,
    and_,
    broadcast,
    call,
    cast,
    const,
    div,
    eq,
    floordiv,
    floormod,
    le,
    load,
    lt,
    maximum,
    minimum,
    mul,
    ne,
    neg,
    not_,
    or_,
    ramp,
    reduce,
    select,
    sub,
    var,
)
from tensorlang.ir.printer import LOOP_WORDS
from tensorlang.ir.stmt import (
    TRUE,
    Allocate,
    Block,
    CallPacked,
    Evaluate,
    For,
    If,
    Iter,
    MultiStore,
    PrimFunc,
    Seq,
    Stmt,
    Store,
    seq,
)

Scope = dict[str, Expr | Buffer]

_BINARY: dict[type[ast.operator], Callable[[Expr, Expr], Expr]] = {
    ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: div, ast.FloorDiv: floordiv, ast.Mod: floormod,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Expr, Expr], Expr]] = {
    ast.Eq: eq, ast.NotEq: ne, ast.Lt: lt, ast.LtE: le,
    ast.Gt: lambda a, b: lt(b, a), ast.GtE: lambda a, b: le(b, a),
}  # fmt: skip
_FUNCTIONS: dict[str, tuple[int, Callable[..., Expr]]] = {
    "min": (2, minimum), "max": (2, maximum), "all_of": (2, and_), "any_of": (2, or_), "not_": (1, not_),
    "select": (3, select), "neg": (1, neg),
}  # fmt: skip
_REDUCTIONS = ("sum", "prod", "max", "min", "any", "all")
_LOOP_KINDS = {word: kind for kind, word in LOOP_WORDS.items()}


class ParseError(TensorlangError, ValueError):
    """Text that is no program; the message names the line."""


def parse_func(text: str) -> PrimFunc:
    """The function that `text` defines.

    Raises:
        ParseError: the text is not what `format_func` writes.
    """
    try:
        module = ast.parse(text)
        return _Parser().module(module)
    except SyntaxError as error:
        raise ParseError(f"line {error.lineno or 1}: {error.msg}") from None
    except (RecursionError, MemoryError):
        raise ParseError("line 1: the program is nested too deeply") from None
    except ValueError as error:
        if isinstance(error, ParseError):
            raise
        raise ParseError(f"line 1: {error}") from None


def parse_lambda(text: str, types: Sequence[DType]) -> tuple[tuple[Expr, ...], tuple[Expr, ...]]:
    """`lambda a, b: (e, ...)` as fresh variables of `types` and the expressions of them.

    Raises:
        ParseError: the text is no such function.
    """
    try:
        node = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ParseError(f"{text!r} is no function: {error}") from None
    if not isinstance(node, ast.Lambda) or not isinstance(node.body, ast.Tuple) or len(node.args.args) != len(types):
        raise ParseError(f"{text!r} is no function of {len(types)} arguments that gives a tuple")
    params = tuple(var(a.arg, t) for a, t in zip(node.args.args, types, strict=True))
    parser, scope = _Parser(), {p.name: p for p in params}
    return params, tuple(parser.expr(e, dict(scope)) for e in node.body.elts)


def _fail(node: ast.AST, message: str) -> NoReturn:
    raise ParseError(f"line {getattr(node, 'lineno', 1)}: {message}")


class _Parser:
    # -- functions -------------------------------------------------------------------------------------------------
    def module(self, module: ast.Module) -> PrimFunc:
        if len(module.body) != 1 or not isinstance(module.body[0], ast.FunctionDef):
            _fail(module.body[0] if module.body else module, "the text must be one function definition")
        definition = module.body[0]
        name = definition.name
        attrs: dict[str, Any] = {}
        if len(definition.decorator_list) > 1:
            _fail(definition, "a function has one decorator at most: @prim_func(...)")
        for decorator in definition.decorator_list:
            name, attrs = self.attributes(decorator, name)
        scope: Scope = {}
        params = self.params(definition.args, scope)
        body = self.suite(definition.body, scope)
        buffers = [p for p in params if isinstance(p, Buffer)]
        outputs = self.outputs(definition, scope)
        if outputs != buffers[len(buffers) - len(outputs) :]:
            _fail(definition, "-> names the outputs: the last of the buffers among the parameters, in order")
        return PrimFunc(name, tuple(params), body, len(outputs), attrs)

    def attributes(self, node: ast.expr, name: str) -> tuple[str, dict[str, Any]]:
        keywords = self.keywords(self.called(node, "prim_func"), 0)
        values = {k: self.literal(v) for k, v in keywords.items()}
        name = values.pop("name", name)
        attrs = values.pop("attrs", values)
        if not isinstance(name, str) or not isinstance(attrs, dict):
            _fail(node, "name= is a string, attrs= a dict")
        return name, attrs

    def params(self, args: ast.arguments, scope: Scope) -> list[Buffer | Expr]:
        if args.posonlyargs or args.kwonlyargs or args.vararg or args.kwarg or args.defaults:
            _fail(args.args[0] if args.args else args, "parameters are names with types, nothing else")
        for a in args.args:  # sizes come last, but buffers' shapes mention them
            if a.arg in scope:
                _fail(a, f"parameter {a.arg} occurs twice")
            if isinstance(a.annotation, ast.Name):
                scope[a.arg] = var(a.arg, self.dtype(a.annotation))
        for a in args.args:
            if a.annotation is None:
                _fail(a, f"parameter {a.arg} has no type")
            if a.arg not in scope:
                node = a.annotation
                scope[a.arg] = (
                    self.alloc(a.arg, node, scope) if isinstance(node, ast.Call) else self.buffer(a.arg, node, "global", scope)
                )
        return [scope[a.arg] for a in args.args]

    def outputs(self, definition: ast.FunctionDef, scope: Scope) -> list[Expr | Buffer]:
        node = definition.returns
        if node is None:
            _fail(definition, "-> and the outputs are missing")
        if isinstance(node, ast.Constant) and node.value is None:
            return []
        names = node.elts if isinstance(node, ast.Tuple) else [node]
        return [self.lookup(n, scope, Buffer) for n in names]

    # -- names and types -------------------------------------------------------------------------------------------
    def lookup(self, node: ast.expr, scope: Scope, kind: type) -> Any:
        if not isinstance(node, ast.Name):
            _fail(node, f"a name was expected, not {ast.unparse(node)}")
        found = scope.get(node.id)
        if found is None:
            _fail(node, f"{node.id} is not defined")
        if not isinstance(found, kind):
            _fail(node, f"{node.id} is a {'variable' if kind is Buffer else 'buffer'}")
        return found

    def dtype(self, node: ast.expr) -> DType:
        text = node.id if isinstance(node, ast.Name) else node.value if isinstance(node, ast.Constant) else None
        if not isinstance(text, str):
            _fail(node, f"{ast.unparse(node)} is no dtype")
        return self.typed(node, lambda: as_dtype(text))

    def typed(self, node: ast.AST, build: Callable[[], Any]) -> Any:
        try:
            return build()
        except TypeCheckError as error:
            place, _, message = str(error).partition(": ")  # the caller's file:line is no help here
            _fail(node, message if re.search(r":\d+$", place) else str(error))

    def buffer(self, name: str, node: ast.expr, scope: str, names: Scope) -> Buffer:
        if not isinstance(node, ast.Subscript):
            _fail(node, f"{ast.unparse(node)} is no buffer type such as f32[M, N]")
        shape = tuple(self.expr(e, names) for e in self.elements(node.slice))
        return Buffer(name, shape, self.dtype(node.value), scope)

    def elements(self, node: ast.expr) -> list[ast.expr]:
        return list(node.elts) if isinstance(node, ast.Tuple) else [node]

    def alloc(self, name: str, node: ast.expr, names: Scope) -> Buffer:
        keywords = self.keywords(self.called(node, "alloc"), 1, ("scope", "align"))
        scope = self.literal(keywords["scope"]) if "scope" in keywords else "global"
        if not isinstance(scope, str):
            _fail(node, "scope= is a string")
        buffer = self.buffer(name, node.args[0], scope, names)  # type: ignore[attr-defined]
        if "align" not in keywords:
            return buffer
        align = self.literal(keywords["align"])
        if not _is_alignment(align, buffer.ndim):
            _fail(node, "align= holds triples (axis, factor, offset)")
        return buffer.with_(align=align)

    def called(self, node: ast.expr, *names: str) -> ast.Call:
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id not in names:
            _fail(node, f"{' or '.join(names)}(...) was expected, not {ast.unparse(node)}")
        return node

    def keywords(self, node: ast.Call, positional: int | None, known: tuple[str, ...] | None = None) -> dict[str, ast.expr]:
        word = ast.unparse(node.func)
        if positional is not None and len(node.args) != positional:
            _fail(node, f"{word} takes {positional} argument(s) without a name, not {len(node.args)}")
        found: dict[str, ast.expr] = {}
        for k in node.keywords:
            if k.arg is None or (known is not None and k.arg not in known):
                _fail(node, f"{word} does not take {'**' if k.arg is None else k.arg + '='}")
            found[k.arg] = k.value
        return found

    def literal(self, node: ast.expr) -> Any:
        """An attribute's value."""
        if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool | int | float | str)):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self.literal(node.operand)
            if isinstance(value, int | float):
                return -value
        if isinstance(node, ast.Tuple):
            return tuple(self.literal(e) for e in node.elts)
        if isinstance(node, ast.List):
            return [self.literal(e) for e in node.elts]
        if isinstance(node, ast.Dict) and None not in node.keys:
            return {self.literal(k): self.literal(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float" and len(node.args) == 1:
            return self.number(node)
        _fail(node, f"{ast.unparse(node)} is no literal")

    def number(self, node: ast.expr) -> int | float | bool:
        """A Python number, negative ones and float("nan") included."""
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self.number(node.operand)
            if not isinstance(value, bool):
                return -value
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "float" and len(node.args) == 1:
            text = node.args[0]
            if isinstance(text, ast.Constant) and text.value in ("nan", "inf", "-inf"):
                return float(text.value)
        _fail(node, f"{ast.unparse(node)} is no number")

    # -- statements ------------------------------------------------------------------------------------------------
    def suite(self, nodes: list[ast.stmt], scope: Scope) -> Stmt:
        made: list[Stmt] = []
        for n, node in enumerate(nodes):
            if isinstance(node, ast.Pass):
                continue
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id  # an allocation holds the rest of the suite
                buffer = self.alloc(name, node.value, scope)
                made.append(Allocate(buffer, self.suite(nodes[n + 1 :], self.extended(node, scope, {name: buffer}))))
                break
            made.append(self.stmt(node, scope))
        return seq(*made) if made else Seq(())

    def extended(self, node: ast.AST, scope: Scope, new: Scope) -> Scope:
        for name in new:
            if name in scope:
                _fail(node, f"{name} is defined already")
        return {**scope, **new}

    def stmt(self, node: ast.stmt, scope: Scope) -> Stmt:
        if isinstance(node, ast.For) and not node.orelse and isinstance(node.target, ast.Name):
            return self.loop(node, node.target.id, scope)
        if isinstance(node, ast.With) and len(node.items) == 1:
            return self.with_(node, node.items[0], scope)
        if isinstance(node, ast.If):
            orelse = self.suite(node.orelse, scope) if node.orelse else None
            return If(self.expr(node.test, scope), self.suite(node.body, scope), orelse)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Subscript):
            return self.store(node.targets[0], node.value, scope)
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Tuple):
            targets, values = node.targets[0].elts, self.elements(node.value)
            if len(targets) != len(values) or not all(isinstance(t, ast.Subscript) for t in targets):
                _fail(node, "simultaneous stores have one value for each element")
            stores = (self.store(t, v, scope) for t, v in zip(targets, values, strict=True) if isinstance(t, ast.Subscript))
            return MultiStore(tuple(stores))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if isinstance(node.value.func, ast.Name) and node.value.func.id == "call_packed":
                return self.call_packed(node.value, scope)
            return Evaluate(self.expr(node.value, scope))
        _fail(node, f"not a statement of the language: {ast.unparse(node).splitlines()[0]}")

    def store(self, target: ast.Subscript, value: ast.expr, scope: Scope) -> Store:
        buffer = self.lookup(target.value, scope, Buffer)
        indices = tuple(self.expr(e, scope) for e in self.elements(target.slice))
        self.typed(target, lambda: load(buffer, indices))  # the checks of an access
        return Store(buffer, indices, self.expr(value, scope))

    def call_packed(self, node: ast.Call, scope: Scope) -> CallPacked:
        keywords = self.keywords(node, None, ("outputs", "shapes"))
        outputs, given = keywords.get("outputs"), keywords.get("shapes")
        name = self.literal(node.args[0]) if node.args else None
        if not isinstance(name, str) or not isinstance(outputs, ast.List):
            _fail(node, 'call_packed("name", arguments..., outputs=[buffers])')
        args: list[Buffer | Expr] = []
        for a in node.args[1:]:
            found = scope.get(a.id) if isinstance(a, ast.Name) else None
            args.append(found if isinstance(found, Buffer) else self.expr(a, scope))
        shapes: tuple[tuple[Expr, ...], ...] | None = None
        if given is not None:
            lists = given.elts if isinstance(given, ast.List) else []
            shapes = tuple(tuple(self.expr(d, scope) for d in e.elts) for e in lists if isinstance(e, ast.List))
        return CallPacked(name, tuple(args), tuple(self.lookup(e, scope, Buffer) for e in outputs.elts), shapes)

    def loop(self, node: ast.For, name: str, scope: Scope) -> For:
        header = self.called(node.iter, *_LOOP_KINDS, "bind")
        bound = ast.unparse(header.func) == "bind"
        keywords = self.keywords(header, 2 if bound else 1)
        kind = self.literal(header.args[0]) if bound else _LOOP_KINDS[ast.unparse(header.func)]
        if not isinstance(kind, str):
            _fail(node, "a loop's kind is a string")
        dtype = self.dtype(keywords.pop("dtype")) if "dtype" in keywords else i64
        extent = self.expr(header.args[-1], scope)
        v = var(name, dtype)
        body = self.suite(node.body, self.extended(node, scope, {name: v}))
        return For(v, extent, kind, body, self.annotations(keywords))

    def annotations(self, keywords: dict[str, ast.expr]) -> dict[str, Any]:
        values = {k: self.literal(v) for k, v in keywords.items()}
        if "annotations" not in values:
            return values
        if len(values) > 1 or not isinstance(values["annotations"], dict):
            _fail(keywords["annotations"], "annotations= is a dict, alone")
        return values["annotations"]

    def with_(self, node: ast.With, item: ast.withitem, scope: Scope) -> Stmt:
        header = self.called(item.context_expr, "block", "alloc")
        if ast.unparse(header.func) == "block":
            if item.optional_vars is not None:
                _fail(node, "a block has no `as`")
            return self.block(node, header, scope)
        if not isinstance(item.optional_vars, ast.Name):
            _fail(node, "`with alloc(...)` needs `as name`")
        name = item.optional_vars.id
        buffer = self.alloc(name, header, scope)
        return Allocate(buffer, self.suite(node.body, self.extended(node, scope, {name: buffer})))

    def block(self, node: ast.With, header: ast.Call, scope: Scope) -> Block:
        keywords = self.keywords(header, 1)
        name = self.literal(header.args[0])
        if not isinstance(name, str):
            _fail(header, "a block's name is a string")
        predicate = self.expr(keywords.pop("where"), scope) if "where" in keywords else TRUE
        iters, inner, rest = [], dict(scope), {}
        for key, value in keywords.items():
            made = self.iteration(key, value, scope)
            if made is None:
                rest[key] = value
                continue
            iters.append(made)
            inner = self.extended(value, inner, {key: made.var})
        init, body = None, node.body
        if isinstance(body[0], ast.With) and ast.unparse(body[0].items[0].context_expr) == "init()":
            init, body = self.suite(body[0].body, inner), body[1:]
        return Block(name, tuple(iters), self.suite(body, inner), init, predicate, self.annotations(rest))

    def iteration(self, name: str, node: ast.expr, scope: Scope) -> Iter | None:
        """`vi=spatial(M, i)` as an iteration variable; None where the keyword is an annotation."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id == "float":
            return None
        kind, args = node.func.id, list(node.args)
        keywords = self.keywords(node, 3 if kind == "bind" else 2, ("dtype",))
        if kind == "bind":
            kind = self.literal(args.pop(0))
        dtype = self.dtype(keywords["dtype"]) if "dtype" in keywords else i64
        return Iter(var(name, dtype), self.expr(args[0], scope), kind, self.expr(args[1], scope))

    # -- expressions -----------------------------------------------------------------------------------------------
    def expr(self, node: ast.expr, scope: Scope) -> Expr:
        # Long sums lean to the left; walk down that side without recursion.
        spine: list[ast.BinOp] = []
        while isinstance(node, ast.BinOp):
            spine.append(node)
            node = node.left
        result = self.operand(node, scope)
        for op in reversed(spine):
            build = _BINARY.get(type(op.op))
            if build is None:
                _fail(op, f"unknown operator in {ast.unparse(op)}")
            result = self.typed(op, partial(build, result, self.expr(op.right, scope)))
        return result

    def operand(self, node: ast.expr, scope: Scope) -> Expr:
        if isinstance(node, ast.Constant) or (isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant)):
            return self.constant(node, self.number(node), None)
        if isinstance(node, ast.Name):
            return self.lookup(node, scope, Expr)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            operand = self.expr(node.operand, scope)
            return self.typed(node, lambda: neg(operand))
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            a, b = self.expr(node.left, scope), self.expr(node.comparators[0], scope)
            return self.typed(node, lambda: _COMPARE[type(node.ops[0])](a, b))
        if isinstance(node, ast.Subscript):
            buffer = self.lookup(node.value, scope, Buffer)
            indices = [self.expr(e, scope) for e in self.elements(node.slice)]
            return self.typed(node, lambda: load(buffer, indices))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return self.call(node, node.func.id, scope)
        _fail(node, f"not an expression of the language: {ast.unparse(node)}")

    def constant(self, node: ast.expr, value: int | float | bool, dtype: DType | None) -> Expr:
        e = self.typed(node, lambda: const(value, dtype))
        if isinstance(value, int) and not e.dtype.is_float and e.value != value:
            _fail(node, f"{value} does not fit {e.dtype}")
        return e

    def call(self, node: ast.Call, name: str, scope: Scope) -> Expr:
        if name == "float":
            return self.constant(node, self.number(node), None)
        if node.keywords:
            return self.reduction(node, name, scope)
        if name == "cast" and len(node.args) == 2:
            dtype, operand = self.dtype(node.args[0]), self.expr(node.args[1], scope)
            return self.typed(node, lambda: cast(dtype, operand))
        if name == "call" and len(node.args) >= 2:
            dtype, called = self.dtype(node.args[0]), self.literal(node.args[1])
            operands = [self.expr(a, scope) for a in node.args[2:]]
            return self.typed(node, lambda: call(called, *operands, dtype=dtype))
        if name in ("ramp", "broadcast") and len(node.args) >= 2:
            lanes = self.literal(node.args[-1])
            operands = [self.expr(a, scope) for a in node.args[:-1]]
            if not isinstance(lanes, int) or lanes < 2 or len(operands) != (2 if name == "ramp" else 1):
                _fail(node, "ramp(base, stride, lanes) and broadcast(value, lanes) take a number of lanes above 1")
            build: Callable[..., Expr] = ramp if name == "ramp" else broadcast
            return self.typed(node, lambda: build(*operands, lanes))
        if len(node.args) == 1 and (of_type := self.constant_type(name)) is not None:
            return self.constant(node, self.number(node.args[0]), of_type)
        args = [self.expr(a, scope) for a in node.args]
        if name in _FUNCTIONS:
            arity, function = _FUNCTIONS[name]
            if len(args) != arity:
                _fail(node, f"{name} takes {arity} arguments, not {len(args)}")
            return self.typed(node, lambda: function(*args))
        return self.typed(node, lambda: call(name, *args))

    def constant_type(self, name: str) -> DType | None:
        try:
            return as_dtype(name)
        except TypeCheckError:
            return None

    def reduction(self, node: ast.Call, name: str, scope: Scope) -> Expr:
        axis = self.keywords(node, 1, ("axis",)).get("axis")
        if name not in _REDUCTIONS or not isinstance(axis, ast.List):
            _fail(node, f"not an expression of the language: {ast.unparse(node)}")
        axes = tuple(self.lookup(e, scope, Expr) for e in axis.elts)
        source = self.expr(node.args[0], scope)
        return self.typed(node, lambda: reduce(name, source, axes))


def _is_alignment(align: Any, ndim: int) -> bool:
    """Whether `align` is what `Buffer` takes: (axis, factor, offset) for axes that have others inside."""
    if not isinstance(align, tuple) or not all(isinstance(t, tuple) and len(t) == 3 for t in align):
        return False
    return all(all(type(n) is int for n in t) and 0 <= t[0] < ndim - 1 and 0 <= t[2] < t[1] for t in align)
