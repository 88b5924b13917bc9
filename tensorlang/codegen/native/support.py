"""What the front end leaves to each machine, as LLVM text that is linked in: pausing, atomics, system calls, memory,
16-bit floats, powers of two, quotients.

The front end's code is the same for all machines: addresses in it are 64-bit integers, and where machines differ it calls a
function `tl.*` that is defined here. So are the steps of elementary functions for which some machines have instructions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tensorlang.codegen.native.target import CpuTarget
from tensorlang.errors import InternalError

_PAUSE = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()\n", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.hint(i32)\n", "call void @llvm.aarch64.hint(i32 1)"),
    "armv7": ("declare void @llvm.arm.hint(i32)\n", "call void @llvm.arm.hint(i32 1)"),
}

# Of 8-byte words, in all memory orders that the pool needs. Where addresses have 32 bits, they take so many registers at once
# that they must stand alone.
_ATOMICS = {
    "tl.atomic_load": """
define i64 @"tl.atomic_load"(i64 %a) {inline} {{
  %p = inttoptr i64 %a to ptr
  %v = load atomic i64, ptr %p acquire, align 8
  ret i64 %v
}}
""",
    "tl.atomic_store": """
define void @"tl.atomic_store"(i64 %a, i64 %v) {inline} {{
  %p = inttoptr i64 %a to ptr
  store atomic i64 %v, ptr %p release, align 8
  ret void
}}
""",
    "tl.atomic_claim": """
define i1 @"tl.atomic_claim"(i64 %a, i64 %old, i64 %new) {inline} {{
  %p = inttoptr i64 %a to ptr
  %found = cmpxchg ptr %p, i64 %old, i64 %new seq_cst acquire, align 8
  %done = extractvalue {{ i64, i1 }} %found, 1
  ret i1 %done
}}
""",
    **{
        f"tl.atomic_{op}": f"""
define i64 @"tl.atomic_{op}"(i64 %a, i64 %v) {{inline}} {{{{
  %p = inttoptr i64 %a to ptr
  %before = atomicrmw {op} ptr %p, i64 %v seq_cst, align 8
  ret i64 %before
}}}}
"""
        for op in ("add", "or")
    },
}

_TO_SINGLE = re.compile(r"tl\.f16_to_f32(?:\.v(\d+))?$")
_TO_HALF = re.compile(r"tl\.f32_to_f16(?:\.v(\d+))?$")
_TO_BFLOAT = re.compile(r"tl\.f32_to_bf16(?:\.v(\d+))?$")
_STEP = re.compile(r"tl\.(scale|ratio)\.(?:v(\d+))?f32$")

# The feature that brings conversions between f16 and f32; AArch64 has them always.
_HALF_FEATURES = {"x86_64": ("f16c", "avx512f"), "aarch64": ("",), "armv7": ("fp16",), "riscv64": ("zfhmin", "zfh")}


def support(called: Iterable[str], target: CpuTarget) -> str:
    """Definitions, for `target`, of those functions of this module that are `called`.

    Raises:
        InternalError: one is not known here.
    """
    lines = "".join(_define(name, target) for name in sorted(set(called))).splitlines()
    declared = dict.fromkeys(line for line in lines if line.startswith("declare "))
    return "".join(f"{line}\n" for line in (*declared, *(line for line in lines if line not in declared)))


def _define(name: str, target: CpuTarget) -> str:
    word = f"i{target.pointer_bits}"
    if name == "tl.pause":
        declared, call = _PAUSE.get(target.architecture, ("", ""))
        return f'{declared}define void @"tl.pause"() alwaysinline {{\n  {call}\n  ret void\n}}\n'
    if name in _ATOMICS:
        return _ATOMICS[name].format(inline="alwaysinline" if target.pointer_bits == 64 else "noinline")
    if name == "tl.syscall":
        return _syscall(word)
    if name == "tl.allocate":
        return (
            f"declare ptr @aligned_alloc({word}, {word})\n"
            'define i64 @"tl.allocate"(i64 %n) alwaysinline {\n'
            f"{_narrow('n', word)}  %p = call ptr @aligned_alloc({word} 64, {word} %n.w)\n"
            "  %r = ptrtoint ptr %p to i64\n  ret i64 %r\n}\n"
        )
    if name == "tl.free":
        return (
            'declare void @free(ptr)\ndefine void @"tl.free"(i64 %a) alwaysinline {\n'
            "  %p = inttoptr i64 %a to ptr\n  call void @free(ptr %p)\n  ret void\n}\n"
        )
    if match := _TO_SINGLE.match(name):
        return _conversion(name, match[1], to_single=True, hardware=_has_half(target))
    if match := _TO_HALF.match(name):
        return _conversion(name, match[1], to_single=False, hardware=_has_half(target))
    if match := _TO_BFLOAT.match(name):
        return _to_bfloat(name, match[1])
    if match := _STEP.match(name):
        return _step(name, match[1], int(match[2] or 0), target)
    raise InternalError(f"{name} is called but was not compiled")


def _narrow(name: str, word: str) -> str:
    """`%name` as `%name.w`, of the width of an address."""
    op = "trunc i64" if word == "i32" else "bitcast i64"
    return f"  %{name}.w = {op} %{name} to {word}\n"


def _syscall(word: str) -> str:
    names = ("n", "a", "b", "c", "d")
    passed = ", ".join(f"{word} %{v}.w" for v in names)
    narrow = "".join(_narrow(v, word) for v in names)
    widen = f"sext {word} %s to i64" if word == "i32" else f"bitcast {word} %s to i64"
    return (
        f"declare {word} @syscall({word}, ...)\n"
        f'define i64 @"tl.syscall"({", ".join(f"i64 %{v}" for v in names)}) alwaysinline {{\n{narrow}'
        f"  %s = call {word} ({word}, ...) @syscall({passed})\n  %r = {widen}\n  ret i64 %r\n}}\n"
    )


def _has_half(target: CpuTarget) -> bool:
    return any(f == "" or target.has(f) for f in _HALF_FEATURES.get(target.architecture, ()))


class _Text:
    """Instructions of one function over i32 and float, scalar or in vectors."""

    def __init__(self, lanes: str | None):
        self.lanes = int(lanes) if lanes else 0
        self.lines: list[str] = []

    def type(self, element: str) -> str:
        return f"<{self.lanes} x {element}>" if self.lanes else element

    def const(self, value: int | str, element: str = "i32") -> str:
        text = str(value)
        return "<" + ", ".join([f"{element} {text}"] * self.lanes) + ">" if self.lanes else text

    def op(self, text: str) -> str:
        name = f"%v{len(self.lines)}"
        self.lines.append(f"  {name} = {text}")
        return name

    def binary(self, op: str, x: str, y: str | int) -> str:
        return self.op(f"{op} {self.type('i32')} {x}, {self.const(y) if isinstance(y, int) else y}")

    def cast(self, op: str, x: str, before: str, after: str) -> str:
        return self.op(f"{op} {self.type(before)} {x} to {self.type(after)}")

    def select(self, condition: str, x: str, y: str) -> str:
        return self.op(f"select {self.type('i1')} {condition}, {self.type('i32')} {x}, {self.type('i32')} {y}")

    def above(self, x: str, limit: int) -> str:
        return self.op(f"icmp ugt {self.type('i32')} {x}, {self.const(limit)}")

    def function(self, name: str, before: str, after: str, result: str) -> str:
        """The whole definition, of `%x`."""
        body = "\n".join([*self.lines, f"  ret {self.type(after)} {result}"])
        return f'define {self.type(after)} @"{name}"({self.type(before)} %x) alwaysinline {{\n{body}\n}}\n'


def _step(name: str, kind: str, lanes: int, target: CpuTarget) -> str:
    """`tl.scale`: x * 2**n for an integer n in [-256, 256]; `tl.ratio`: x / y for an ordinary y."""
    t = _Text(str(lanes) if lanes else None)
    declared: list[str] = []
    wide = target.architecture == "x86_64" and target.has("avx512f") and target.has("avx512vl")
    if wide and lanes >= 4 and lanes.bit_count() == 1:
        width = min(lanes, 16)
        fast = _scaled_by_instruction if kind == "scale" else _refined_quotient
        starts = range(0, lanes, width)
        parts = [fast(t, declared, width, *(_part(t, v, start, width) for v in ("%x", "%y"))) for start in starts]
        result = _joined(t, parts, width)
    elif kind == "scale":
        result = _scaled_in_halves(t)
    else:
        result = t.op(f"fdiv {t.type('float')} %x, %y")
    v, body = t.type("float"), "\n".join([*t.lines, f"  ret {t.type('float')} {result}"])
    return f'{"".join(declared)}define {v} @"{name}"({v} %x, {v} %y) alwaysinline {{\n{body}\n}}\n'


def _part(t: _Text, value: str, start: int, width: int) -> str:
    """`width` lanes of a vector from `start`."""
    if width == t.lanes:
        return value
    v = t.type("float")
    return t.op(f"shufflevector {v} {value}, {v} poison, <{width} x i32> <{_numbers(start, width)}>")


def _joined(t: _Text, parts: list[str], width: int) -> str:
    """Vectors of `width` lanes, a power of two of them, end to end."""
    while len(parts) > 1:
        pairs, v = zip(parts[::2], parts[1::2], strict=True), f"<{width} x float>"
        width *= 2
        parts = [t.op(f"shufflevector {v} {a}, {v} {b}, <{width} x i32> <{_numbers(0, width)}>") for a, b in pairs]
    return parts[0]


def _numbers(start: int, count: int) -> str:
    return ", ".join(f"i32 {n}" for n in range(start, start + count))


def _scaled_by_instruction(t: _Text, declared: list[str], lanes: int, x: str, n: str) -> str:
    v, mask = f"<{lanes} x float>", f"i{max(lanes, 8)}"
    called = f"@llvm.x86.avx512.mask.scalef.ps.{32 * lanes}"
    rounding = lanes == 16  # only this form has it; 4 is that of the thread
    declared.append(f"declare {v} {called}({v}, {v}, {v}, {mask}{', i32' if rounding else ''})\n")
    return t.op(f"call {v} {called}({v} {x}, {v} {n}, {v} {x}, {mask} -1{', i32 4' if rounding else ''})")


def _scaled_in_halves(t: _Text) -> str:
    """Two factors, since 2**n itself overflows at 128 and is denormal below -126."""
    bound = t.op(f"fcmp uno {t.type('float')} %y, %y")  # a NaN has no integer: x is one too, and any will do
    n = t.op(f"select {t.type('i1')} {bound}, {t.type('float')} {t.const('0.0', 'float')}, {t.type('float')} %y")
    k = t.cast("fptosi", n, "float", "i32")
    half = t.binary("ashr", k, 1)
    result = "%x"
    for power in (half, t.binary("sub", k, half)):
        factor = t.cast("bitcast", t.binary("shl", t.binary("add", power, 127), 23), "i32", "float")
        result = t.op(f"fmul {t.type('float')} {result}, {factor}")
    return result


def _refined_quotient(t: _Text, declared: list[str], lanes: int, x: str, y: str) -> str:
    """x / y from an estimate of 1 / y good to 14 bits: a step of Newton's on it, and one on the quotient, which leaves about
    half a unit in the last place. A division of 16 lanes keeps the divider busy for 16 cycles; this takes about five."""
    v, mask = f"<{lanes} x float>", f"i{max(lanes, 8)}"
    fused, estimated = f"@llvm.fma.v{lanes}f32", f"@llvm.x86.avx512.rcp14.ps.{32 * lanes}"
    declared += [f"declare {v} {fused}({v}, {v}, {v})\n", f"declare {v} {estimated}({v}, {v}, {mask})\n"]

    def fma(a: str, b: str, c: str) -> str:
        return t.op(f"call {v} {fused}({v} {a}, {v} {b}, {v} {c})")

    estimate = t.op(f"call {v} {estimated}({v} {y}, {v} zeroinitializer, {mask} -1)")
    minus = t.op(f"fneg {v} {y}")
    one = f"<{', '.join(['float 1.0'] * lanes)}>"
    inverse = fma(estimate, fma(minus, estimate, one), estimate)
    quotient = t.op(f"fmul {v} {x}, {inverse}")
    return fma(fma(minus, quotient, x), inverse, quotient)


def _conversion(name: str, lanes: str | None, *, to_single: bool, hardware: bool) -> str:
    """f16 (as its bits) to f32, or back to nearest even; by the machine's instruction or, bit for bit the same, in integers."""
    t = _Text(lanes)
    if hardware and to_single:
        result = t.cast("fpext", t.cast("bitcast", "%x", "i16", "half"), "half", "float")
    elif hardware:
        result = t.cast("bitcast", t.cast("fptrunc", "%x", "float", "half"), "half", "i16")
    else:
        result = _single(t) if to_single else _half(t)
    before, after = ("i16", "float") if to_single else ("float", "i16")
    return t.function(name, before, after, result)


def _to_bfloat(name: str, lanes: str | None) -> str:
    """f32 to bf16 (as its bits), to nearest even; in integers, for the machine's instruction takes denormals for zeros."""
    t = _Text(lanes)
    bits = t.cast("bitcast", "%x", "float", "i32")
    odd = t.binary("and", t.binary("lshr", bits, 16), 1)
    rounded = t.binary("add", bits, t.binary("add", odd, 0x7FFF))
    nan = t.above(t.binary("and", bits, 0x7FFFFFFF), 0x7F800000)
    chosen = t.select(nan, t.binary("or", bits, 0x400000), rounded)
    return t.function(name, "float", "i16", t.cast("trunc", t.binary("lshr", chosen, 16), "i32", "i16"))


def _single(t: _Text) -> str:
    """Exponent and mantissa moved into place, and the exponent's bias corrected by a product, which also takes denormals."""
    word = t.cast("zext", "%x", "i16", "i32")
    moved = t.binary("shl", t.binary("and", word, 0x7FFF), 13)
    scale = t.const("0x46F0000000000000", "float")  # 2^(127 - 15), written as the bits of a double
    scaled = t.op(f"fmul {t.type('float')} {t.cast('bitcast', moved, 'i32', 'float')}, {scale}")
    finite = t.cast("bitcast", scaled, "float", "i32")
    quiet = t.select(t.above(moved, 0x0F800000), t.const(0x7FC00000), t.const(0x7F800000))
    special = t.binary("or", moved, quiet)
    magnitude = t.select(t.above(moved, 0x0F7FFFFF), special, finite)
    sign = t.binary("shl", t.binary("and", word, 0x8000), 16)
    return t.cast("bitcast", t.binary("or", magnitude, sign), "i32", "float")


def _half(t: _Text) -> str:
    """Rounding by an addition to the bits; denormals by an addition of 0.5, whose last bit is worth the smallest of them."""
    bits = t.cast("bitcast", "%x", "float", "i32")
    magnitude = t.binary("and", bits, 0x7FFFFFFF)
    payload = t.binary("or", t.binary("and", t.binary("lshr", magnitude, 13), 0x3FF), 0x7E00)
    large = t.select(t.above(magnitude, 0x7F800000), payload, t.const(0x7C00))
    half = t.const("0.5", "float")
    tiny = t.op(f"fadd {t.type('float')} {t.cast('bitcast', magnitude, 'i32', 'float')}, {half}")
    small = t.binary("sub", t.cast("bitcast", tiny, "float", "i32"), 0x3F000000)
    odd = t.binary("and", t.binary("lshr", magnitude, 13), 1)
    rounded = t.binary("add", t.binary("add", magnitude, (0xFFF - (112 << 23)) & 0xFFFFFFFF), odd)
    normal = t.binary("lshr", rounded, 13)
    chosen = t.select(t.above(magnitude, 0x387FFFFF), normal, small)
    chosen = t.select(t.above(magnitude, 0x477FFFFF), large, chosen)
    sign = t.binary("and", t.binary("lshr", bits, 16), 0x8000)
    return t.cast("trunc", t.binary("or", chosen, sign), "i32", "i16")
