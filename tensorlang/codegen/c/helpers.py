"""The functions named `tl_...` that emitted C calls, each written out where a text uses it.

Integers wrap, division rounds toward minus infinity and by zero gives zero, conversions out of range give the lowest value
(what x86 answers), elementary functions of f32 are the formulas of `intrinsics.formulas` (error bounds: `ERROR_BOUNDS`
there, and one rounding more in each multiply-add).
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from tensorlang.codegen.c import algebra
from tensorlang.codegen.c.printer import CPrinter, c_type
from tensorlang.codegen.intrinsics import formulas
from tensorlang.errors import InternalError
from tensorlang.ir.dtype import SCALARS, DType, f32
from tensorlang.ir.expr import Expr, var
from tensorlang.ir.visitor import walk

_NAME = re.compile(r"\btl_\w+")
_MATH_H = re.compile(r"\b(?:sqrt|floor|ceil|trunc|rint|fmod|exp|expm1|log|log2|log1p|tanh|erf|sin|cos|tan|asin|acos|atan|sinh"
                     r"|cosh|asinh|acosh|atanh|pow|fabs)f?\(|\bNAN\b|\bINFINITY\b")  # fmt: skip
_INFIX = {"add": "+", "sub": "-", "mul": "*"}
_MOVES = {  # name -> (body of a function of the bits, result type, argument type)
    "tl_float_bits_f32": ("float", "int32_t"),
    "tl_from_float_bits_i32": ("int32_t", "float"),
}
_HALVES = {
    "tl_bf16_to_f32": """
static inline float tl_bf16_to_f32(uint16_t x) {
    return tl_from_float_bits_i32((int32_t)((uint32_t)x << 16));
}
""",
    "tl_f32_to_bf16": """
static inline uint16_t tl_f32_to_bf16(float x) {  // to nearest even
    const uint32_t bits = (uint32_t)tl_float_bits_f32(x);
    return (uint16_t)((x != x ? bits | 0x400000u : bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
}
""",
    "tl_f16_to_f32": """
static inline float tl_f16_to_f32(uint16_t x) {
    const uint32_t sign = (uint32_t)(x & 0x8000u) << 16, rest = x & 0x7FFFu;
    uint32_t bits = (rest << 13) + 0x38000000u;
    if (rest >= 0x7C00u) {  // infinities and NaN
        bits = (rest << 13) | 0x7F800000u;
    } else if (rest < 0x400u) {  // denormal: rest * 2**-24, which f32 holds as it is
        bits = (uint32_t)tl_float_bits_f32((float)rest * 5.9604644775390625e-8f);
    }
    return tl_from_float_bits_i32((int32_t)(bits | sign));
}
""",
    "tl_f32_to_f16": """
static inline uint16_t tl_f32_to_f16(float x) {  // to nearest even
    const uint32_t all = (uint32_t)tl_float_bits_f32(x), sign = all >> 16 & 0x8000u, bits = all & 0x7FFFFFFFu;
    uint32_t code = (bits + 0xFFFu + (bits >> 13 & 1u) - 0x38000000u) >> 13;
    if (bits > 0x7F800000u) {
        code = 0x7E00u | (bits >> 13 & 0x3FFu);
    } else if (bits >= 0x477FF000u) {  // 65520 and more
        code = 0x7C00u;
    } else if (bits < 0x38800000u) {  // denormal: adding 0.5 rounds to multiples of 2**-24
        const float shifted = tl_from_float_bits_i32((int32_t)bits) + 0.5f;
        code = (uint32_t)tl_float_bits_f32(shifted) - 0x3F000000u;
    }
    return (uint16_t)(code | sign);
}
""",
    "tl_f64_to_f16": """
static inline uint16_t tl_f64_to_f16(double x) {  // through f32 rounded to odd, so that it is rounded once
    float near = (float)x;
    int32_t bits = tl_float_bits_f32(near);
    if ((double)near != x && x == x && (bits & 1) == 0) {
        const int32_t away = (double)near < x ? 1 : -1;
        bits += (bits < 0) ? -away : away;
        near = tl_from_float_bits_i32(bits);
    }
    return tl_f32_to_f16(near);
}
""",
}


def prelude(text: str) -> str:
    """What emitted `text` needs above it: the functions that it calls, and those that they call.

    Returns:
        C text; empty where nothing is needed.
    """
    found: dict[str, str] = {}
    pending = sorted(set(_NAME.findall(text)), reverse=True)
    while pending:
        name = pending.pop()
        if name in found:
            continue
        body = helper(name)
        missing = sorted(set(_NAME.findall(body)) - {name} - set(found), reverse=True)
        if missing:
            pending += [name, *missing]
        else:
            found[name] = body
    return "\n".join(found.values())


def needs_math_h(text: str) -> bool:
    """Whether `text` (functions above it included) uses what math.h declares."""
    return bool(_MATH_H.search(text))


@cache
def helper(name: str) -> str:
    """The definition of one function.

    Raises:
        InternalError: there is none of that name.
    """
    if name in _HALVES:
        return _HALVES[name].lstrip("\n")
    if name in _MOVES:
        a, b = _MOVES[name]
        return _function(name, b, f"{a} x", f"union {{ {a} from; {b} to; }} same;\n    same.from = x;\n    return same.to;")
    operation, _, type_name = name.removeprefix("tl_").rpartition("_")
    dtype = SCALARS.get(type_name)
    if dtype is not None:
        source, to, _ = operation.partition("_to")
        if to and source in SCALARS:
            return _to_integer(name, SCALARS[source], dtype)
        if (body := _operation(operation, name, dtype)) is not None:
            return body
    raise InternalError(f"emitted C calls {name}, which is no function of ours")


def _function(name: str, result: str, params: str, body: str) -> str:
    return f"static inline {result} {name}({params}) {{\n    {body}\n}}\n"


def _to_integer(name: str, source: DType, to: DType) -> str:
    """Toward zero; modulo the type's range where 64 (u32) or 32 bits hold it, else the lowest value."""
    wide = SCALARS["i64" if to.bits >= 32 and to.kind == "u" or to.bits == 64 else "i32"]
    t, suffix = c_type(source), "f" if source.bits == 32 else ""
    limit = f"{float(1 << (wide.bits - 1))}{suffix}"
    lowest, low = f"INT{wide.bits}_MIN", f"x >= -{limit}"
    if to.name == "u64":
        body = (
            f"if (x >= {limit} && x < {2.0**64}{suffix}) {{\n        return (uint64_t)x;\n    }}\n"
            f"    return (uint64_t)({low} && x < {limit} ? (int64_t)x : {lowest});"
        )
        return _function(name, "uint64_t", f"{t} x", body)
    value = f"{low} && x < {limit} ? ({c_type(wide)})x : {lowest}"
    return _function(name, c_type(to), f"{t} x", f"return ({c_type(to)})({value});" if to is not wide else f"return {value};")


def _operation(operation: str, name: str, dtype: DType) -> str | None:
    t = c_type(dtype)
    two = f"{t} a, {t} b"
    if operation in _INFIX and dtype.is_int:
        unsigned = f"uint{max(32, dtype.bits)}_t"
        return _function(name, t, two, f"return ({t})(({unsigned})a {_INFIX[operation]} ({unsigned})b);")
    if operation in ("min", "max"):
        first = "b < a" if operation == "min" else "a < b"
        if dtype.is_float:
            return _function(name, t, two, f"return {first} || b != b ? b : a;  // NaN if either is")
        return _function(name, t, two, f"return {first} ? b : a;")
    if operation in ("floordiv", "floormod"):
        return _division(operation, name, dtype)
    if operation in ("left_shift", "right_shift") and dtype.is_int:
        return _shift(operation, name, dtype)
    if operation == "abs":
        if dtype.is_float:
            return _function(name, t, f"{t} x", f"return fabs{'f' if dtype.bits == 32 else ''}(x);")
        wide = f"(uint{max(32, dtype.bits)}_t)x"
        return _function(name, t, f"{t} x", f"return ({t})(x < 0 ? 0 - {wide} : {wide});")
    if operation == "sign":
        if dtype.kind == "u":
            return _function(name, t, f"{t} x", f"return ({t})(x != 0);")
        nan = "x != x ? x : " if dtype.is_float else ""
        return _function(name, t, f"{t} x", f"return {nan}({t})((x > 0) - (x < 0));")
    if operation == "isnan":
        return _function(name, "int", f"{t} x", "return x != x;")
    if operation == "isinf":
        return _function(name, "int", f"{t} x", "return x == x && x - x != x - x;")
    if dtype is f32 and (operation in formulas.UNARY or operation == "pow"):
        return _elementary(operation, name)
    return None


def _division(operation: str, name: str, dtype: DType) -> str:
    t, two = c_type(dtype), f"{c_type(dtype)} a, {c_type(dtype)} b"
    quotient = operation == "floordiv"
    if dtype.is_float:
        f = "f" if dtype.bits == 32 else ""
        if quotient:
            return _function(name, t, two, f"return floor{f}(a / b);")
        body = f"const {t} r = fmod{f}(a, b);\n    return r != 0 && (r < 0) != (b < 0) ? r + b : r;"
        return _function(name, t, two, body)
    if dtype.kind == "u":
        return _function(name, t, two, f"return ({t})(b == 0 ? 0 : a {'/' if quotient else '%'} b);")
    unsigned = f"uint{max(32, dtype.bits)}_t"
    if quotient:
        edge = f"b == 0 ? 0 : ({t})(0 - ({unsigned})a)"
        result = "a / b - (a % b != 0 && (a < 0) != (b < 0))"
    else:
        edge = "0"
        result = "a % b + (a % b != 0 && (a < 0) != (b < 0) ? b : 0)"
    body = f"if (b == 0 || b == -1) {{\n        return {edge};\n    }}\n    return ({t})({result});"
    return _function(name, t, two, body)


def _shift(operation: str, name: str, dtype: DType) -> str:
    t, two = c_type(dtype), f"{c_type(dtype)} a, {c_type(dtype)} b"
    inside = f"b < {dtype.bits}" if dtype.kind == "u" else f"b >= 0 && b < {dtype.bits}"
    unsigned = f"uint{max(32, dtype.bits)}_t"
    if operation == "left_shift":
        return _function(name, t, two, f"return ({t})({inside} ? ({unsigned})a << b : 0);")
    beyond = "(a < 0 ? -1 : 0)" if dtype.kind == "i" else "0"
    return _function(name, t, two, f"return ({t})({inside} ? a >> b : {beyond});")


def _elementary(operation: str, name: str) -> str:
    """A formula as straight-line C: what is used twice gets a variable."""
    formula: Any = getattr(formulas, operation)
    operands = [var(n, f32) for n in (("x",) if operation != "pow" else ("x", "y"))]
    result = formula(algebra, *map(algebra.Term, operands)).expr
    uses: dict[Expr, int] = {}
    for node in walk(result):
        for a in node.args:
            uses[a] = uses.get(a, 0) + 1
    printer = CPrinter(lambda v: v.name, lambda b: b.name, {})
    lines = []
    for node in walk(result):
        if uses.get(node, 0) > 1 and node.op not in ("const", "var"):
            held, kind = f"t{len(printer.bound)}", "int" if node.dtype.is_bool else c_type(node.dtype)
            lines.append(f"const {kind} {held} = {printer(node)};")
            printer.bound[node] = held
    doc = (formula.__doc__ or "").strip().split("\n")[0]
    body = "\n    ".join([*lines, f"return {printer(result)};"])
    return f"// {doc}\n" + _function(name, "float", ", ".join(f"float {v.name}" for v in operands), body)
