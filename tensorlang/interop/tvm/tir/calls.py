"""Calls of pure functions by name: those of C's math library, and intrinsics that users add."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tensorlang import te
from tensorlang.errors import BuildError, TypeCheckError
from tensorlang.interop.tvm.tensor import dtype_name
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import Expr, call, cast, user_location
from tensorlang.ir.intrinsics import INTRINSICS
from tensorlang.ir.visitor import rewrite

# C's name -> ours, where they differ.
_C_NAMES = {
    "fabs": "abs", "asin": "arcsin", "acos": "arccos", "atan": "arctan", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "rint": "round", "nearbyint": "round",
}  # fmt: skip
_SAME = """
    exp log log2 log1p expm1 sqrt rsqrt tanh sin cos tan sinh cosh erf floor ceil trunc pow fmod sigmoid isnan isinf fma
""".split()
C_FUNCTIONS = {**{n: n for n in _SAME}, **_C_NAMES}
_TIR_NAMES = {ours: theirs for theirs, ours in _C_NAMES.items() if theirs not in ("rint",)}


class CallEffectKind:
    """What a call may do besides returning a value."""

    ExprAnnotation = 0
    Pure = 1
    ReadState = 2
    UpdateState = 3
    Opaque = 4


@dataclass(frozen=True)
class Op:
    """A function that calls name, such as `tir.exp`."""

    name: str


class Call:
    """A call as a lowering rule sees it.

    Attributes:
        dtype: NumPy's name of the result's type.
        op: the function.
        args: its operands.
        expr: the expression itself.
    """

    def __init__(self, expr: Expr, name: str):
        self.expr = expr
        self.dtype = dtype_name(expr.dtype)
        self.op = Op(name)
        self.args = list(expr.args)


_OPS: dict[str, dict[str, Any]] = {}
_RULES: dict[tuple[str, str], list[tuple[int, Callable[[Call], Any]]]] = {}


def register_op_attr(op_name: str, attr_key: str, value: Any = None, level: int = 10) -> Any:
    """Make `op_name` a function that `call_intrin` may call, with an attribute of it; a decorator without `value`."""

    def register(v: Any) -> Any:
        _OPS.setdefault(op_name, {})[attr_key] = v
        return v

    return register if value is None else register(value)


def register_intrin_lowering(op_name: str, target: str, f: Callable[[Call], Any] | None = None, level: int = 10) -> Any:
    """How `op_name` is written for a kind of target: `f` maps a call to an expression, or to itself for "as it is".

    Of several rules for the same, the one of the highest level counts, and of those the last.
    """

    def register(rule: Callable[[Call], Any]) -> Any:
        _RULES.setdefault((op_name, target), []).append((level, rule))
        return rule

    return register if f is None else register(f)


def call_pure_extern(dtype: str, func_name: str, *args: Any) -> Expr:
    """A function of C's or CUDA's math library by its name (`expf`, `__expf`, `exp`), through our own of the same meaning.

    Raises:
        TypeCheckError: we have no function of that name.
    """
    base = func_name.removeprefix("__")
    ours = C_FUNCTIONS.get(base) or (C_FUNCTIONS.get(base[:-1]) if base.endswith("f") else None)
    if ours is None:
        raise TypeCheckError(
            f"{user_location()}: no function {func_name!r}; there are, also with f at the end: {', '.join(sorted(C_FUNCTIONS))}"
        )
    if len(args) != INTRINSICS[ours].arity:
        raise TypeCheckError(f"{user_location()}: {func_name} takes {INTRINSICS[ours].arity} argument(s), got {len(args)}")
    return cast(as_dtype(dtype), getattr(te, ours)(*args))


def call_intrin(dtype: Any, func_name: str, *args: Any) -> Expr:
    """A call of an intrinsic: one of ours under TVM's name (`tir.exp`), or one made known by `register_op_attr`.

    Raises:
        TypeCheckError: there is no such intrinsic.
    """
    base = func_name.removeprefix("tir.")
    if func_name in _OPS:
        return call(func_name, *args, dtype=as_dtype(dtype))
    if base in C_FUNCTIONS or base in INTRINSICS:
        return cast(as_dtype(dtype), getattr(te, C_FUNCTIONS.get(base, base))(*args))
    raise TypeCheckError(f"{user_location()}: no intrinsic {func_name!r}; register_op_attr makes one known")


def lower_intrinsics(e: Expr, target: str) -> Expr:
    """`e` with the target's rules applied to its calls.

    Raises:
        BuildError: a user's intrinsic has no rule for the target.
    """

    def rule(node: Expr) -> Expr | None:
        if node.op != "call":
            return None
        name = node.value if node.value.startswith("tir.") else f"tir.{_TIR_NAMES.get(node.value, node.value)}"
        rules = _RULES.get((name, target)) or _RULES.get((name, "default"))
        if rules:
            _, lowering = max(enumerate(rules), key=lambda item: (item[1][0], item[0]))[1]
            result = lowering(Call(node, name))
            result = result.expr if isinstance(result, Call) else result
            if not isinstance(result, Expr):
                raise BuildError(f"the rule of {name} for {target} returned {type(result).__name__}, not an expression")
            node = result
        if node.op == "call" and node.value in _OPS:
            raise BuildError(f"{node.value} has no lowering rule for target {target!r}; register_intrin_lowering gives it one")
        return node

    return rewrite(e, rule)
