"""One emitted function to LLVM IR in one walk over its syntax tree, by numba's typing rules and lowerings.

    for i in range(n):            numba says what `x[i]` and `+` mean for the types at hand, and emits each; what it would
        y[i] = x[i] + 1.0         spend most of its time on, the flow of types and values between them, is simple here

Numba's own pipeline goes from bytecode to statements of one operation each, solves for the types of all of them together
and keeps every variable in memory. Emitted functions are structured and their types flow forwards, so that a value is known
where it is made:
- a name that has one value wherever it is read (`_fixed_names`) is that value, any other is a slot in memory;
- what was computed before, from the same values and without a side effect, is not computed again (most of it is addresses);
- a name with values of two types has a slot for each; where they meet, at the end of a branch or loop, the function is
  translated once more with the type of both.
"""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types

from tensorlang.codegen.intrinsics import arith, math
from tensorlang.codegen.intrinsics.lowering import IntrinsicType
from tensorlang.codegen.intrinsics.lowering.calls import CalleeType
from tensorlang.codegen.intrinsics.lowering.registry import DTypeName, declare
from tensorlang.codegen.intrinsics.lowering.system import UNROLL_SYMBOL
from tensorlang.codegen.intrinsics.lowering.types import I1, I32, I64, Pointer
from tensorlang.codegen.native.loops import LoopShape, fixed_names, unrolled_loops
from tensorlang.errors import InternalError

Value = tuple[Any, Any]  # its numba type, and what it is in LLVM

_OPERATORS: dict[type, Any] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Invert: operator.invert,
    ast.Not: operator.not_,
}  # fmt: skip
_PURE_MODULES = frozenset((arith.__name__, math.__name__))


@dataclass(frozen=True)
class _Slot:
    """Where a name's value is kept, and of what type it is."""

    type: Any
    pointer: Any


@dataclass
class _Loop:
    """The innermost loop: where `continue` and `break` go, and the slots of names at its head."""

    again: Any
    end: Any
    slots: dict[str, _Slot]


class _Again(Exception):
    """Translate once more, with this type for this name."""

    def __init__(self, name: str, type_: Any):
        super().__init__(name)
        self.name, self.type = name, type_


def translate(
    function: ast.FunctionDef,
    symbol: str,
    parameters: list[Value],
    namespace: Mapping[str, Any],
    typing_context: Any,
    context: Any,
) -> ir.Module:
    """A module with the function `i32 symbol(...)`, which returns 0 or what `check` or a callee said.

    Args:
        parameters: numba type of each, and whether no other parameter points where it does.
        namespace: what the names mean that the function does not assign: emitted functions are `CalleeType`s.

    Raises:
        InternalError: the function has what emitted code never has, or types that numba has no rule for.
    """
    chosen: dict[str, Any] = {}
    while True:
        walk = _Walk(function, symbol, parameters, namespace, typing_context, context, chosen)
        try:
            return walk.run()
        except _Again as again:
            chosen = {**chosen, again.name: again.type}


class _Walk:
    def __init__(
        self,
        function: ast.FunctionDef,
        symbol: str,
        parameters: list[Value],
        namespace: Mapping[str, Any],
        typing_context: Any,
        context: Any,
        chosen: Mapping[str, Any],
    ):
        self.function, self.namespace = function, namespace
        self.typing, self.context, self.chosen = typing_context, context, chosen
        self.fixed_names = fixed_names(function)
        self.unrolled = unrolled_loops(function)
        self.fixed: dict[str, Value] = {}
        self.slots: dict[str, _Slot] = {}
        self.made: dict[tuple[str, Any], _Slot] = {}
        self.globals: dict[str, Value] = {}
        self.known: list[dict[Any, Value]] = [{}]  # what was computed, by operation and operands, scope within scope
        self.loops: list[_Loop] = []

        self.module = ir.Module(symbol)
        given = [self.context.data_model_manager[t].get_argument_type() for t, _ in parameters]
        self.llvm = ir.Function(self.module, ir.FunctionType(I32, given), symbol)
        self.builder = ir.IRBuilder(self.llvm.append_basic_block("entry"))
        start = self.llvm.append_basic_block("b")
        self.builder.branch(start)
        self.builder.position_at_end(start)
        for argument, llvm, (t, alone) in zip(function.args.args, self.llvm.args, parameters, strict=True):
            if alone and isinstance(t, Pointer):
                llvm.add_attribute("noalias")
            self._assign(argument.arg, (t, self.context.data_model_manager[t].from_argument(self.builder, llvm)))

    def run(self) -> ir.Module:
        self._block(self.function.body)
        if not self.builder.block.is_terminated:
            self.builder.ret(I32(0))
        return self.module

    # -- statements ---------------------------------------------------------------------------------------------------

    def _block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self.builder.block.is_terminated:
                return  # after `break`, `continue` or `return`
            handler = getattr(self, f"_{type(statement).__name__}", None)
            if handler is None:
                raise self._unknown(statement)
            handler(statement)

    def _Pass(self, node: ast.Pass) -> None:
        """Nothing."""

    def _Expr(self, node: ast.Expr) -> None:
        if not isinstance(node.value, ast.Constant):
            self._value(node.value)

    def _Return(self, node: ast.Return) -> None:
        if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
            raise self._unknown(node)
        self.builder.ret(I32(0))

    def _Assign(self, node: ast.Assign) -> None:
        if len(node.targets) != 1:
            raise self._unknown(node)
        self._store(node.targets[0], self._value(node.value))

    def _AugAssign(self, node: ast.AugAssign) -> None:
        target = node.target
        if isinstance(target, ast.Name):
            self._assign(target.id, self._operate(_OPERATORS[type(node.op)], self._name(target), self._value(node.value)))
        elif isinstance(target, ast.Subscript):
            place, index = self._value(target.value), self._value(target.slice)
            old = self._operate(operator.getitem, place, index, pure=False)
            new = self._operate(_OPERATORS[type(node.op)], old, self._value(node.value))
            self._operate(operator.setitem, place, index, new, pure=False)
        else:
            raise self._unknown(node)

    def _store(self, target: ast.expr, value: Value) -> None:
        if isinstance(target, ast.Name):
            self._assign(target.id, value)
        elif isinstance(target, ast.Subscript):
            self._operate(operator.setitem, self._value(target.value), self._value(target.slice), value, pure=False)
        else:
            raise self._unknown(target)

    def _If(self, node: ast.If) -> None:
        then, end = self._new_block(), self._new_block()
        other = self._new_block() if node.orelse else end
        before = dict(self.slots)
        self._branch(node.test, then, other)
        ends = []
        for block, statements in ((then, node.body), (other, node.orelse)):
            self.slots = dict(before)
            if block is end:
                ends.append(self.slots)
                continue
            self.builder.position_at_end(block)
            self.known.append({})
            self._block(statements)
            self.known.pop()
            if not self.builder.block.is_terminated:
                self.builder.branch(end)
                ends.append(self.slots)
        self.builder.position_at_end(end)
        if not ends:
            self.builder.unreachable()  # both parts leave
            return
        self.slots = ends[0]
        for name, slot in ends[-1].items():
            if self.slots.setdefault(name, slot) is not slot:
                self._meet(name, self.slots[name], slot)

    def _While(self, node: ast.While) -> None:
        if node.orelse:
            raise self._unknown(node)
        head, body, end = self._new_block(), self._new_block(), self._new_block()
        self.builder.branch(head)
        self.builder.position_at_end(head)
        self.known.append({})
        self._branch(node.test, body, end)
        self.builder.position_at_end(body)
        self._loop_body(node.body, head, end)
        if not self.builder.block.is_terminated:
            self.builder.branch(head)
        self.known.pop()
        self.builder.position_at_end(end)

    def _For(self, node: ast.For) -> None:
        shape = LoopShape.of(node, self._called)
        if shape is None:
            raise self._unknown(node)
        start = self._cast(self._value(shape.start), types.int64)
        stop = self._cast(self._value(shape.stop), types.int64)
        step, counted = shape.step, shape.counted
        b = self.builder
        if not counted:  # with a step that may pass over the end: count the iterations
            first, round_up = start, I64(step - (1 if step > 0 else -1))
            stop = b.sdiv(b.add(b.sub(stop, start), round_up), I64(step))
            start, by = I64(0), 1
        else:
            by = step
        body, again, end = self._new_block(), self._new_block(), self._new_block()
        before = b.block
        self._enter(start, stop, body, end)
        b.position_at_end(body)
        number = b.phi(I64)
        number.add_incoming(start, before)
        self.known.append({})
        value = number if counted else b.add(first, b.mul(number, I64(step)))
        target = node.target.id  # type: ignore[attr-defined]
        outer = self.fixed.get(target)
        self._assign(target, (types.int64, value))
        self._loop_body(node.body, again, end)
        if not b.block.is_terminated:
            b.branch(again)
        self.known.pop()
        if target in self.fixed_names and outer is not None:
            self.fixed[target] = outer
        b.position_at_end(again)
        if node in self.unrolled:
            b.call(declare(b, UNROLL_SYMBOL, ir.VoidType(), []), [])
        following = b.add(number, I64(by))
        number.add_incoming(following, again)
        b.cbranch(b.icmp_signed("<", following, stop), body, end)
        b.position_at_end(end)

    def _enter(self, start: Any, stop: Any, body: Any, end: Any) -> None:
        if isinstance(start, ir.Constant) and isinstance(stop, ir.Constant) and start.constant < stop.constant:
            self.builder.branch(body)
        else:
            self.builder.cbranch(self.builder.icmp_signed("<", start, stop), body, end)

    def _loop_body(self, statements: list[ast.stmt], again: Any, end: Any) -> None:
        """After it the names have the slots that they had before: those that changed their type start over."""
        self.loops.append(_Loop(again, end, dict(self.slots)))
        self._block(statements)
        self._back_to(self.loops.pop())

    def _back_to(self, loop: _Loop) -> None:
        for name, slot in loop.slots.items():
            if self.slots[name] is not slot:
                self._meet(name, slot, self.slots[name])

    def _Break(self, node: ast.Break) -> None:
        self._back_to(self.loops[-1])
        self.builder.branch(self.loops[-1].end)

    def _Continue(self, node: ast.Continue) -> None:
        self._back_to(self.loops[-1])
        self.builder.branch(self.loops[-1].again)

    # -- names --------------------------------------------------------------------------------------------------------

    def _assign(self, name: str, value: Value) -> None:
        t = self.chosen.get(name) or types.unliteral(value[0])
        llvm = self._cast(value, t)
        if name in self.fixed_names:
            self.fixed[name] = t, llvm
            return
        slot = self.made.get((name, t))
        if slot is None:
            slot = _Slot(t, cgutils.alloca_once(self.builder, self.context.get_value_type(t)))
            self.made[name, t] = slot
        self.slots[name] = slot
        self.builder.store(llvm, slot.pointer)

    def _meet(self, name: str, one: _Slot, other: _Slot) -> None:
        unified = self.typing.unify_types(one.type, other.type)
        if unified is None or name in self.chosen:
            raise self._error(f"{name} is {one.type} on one way and {other.type} on the other")
        raise _Again(name, unified)

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        if name in self.fixed:
            return self.fixed[name]
        slot = self.slots.get(name)
        if slot is not None:
            return slot.type, self.builder.load(slot.pointer)
        return self._global(name)

    def _global(self, name: str) -> Value:
        if name not in self.globals:
            if name not in self.namespace and name not in vars(builtins):
                raise self._error(f"{name} has no value here")
            value = self.namespace.get(name, vars(builtins).get(name))
            t = value if isinstance(value, CalleeType) else self.typing.resolve_value_type_prefer_literal(value)
            self.globals[name] = t, self.context.get_constant_generic(self.builder, t, value)
        return self.globals[name]

    # -- expressions --------------------------------------------------------------------------------------------------

    def _value(self, node: ast.expr) -> Value:
        if isinstance(node, ast.Name):
            return self._name(node)
        if isinstance(node, ast.BinOp):
            if (folded := _folded(node)) is not None:
                return self._constant(folded)
            return self._operate(_OPERATORS[type(node.op)], self._value(node.left), self._value(node.right))
        if isinstance(node, ast.Constant):
            return self._constant(node.value)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Subscript):
            return self._operate(operator.getitem, self._value(node.value), self._value(node.slice), pure=False)
        if isinstance(node, ast.Compare) and all(type(op) in _OPERATORS for op in node.ops):
            if len(node.ops) > 1:
                return self._truth_of(_links(node))
            return self._operate(_OPERATORS[type(node.ops[0])], self._value(node.left), self._value(node.comparators[0]))
        if isinstance(node, ast.UnaryOp):
            if (folded := _folded(node)) is not None:
                return self._constant(folded)
            return self._operate(_OPERATORS[type(node.op)], self._value(node.operand))
        if isinstance(node, ast.IfExp):
            return self._if_expression(node)
        if isinstance(node, ast.BoolOp):
            return self._truth_of(node)
        raise self._unknown(node)

    def _constant(self, value: Any) -> Value:
        t = self.typing.resolve_value_type_prefer_literal(value)
        return t, self.context.get_constant_generic(self.builder, t, value)

    def _call(self, node: ast.Call) -> Value:
        if not isinstance(node.func, ast.Name) or node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise self._unknown(node)
        function = self._name(node.func)[0]
        arguments = [self._value(a) for a in node.args]
        pure = isinstance(function, DTypeName) or (
            isinstance(function, IntrinsicType) and function.function.__module__ in _PURE_MODULES
        )
        return self._apply(function, arguments, pure)

    def _called(self, name: str) -> Any:
        """The function that a name means."""
        return None if name in self.fixed or name in self.slots else self.namespace.get(name, vars(builtins).get(name))

    def _operate(self, function: Callable[..., Any], *operands: Value, pure: bool = True) -> Value:
        return self._apply(self.typing.resolve_value_type(function), list(operands), pure)

    def _apply(self, function: Any, operands: list[Value], pure: bool) -> Value:
        key = (function, *(_identity(llvm, t) for t, llvm in operands)) if pure else None
        if key is not None:
            for scope in reversed(self.known):
                if key in scope:
                    return scope[key]
        signature = function.get_call_type(self.typing, tuple(t for t, _ in operands), {})
        if signature is None:
            given = ", ".join(str(t) for t, _ in operands)
            raise self._error(f"{getattr(function, 'key', function)} does not take ({given})")
        passed = [self._cast(value, t) for value, t in zip(operands, signature.args, strict=True)]
        result = signature.return_type, self.context.get_function(function, signature)(self.builder, passed)
        if key is not None:
            self.known[-1][key] = result
        return result

    def _cast(self, value: Value, to: Any) -> Any:
        t, llvm = value
        if t == to or (to == types.int64 and isinstance(t, types.IntegerLiteral)):
            return llvm
        return self.context.cast(self.builder, llvm, t, to)

    def _branch(self, test: ast.expr, yes: Any, no: Any, strict: bool = False) -> None:
        """End the block: to `yes` where `test` holds. Strict: every part is a truth value, no number."""
        if isinstance(test, ast.Compare) and len(test.ops) > 1:
            test = _links(test)
        if isinstance(test, ast.BoolOp):
            for part in test.values[:-1]:
                following = self._new_block()
                self._branch(part, *((following, no) if isinstance(test.op, ast.And) else (yes, following)), strict)
                self.builder.position_at_end(following)
                self.known.append({})
            self._branch(test.values[-1], yes, no, strict)
            del self.known[-len(test.values) + 1 :]
        elif isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self._branch(test.operand, no, yes)
        else:
            value = self._value(test)
            if value[0] != types.boolean:
                if strict:
                    raise self._error("`and` and `or` of numbers")
                value = self._operate(bool, value)
            self.builder.cbranch(value[1], yes, no)

    def _truth_of(self, node: ast.BoolOp) -> Value:
        yes, no, end = self._new_block(), self._new_block(), self._new_block()
        self._branch(node, yes, no, strict=True)
        for block in (yes, no):
            self.builder.position_at_end(block)
            self.builder.branch(end)
        self.builder.position_at_end(end)
        result = self.builder.phi(I1)
        result.add_incoming(I1(1), yes)
        result.add_incoming(I1(0), no)
        return types.boolean, result

    def _if_expression(self, node: ast.IfExp) -> Value:
        yes, no, end = self._new_block(), self._new_block(), self._new_block()
        self._branch(node.test, yes, no)
        ways = []
        for block, part in ((yes, node.body), (no, node.orelse)):
            self.builder.position_at_end(block)
            self.known.append({})
            value = self._value(part)
            self.known.pop()
            ways.append((value, self.builder.block))
        kinds = [types.unliteral(value[0]) for value, _ in ways]
        t = kinds[0] if kinds[0] == kinds[1] else self.typing.unify_types(*kinds)
        if t is None:
            raise self._error(f"an `if` of {kinds[0]} and {kinds[1]}")
        casts = []
        for value, block in ways:
            self.builder.position_at_end(block)
            casts.append((self._cast(value, t), self.builder.block))
            self.builder.branch(end)
        self.builder.position_at_end(end)
        result = self.builder.phi(casts[0][0].type)
        for llvm, block in casts:
            result.add_incoming(llvm, block)
        return t, result

    def _new_block(self) -> Any:
        return self.llvm.append_basic_block("b")

    # -- errors -------------------------------------------------------------------------------------------------------

    def _unknown(self, node: ast.AST) -> InternalError:
        return self._error(f"line {getattr(node, 'lineno', '?')}: emitted code has no `{ast.unparse(node).splitlines()[0]}`")

    def _error(self, what: str) -> InternalError:
        return InternalError(f"emitted function {self.function.name} does not compile: {what}")


def _identity(llvm: Any, t: Any) -> Any:
    """Equal for equal values. A constant is what it says, any other value is itself; those live as long as the module."""
    return (t, str(llvm.constant)) if isinstance(llvm, ir.Constant) else id(llvm)  # as text, 0.0 is not -0.0


def _links(node: ast.Compare) -> ast.BoolOp:
    """`a < b < c` as `a < b and b < c`: nothing that is compared has side effects."""
    parts = [node.left, *node.comparators]
    pairs = zip(parts, node.ops, parts[1:], strict=False)
    return ast.copy_location(ast.BoolOp(ast.And(), [ast.Compare(a, [op], [b]) for a, op, b in pairs]), node)


def _folded(node: ast.expr) -> int | None:
    """The integer that an expression of literals is, as Python's own compiler would have it."""
    if isinstance(node, ast.Constant):
        return node.value if type(node.value) is int else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _folded(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub, ast.Mult)):
        left = _folded(node.left)
        right = None if left is None else _folded(node.right)
        return None if left is None or right is None else int(_OPERATORS[type(node.op)](left, right))
    return None
