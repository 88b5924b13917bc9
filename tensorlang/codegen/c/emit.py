"""Kernel IR to C99: one function per kernel, no allocation, parallel loops run one after the other."""

from __future__ import annotations

import re

from tensorlang.codegen.c.printer import CPrinter, c_type, comment, fits_32_bits
from tensorlang.codegen.emit import EmittedKernel, Emitter
from tensorlang.errors import BuildError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.expr import Expr
from tensorlang.ir.stmt import Allocate, CallPacked, Evaluate, For, If, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.visitor import free_vars, loads, own_exprs, walk_stmt
from tensorlang.symbolic.bounds import bounds

STACK_BYTES = 1024  # larger arrays of a kernel are workspace, which is counted before the build
_KEYWORDS = (
    "auto break case char const continue default do double else enum extern float for goto if inline int long register "
    "restrict return short signed sizeof static struct switch typedef union unsigned void volatile while _Bool _Complex "
    "_Imaginary asm typeof main NULL NAN INFINITY bool true false errno assert "
    "int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t "
    "kernel global local constant private half uchar ushort uint ulong size_t event_t sampler_t barrier"
)
# Functions that a C compiler knows by itself, or that math.h declares: a static function of that name would clash.
_LIBRARY = (
    "abort abs acos acosh alloca asin asinh atan atan2 atanh bcmp bcopy bzero calloc cbrt ceil clog copysign cos cosh cpow "
    "csqrt erf erfc exit exp exp2 expm1 fabs fdim ffs floor fma fmax fmin fmod fprintf fputs free frexp gamma hypot ilogb "
    "index isinf isnan isfinite signbit j0 j1 jn labs ldexp lgamma llabs llrint log log10 log1p log2 logb lrint lround "
    "malloc memchr memcmp memcpy memmove memset modf nan nearbyint nextafter pow printf putchar puts realloc remainder "
    "remquo rindex rint round scalb scanf sin sincos sinh sprintf sqrt strcat strchr strcmp strcpy strdup strlen strncmp "
    "tan tanh tgamma trunc y0 y1 yn scalar vector mix select step clamp cross dot length normalize sign degrees radians "
    "max min mad any all shuffle dim"
)
RESERVED = frozenset([*_KEYWORDS.split(), *_LIBRARY.split(), *(f"{n}f" for n in _LIBRARY.split())])


def c_identifier(name: str) -> str:
    """`name` as an identifier that means nothing else in C."""
    text = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_")
    reserved = not text or text[0].isdigit() or text in RESERVED or text.startswith("tl_") or re.search(r"_t$", text)
    return f"k_{text}" if reserved else text


def emit_c_kernel(func: PrimFunc, name: str | None = None, trace: str = "") -> EmittedKernel:
    """The C function of a lowered program; `trace`, the steps of its schedule, goes above it as a comment.

    It takes the buffers (what it only reads as `const`), the size variables, then the workspace, and returns nothing.

    Raises:
        BuildError: the program has something that C has no word for: thread axes, functions of the host, instructions.
    """
    return CEmitter(func, c_identifier(name or func.name)).run(trace)


def kernel_prototype(text: str) -> str:
    """The declaration of the (last) function in an emitted kernel's text."""
    return re.findall(r"^static void [^{]*", text, flags=re.MULTILINE)[-1].rstrip() + ";"


class CEmitter(Emitter):
    """One kernel as C."""

    reserved = RESERVED
    comment = "//"
    restrict = "restrict "

    def __init__(self, func: PrimFunc, name: str):
        super().__init__(func, name)
        exprs = [e for s in walk_stmt(func.body) for e in own_exprs(s)]
        bits = 32 if not func.size_vars and fits_32_bits(exprs, self.ranges) else 64
        self.expr: CPrinter = CPrinter(self.spell, self.spell, self.ranges, bits)  # type: ignore[assignment]
        self.written = {s.buffer for s in walk_stmt(func.body) if isinstance(s, Store)}
        self.read = {a.value for e in exprs for a in loads(e)}
        self.mentioned = self.written | self.read | {v for e in exprs for v in free_vars(e)}

    def spell(self, thing: Expr | Buffer) -> str:
        if thing not in self.names and thing.name.startswith(("tl_", "_")):
            self.names[thing] = self.temporary(f"v{thing.name.lstrip('_').removeprefix('tl_')}_")
        return super().spell(thing)

    def run(self, trace: str) -> EmittedKernel:
        params: list[tuple[str, str]] = []
        texts: list[str] = []
        for p in self.func.params:
            name = self.spell(p)
            params.append((f"{p.dtype.name}*", name) if isinstance(p, Buffer) else (p.dtype.name, name))
            texts.append(self.pointer(p) if isinstance(p, Buffer) else f"{c_type(p.dtype)} {name}")
            if p not in self.mentioned:
                self.line(1, f"(void){name};")
        self.stmt(self._root_allocations(self.func.body), 1)
        self.workspace = [b for b in self.workspace if b in self.mentioned]
        params += [(f"{b.dtype.name}*", self.spell(b)) for b in self.workspace]
        texts += [self.pointer(b) for b in self.workspace]
        head = f"{self.signature(texts)} {{"
        steps = [comment(f"{self.comment} schedule: {step}") for step in trace.splitlines()]
        text = "\n".join([*steps, head, *self.prologue, *self.lines, "}"]) + "\n"
        space = tuple((self.spell(b), b.shape[0] * b.dtype.nbytes) for b in self.workspace)
        return EmittedKernel(self.name, text, tuple(params), space)

    def signature(self, params: list[str]) -> str:
        return f"static void {self.name}({', '.join(params) or 'void'})"

    def pointer(self, b: Buffer) -> str:
        """A buffer as a parameter."""
        const = "" if b in self.written else "const "
        return f"{const}{c_type(b.dtype)} *{self.restrict}{self.spell(b)}"

    def _root_allocations(self, s: Stmt) -> Stmt:
        """Allocations outside of all loops become workspace parameters, small ones excepted."""
        if isinstance(s, Allocate) and not self._fits_stack(s.buffer):
            self.workspace.append(s.buffer)
            return self._root_allocations(s.body)
        if isinstance(s, Allocate):
            return Allocate(s.buffer, self._root_allocations(s.body))
        return Seq(tuple(map(self._root_allocations, s.stmts))) if isinstance(s, Seq) else s

    @staticmethod
    def _fits_stack(buffer: Buffer) -> bool:
        size = buffer.shape[0]
        return size.op == "const" and size.value * buffer.dtype.nbytes <= STACK_BYTES

    # -- statements ------------------------------------------------------------------------------------------------
    def line(self, depth: int, text: str) -> None:
        super().line(depth, comment(text) if text.startswith(self.comment) else text)

    def stmt(self, s: Stmt, depth: int) -> None:
        if isinstance(s, CallPacked):
            raise BuildError(f"{self.func.name} calls {s.name}, a Python function, which emitted C cannot reach")
        if isinstance(s, Evaluate):
            raise BuildError(f"{self.func.name}: no C for the instruction {s.expr}")
        super().stmt(s, depth)

    def _hold(self, e: Expr, hint: str, depth: int) -> None:
        text, name = self.expr(e), self.temporary(hint)
        self.line(depth, f"const {self.expr.type_of(e)} {name} = {text};")
        self.expr.bound[e] = name

    def _for(self, s: For, depth: int) -> None:
        if s.kind not in ("serial", "parallel", "vectorized", "unrolled"):
            raise BuildError(
                f"{self.func.name}: loop {s.var.name} is bound to {s.kind}, and C has no thread axes; leave out bind()"
            )
        v = self.spell(s.var)
        self.line(depth, f"for ({self.expr.index_type} {v} = 0; {v} < {self.expr.show(s.extent, 8)}; ++{v}) {{")
        self._loop_body(s, depth + 1)
        self.line(depth, "}")

    def _block(self, s: Stmt, depth: int) -> None:
        self.stmt(s, depth)

    def _if(self, s: If, depth: int) -> None:
        self.line(depth, f"if ({self.expr(s.cond)}) {{")
        self._block(s.then, depth + 1)
        if s.else_ is not None:
            self.line(depth, "} else {")
            self._block(s.else_, depth + 1)
        self.line(depth, "}")

    def _allocate(self, s: Allocate, depth: int) -> None:
        buffer = s.buffer
        if self._fits_stack(buffer):
            self.line(depth, f"{c_type(buffer.dtype)} {self.spell(buffer)}[{max(1, buffer.shape[0].value)}];")
            if buffer not in self.read:
                self.line(depth, f"(void){self.spell(buffer)};")
        else:
            self.workspace.append(self._outermost(buffer))
        self.stmt(s.body, depth)

    def _outermost(self, buffer: Buffer) -> Buffer:
        """`buffer` as memory that the caller gives: one piece for all iterations, which run one after the other."""
        size = buffer.shape[0]
        inner = {v: n for v, n in self.ranges.items() if v in free_vars(size)}
        if inner:
            try:
                size = bounds(size, inner)[1]
            except ValueError as error:
                raise BuildError(f"{self.func.name}: the size of {buffer.name}, {size}, has no bound: {error}") from error
        if size is buffer.shape[0]:
            return buffer
        widest = buffer.with_(shape=(size,))
        self.names[widest] = self.spell(buffer)
        self.mentioned.add(widest)
        self.written.add(widest)
        return widest

    def _store(self, s: Store, mask: Expr | None) -> str:
        if mask is not None or s.indices[0].dtype.lanes > 1:
            raise BuildError(f"{self.func.name}: vector store to {s.buffer.name} in a kernel for C")
        return f"{self.spell(s.buffer)}[{self.expr(s.indices[0])}] = {self.expr(s.value)};"
