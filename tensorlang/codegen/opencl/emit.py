"""Kernel IR to OpenCL C: one `__kernel` for each nest of the program, launched one after the other.

    for b in 8 (blockIdx.x):                __kernel void scale(__global const float *restrict x, ...) {
        for t in 64 (threadIdx.x):   ->         const int32_t b = (int32_t)get_group_id(0);
            y[b*64 + t] = x[b*64 + t]           const int32_t t = (int32_t)get_local_id(0);
                                                y[b * 64 + t] = x[b * 64 + t];

A block of the grid is a work group, its threads are work items, and what they share is `__local` (see `codegen.grid`).
"""

from __future__ import annotations

from tensorlang.codegen.c.emit import RESERVED as C_RESERVED, CEmitter, c_identifier
from tensorlang.codegen.c.helpers import prelude
from tensorlang.codegen.c.printer import c_type
from tensorlang.codegen.grid import GridEmitter, GridKernel
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import For, PrimFunc, Stmt

LOCAL_BYTES = 32 * 1024  # what every device gives a work group
PRIVATE_BYTES = 16 * 1024  # what an item may keep in an array of its own
_BUILTINS = (
    "rotate clz ctz popcount bitselect maxmag minmag fract distance hadd rhadd upsample mul24 mad24 prefetch smoothstep "
    "select shuffle2 dot cross fast_length read_mem_fence write_mem_fence mem_fence sincos"
)
RESERVED = C_RESERVED | frozenset(_BUILTINS.split())
_TYPES = """typedef char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long int64_t;
typedef uchar uint8_t;
typedef ushort uint16_t;
typedef uint uint32_t;
typedef ulong uint64_t;
#define INT32_MIN INT_MIN
#define INT64_MIN LONG_MIN
#define INT64_C(x) x##L
#define UINT64_C(x) x##UL
"""
_OVERLOADED = "sqrt floor ceil trunc rint fmod fabs".split()


def emit_opencl_kernel(func: PrimFunc, name: str | None = None, trace: str = "") -> GridKernel:
    """The OpenCL C of a lowered program; `trace`, the steps of its schedule, goes above it as a comment.

    Raises:
        BuildError: its thread axes are not such that work groups can run it; the message says how they have to be.
    """
    name = c_identifier(name or func.name)
    return OpenCLEmitter(func, f"k_{name}" if name in RESERVED else name).kernel(trace)


def opencl_module(texts: str) -> str:
    """A program of emitted kernels with everything above them that they need."""
    helpers = prelude(texts)
    whole = helpers + texts
    overloaded = "".join(f"#define {f}f {f}\n" for f in _OVERLOADED if f"{f}f(" in whole)
    doubles = "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n" if "double" in whole else ""
    return "\n".join(filter(None, [doubles + _TYPES + overloaded, helpers, texts]))


class OpenCLEmitter(GridEmitter, CEmitter):
    """One program as `__kernel` functions."""

    reserved = RESERVED
    shared_bytes = LOCAL_BYTES
    private_bytes = PRIVATE_BYTES

    def function(self, name: str, params: list[Buffer | Expr]) -> str:
        texts = [self.pointer(p) if isinstance(p, Buffer) else f"{c_type(p.dtype)} {self.spell(p)}" for p in params]
        return "\n".join([f"__kernel void {name}({', '.join(texts)}) {{", *self.prologue, *self.lines, "}"]) + "\n"

    def pointer(self, b: Buffer) -> str:
        return f"__global {super().pointer(b)}"

    def position(self, v: Expr, axis: str, d: int, depth: int) -> None:
        index, which = self.expr.index_type, "group" if axis == "blockIdx" else "local"
        self.line(depth, f"const {index} {self.spell(v)} = ({index})get_{which}_id({d});")

    def thread(self, d: int) -> str:
        return f"get_local_id({d})"

    def open_if(self, cond: str, depth: int) -> None:
        self.line(depth, f"if ({cond}) {{")

    def open_else(self, depth: int) -> None:
        self.line(depth, "} else {")

    def open_for(self, s: For, depth: int) -> None:
        v = self.spell(s.var)
        self.line(depth, f"for ({self.expr.index_type} {v} = 0; {v} < {self.expr.show(s.extent, 8)}; ++{v}) {{")

    def close(self, depth: int) -> None:
        self.line(depth, "}")

    def barrier(self, depth: int) -> None:
        self.line(depth, "barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE);")

    def declare_shared(self, buffer: Buffer, size: int) -> None:
        """OpenCL wants it at the top of the kernel."""
        self.prologue.append(f"    __local {c_type(buffer.dtype)} {self.spell(buffer)}[{size}];")

    def declare_private(self, buffer: Buffer, size: int, depth: int) -> None:
        self.line(depth, f"{c_type(buffer.dtype)} {self.spell(buffer)}[{size}];")

    def conjunction(self, conditions: list[str]) -> str:
        return " && ".join(conditions)

    def _threads(self, s: Stmt, depth: int) -> None:
        """In braces, so that what its items call their positions ends with it."""
        self.line(depth, "{")
        super()._threads(s, depth + 1)
        self.line(depth, "}")

