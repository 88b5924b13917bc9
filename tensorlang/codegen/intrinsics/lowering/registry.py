"""How a lowering is registered beside its plain function: one decorator.

    @lowers(memory.vload)
    def vload(p, i, lanes):                      # numba types of the arguments; None: not applicable
        result = Vec(p.dtype, literal(lanes))
        def emit(b, p_, i_, lanes_): ...         # LLVM values in, LLVM value (or None) out
        return result(p, types.int64, lanes), emit

The function (or operator) then has an `IntrinsicType` of its own, which remembers what it resolved: numba's way, over
lists of templates and overloads, is several times slower and most of a kernel's compile time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.datamodel import models, register_default
from numba.core.imputils import Registry as LoweringRegistry

from tensorlang.codegen.intrinsics.dtypes import ScalarType

lowering_registry = LoweringRegistry("tensorlang")

# what numba may do with float arithmetic; neither `nnan` (NaN has meaning) nor `reassoc` (breaks range reduction)
FAST_MATH = ("contract", "nsz", "arcp", "afn")

Typer = Callable[..., Any]


class IntrinsicType(types.Callable):
    """The numba type of one intrinsic or operator.

    Attributes:
        typers: what `lowers` registered, tried in order.
        fallback: numba's own rules, for operators on plain numbers.
    """

    def __init__(self, function: Any):
        self.function = function
        self.typers: list[Typer] = []
        self.fallback: Any = None
        self._signatures: dict[Any, Any] = {}
        super().__init__(name=f"Intrinsic({function.__name__})")

    @property
    def key(self) -> Any:
        return self.function

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        if kws:
            return None
        signature = self._signatures.get(args)
        if signature is None:
            signature = self._resolve(context, args)
            self._signatures[args] = signature
        return signature

    def _resolve(self, context: Any, args: Any) -> Any:
        for typer in self.typers:
            with contextlib.suppress(TypeError):  # another number of arguments
                if (found := typer(*args)) is not None:
                    return found[0]
        return None if self.fallback is None else self.fallback.get_call_type(context, args, {})

    def get_call_signatures(self) -> Any:
        return (), False

    def get_impl_key(self, sig: Any) -> Any:
        return self.function

    def implementation(self, context: Any, sig: Any) -> Any:
        """What emits the call of this signature; None where numba's own does."""
        for typer in self.typers:
            with contextlib.suppress(TypeError):
                if (found := typer(*sig.args)) is not None and found[0].args == sig.args:
                    return _wrap(found[1], context.get_dummy_value())
        return None


def _wrap(emit: Any, nothing: Any) -> Any:
    def call(builder: ir.IRBuilder, args: Any, loc: Any = None) -> Any:
        result = emit(builder, *args)
        return nothing if result is None else result

    return call


class DTypeName(types.Callable):
    """The numba type of a name like `f32`: callable as a cast, and an argument that names an element type."""

    def __init__(self, scalar: ScalarType, signature_of: Callable[[ScalarType, Any], Any]):
        self.scalar = scalar
        self._signature_of = signature_of
        super().__init__(name=f"DTypeName({scalar.name})")

    def get_call_type(self, context: Any, args: Any, kws: Any) -> Any:
        return self._signature_of(self.scalar, types.unliteral(args[0])) if len(args) == 1 and not kws else None

    def get_call_signatures(self) -> Any:
        return (), False

    def get_impl_key(self, sig: Any) -> Any:
        return cast_key

    @property
    def key(self) -> Any:
        return self.scalar.name


class cast_key:
    """The key under which casts are lowered."""


@register_default(IntrinsicType)
@register_default(DTypeName)
class _NameModel(models.OpaqueModel):
    pass


GLOBALS: dict[Any, Any] = {}  # plain function, operator or scalar type -> its numba type


def literal(numba_type: Any) -> int | None:
    """The value of a literal integer type, else None."""
    return numba_type.literal_value if isinstance(numba_type, types.IntegerLiteral) else None


def lowers(function: Any) -> Callable[[Typer], Typer]:
    """Register a typer-and-emitter for a plain function or an operator of module `operator`."""

    def register(typer: Typer) -> Typer:
        GLOBALS.setdefault(function, IntrinsicType(function)).typers.append(typer)
        return typer

    return register


def declare(builder: ir.IRBuilder, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
    """The external function or LLVM intrinsic `name`, declared once per module."""
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


def suffix(t: ir.Type) -> str:
    """How LLVM names a type inside an intrinsic's name: `v16f32`, `i64`, `p0`."""
    if isinstance(t, ir.VectorType):
        return f"v{t.count}{suffix(t.element)}"
    if isinstance(t, ir.IntType):
        return f"i{t.width}"
    if isinstance(t, ir.PointerType):
        return "p0"
    return {"float": "f32", "double": "f64", "half": "f16"}[str(t)]


def intrinsic(builder: ir.IRBuilder, name: str, *values: Any, result: ir.Type | None = None) -> Any:
    """Call `llvm.<name>.<suffix of the first value's type>`; the result has that type too unless given."""
    t = result or values[0].type
    fn = declare(builder, f"llvm.{name}.{suffix(values[0].type)}", t, [v.type for v in values])
    return builder.call(fn, values, fastmath=FAST_MATH if is_float(t) else ())


def is_float(t: ir.Type) -> bool:
    """Whether a type is float, double or a vector of them."""
    element = t.element if isinstance(t, ir.VectorType) else t
    return isinstance(element, (ir.FloatType, ir.DoubleType))


def splat(builder: ir.IRBuilder, value: Any, lanes: int) -> Any:
    """A vector with `value` in every lane."""
    vector = ir.VectorType(value.type, lanes)
    if isinstance(value, ir.Constant):
        return ir.Constant(vector, [value.constant] * lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), mask)
