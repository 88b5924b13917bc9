"""A program as plain Python source for `interp`: one assignment per operation, so depth and sharing cost nothing.

    out[vi] = max(y[vi], 0.0)   ->   if not 0 <= v2 < b1_0: R.fail(3, (v2,), (v0, v2))
                                     t4 = b1[v2]
                                     t5 = t4 if t4 > c0 or t4 != t4 else c0
                                     b2[v2] = t5

Integers and booleans are Python's, kept in the range of their type; floating-point scalars are NumPy's of their own type;
vectors are NumPy arrays. The arms of a `select` are suites of their own: only the chosen one runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensorlang.errors import InternalError
from tensorlang.ir.buffer import Buffer
from tensorlang.ir.dtype import DType
from tensorlang.ir.expr import BINARY, COMPARE, Expr, const
from tensorlang.ir.intrinsics import BARRIER, COMMIT, INTRINSICS, LAUNCH, WAIT
from tensorlang.ir.reduction import CROSS_THREAD
from tensorlang.ir.stmt import Allocate, Block, CallPacked, Evaluate, For, If, MultiStore, PrimFunc, Seq, Stmt, Store
from tensorlang.ir.tensor_intrin import find_part

MAX_BLOCKS = 15  # CPython refuses 20 nested loops in one function
SIZE_BITS = 40  # loop variables and sizes stay below 2**40: index arithmetic on them needs no wrapping
_BITWISE = {"bitwise_and": "&", "bitwise_or": "|", "bitwise_xor": "^"}


@dataclass(frozen=True)
class Variant:
    """What the generated code does besides computing."""

    check_bounds: bool
    reorder: bool
    trace: bool


@dataclass(frozen=True)
class Site:
    """An access in the program: what an error message needs to know."""

    buffer: Buffer
    block: str | None
    variables: tuple[Expr, ...]


def python_source(func: PrimFunc, variant: Variant) -> tuple[str, dict[str, Any], list[Site]]:
    """Source of `kernel(R, *buffers, *sizes)`, the constants that it names, and its access sites."""
    return _Source(func, variant).run()


class _Source:
    def __init__(self, func: PrimFunc, variant: Variant):
        self.func, self.variant = func, variant
        self.lines: list[str] = []
        self.depth = 1
        self.serial = 0
        self.blocks = 0
        self.globals: dict[str, Any] = {}
        self.constants: dict[Expr, str] = {}
        self.names: dict[Expr | Buffer, str] = {}
        self.sites: list[Site] = []
        self.scopes: list[dict[Expr, str]] = [{}]
        self.mask: str | None = None
        self.block: str | None = None
        self.env: list[Expr] = []
        self.bits_of: dict[Expr, int] = {}

    def run(self) -> tuple[str, dict[str, Any], list[Site]]:
        params = [*(self.name(b, "b") for b in self.func.buffers), *(self.name(v, "n") for v in self.func.size_vars)]
        self.lines.append(f"def kernel({', '.join(['R', *params])}):")
        for b in self.func.buffers:
            self.shape_locals(b)
        self.stmt(self.func.body)
        return "\n".join(self.lines) + "\n    return\n", self.globals, self.sites

    # -- text ------------------------------------------------------------------------------------------------------
    def line(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def fresh(self, prefix: str) -> str:
        self.serial += 1
        return f"{prefix}{self.serial}"

    def name(self, thing: Expr | Buffer, prefix: str) -> str:
        self.names[thing] = self.fresh(prefix)
        return self.names[thing]

    def assign(self, e: Expr, text: str) -> None:
        name = self.fresh("t")
        self.line(f"{name} = {text}")
        self.scopes[-1][e] = name

    def bind(self, stem: str, value: Any) -> str:
        """A global of the generated code."""
        self.globals.setdefault(stem, value)
        return stem

    def numpy_type(self, dtype: DType) -> str:
        return self.bind(f"np_{dtype.name}", dtype.numpy.type)

    def dtype(self, dtype: DType) -> str:
        return self.bind(f"dt_{dtype.name}", dtype.scalar)

    @contextmanager
    def suite(self, header: str) -> Iterator[None]:
        """An indented suite; values computed in it are not known after it."""
        self.line(header)
        self.depth += 1
        before = len(self.lines)
        self.scopes.append({})
        yield
        self.scopes.pop()
        if len(self.lines) == before:
            self.line("pass")
        self.depth -= 1

    @contextmanager
    def masked(self, mask: str | None) -> Iterator[None]:
        outer, self.mask = self.mask, mask
        yield
        self.mask = outer

    def shape_locals(self, b: Buffer) -> None:
        if b.ndim:
            name = self.names[b]
            self.line(f"{', '.join(f'{name}_{d}' for d in range(b.ndim))}, = {name}.shape")

    # -- statements ------------------------------------------------------------------------------------------------
    def stmt(self, s: Stmt) -> None:
        outer, self.scopes = self.scopes, [{}]  # what an earlier statement read may have been overwritten since
        self.one_stmt(s)
        self.scopes = outer

    def one_stmt(self, s: Stmt) -> None:
        if isinstance(s, Seq):
            for c in s.stmts:
                self.stmt(c)
        elif isinstance(s, For):
            self.loop(s)
        elif isinstance(s, Block):
            self.run_block(s)
        elif isinstance(s, Allocate):
            shape = "".join(f"{self.value(d)}, " for d in s.buffer.shape)
            self.line(f"{self.name(s.buffer, 'b')} = R.allocate(({shape}), {self.dtype(s.buffer.dtype)})")
            self.shape_locals(s.buffer)
            self.stmt(s.body)
        elif isinstance(s, If):
            self.conditional(s)
        elif isinstance(s, Store):
            self.store(s)
        elif isinstance(s, MultiStore):
            for commit in [self.evaluated_store(t) for t in s.stores]:
                self.line(commit)
        elif isinstance(s, CallPacked):
            shapes = iter(s.shapes or [b.shape for b in s.buffers])
            args = [self.array(a, next(shapes)) if isinstance(a, Buffer) else self.value(a) for a in s.args]
            outputs = _tuple(str(n) for n, a in enumerate(s.args) if a in s.outputs)
            self.line(f"R.call_packed({s.name!r}, {_tuple(args)}, {outputs})")
        elif isinstance(s, Evaluate):
            if s.expr.op == "call" and s.expr.value in (BARRIER, LAUNCH, COMMIT):
                self.line(f"R.synchronise({s.expr.value!r})")
            elif s.expr.op == "call" and s.expr.value == WAIT:
                self.line(f"R.synchronise({f'{WAIT} {s.expr.args[0].value}'!r})")
            elif s.expr.op == "call" and s.expr.value not in INTRINSICS:
                if find_part(s.expr.value) is not None:
                    self.tensor_call(s.expr)
                    return
                raise InternalError(f"{self.func.name}: the interpreter does not know what {s.expr} does")
            else:
                self.value(s.expr)

    def tensor_call(self, e: Expr) -> None:
        """A tensor intrinsic: a tensor is passed as its buffer's array and the index of the tile's first element."""
        args = []
        for a in e.args:
            if a.op == "load" and a.value.align and a.value.ndim > 1:
                why = f"{a.value.name} is padded in memory, and here it is not; flatten first"
                raise InternalError(f"{self.func.name}: {e}: {why}")
            index = _tuple(self.value(i) for i in a.args) if a.op == "load" else ""
            args.append(f"({self.names[a.value]}, {index})" if a.op == "load" else self.value(a))
        self.line(f"R.tensor_call({e.value!r}, {_tuple(args)})")

    def loop(self, s: For) -> None:
        if self.blocks >= MAX_BLOCKS:
            outer, self.blocks = self.blocks, 0
            name = self.fresh("f")
            with self.suite(f"def {name}():"):
                self.loop(s)
            self.line(f"{name}()")
            self.blocks = outer
            return
        extent = self.value(s.extent)
        combined = CROSS_THREAD in s.annotations  # into one element, which the first iteration initialises
        shuffled = self.variant.reorder and s.kind not in ("serial", "unrolled") and not combined
        self.blocks += 1
        self.env.append(s.var)
        with self.suite(f"for {self.name(s.var, 'v')} in {'R.order' if shuffled else 'range'}({extent}):"):
            self.stmt(s.body)
        self.env.pop()
        self.blocks -= 1

    def run_block(self, s: Block) -> None:
        outer, self.block = self.block, s.name
        if s.predicate.op == "const" and s.predicate.value:
            self.block_body(s)
        else:
            with self.suite(f"if {self.value(s.predicate)}:"):
                self.block_body(s)
        self.block = outer

    def block_body(self, s: Block) -> None:
        values = [self.value(it.binding) for it in s.iters]
        for it, value in zip(s.iters, values, strict=True):
            self.line(f"{self.name(it.var, 'v')} = {value}")
        self.env.extend(it.var for it in s.iters)
        if s.init is not None:
            reduced = [f"{self.names[it.var]} == 0" for it in s.iters if it.kind == "reduce"]
            with self.suite(f"if {' and '.join(reduced) or 'True'}:"):
                self.stmt(s.init)
        self.stmt(s.body)
        del self.env[len(self.env) - len(s.iters) :]

    def conditional(self, s: If) -> None:
        cond = self.value(s.cond)
        arms = [(s.then, "if {}:"), (s.else_, "else:")]
        if s.cond.dtype.lanes == 1:
            for body, header in arms:
                if body is not None:
                    with self.suite(header.format(cond)):
                        self.stmt(body)
            return
        for (body, _), inverse in zip(arms, ("", "~"), strict=True):
            if body is not None:
                mask = self.both(f"{inverse}{cond}")
                with self.suite(f"if {mask}.any():"), self.masked(mask):
                    self.stmt(body)

    def both(self, mask: str) -> str:
        """`mask` where the mask around it holds too."""
        name = self.fresh("m")
        self.line(f"{name} = {mask}" + (f" & {self.mask}" if self.mask else ""))
        return name

    def array(self, b: Buffer, shape: tuple[Expr, ...]) -> str:
        return f"R.array({self.names[b]}, {_tuple(map(self.value, shape))})"

    def store(self, s: Store) -> None:
        self.line(self.evaluated_store(s))

    def evaluated_store(self, s: Store) -> str:
        """The line that writes the element, after the lines that compute its index and value."""
        value = self.value(s.value)
        index = [self.value(i) for i in s.indices]
        buffer = self.names[s.buffer]
        if any(i.dtype.lanes > 1 for i in s.indices):
            site = self.site(s.buffer)
            return f"R.vector_store({site}, {buffer}, {_tuple(index)}, {value}, {self.mask}, {self.env_values()})"
        if self.mask is not None:
            raise InternalError(f"{self.func.name}: one element is stored under a vector condition: {s}")
        self.check("write", s.buffer, index)
        return f"{buffer}[{', '.join(index) or '()'}] = {value}"

    def site(self, b: Buffer) -> int:
        self.sites.append(Site(b, self.block, tuple(self.env)))
        return len(self.sites) - 1

    def env_values(self) -> str:
        return _tuple(self.names[v] for v in self.env)

    def check(self, kind: str, b: Buffer, index: list[str]) -> None:
        if b not in self.names:
            raise InternalError(f"{self.func.name}: buffer {b.name} is used where it does not exist")
        if not (self.variant.check_bounds or self.variant.trace):
            return
        site = self.site(b)
        if self.variant.check_bounds and index:
            inside = " and ".join(f"0 <= {i} < {self.names[b]}_{d}" for d, i in enumerate(index))
            self.line(f"if not ({inside}): R.fail({kind!r}, {site}, {_tuple(index)}, {self.names[b]}, {self.env_values()})")
        if self.variant.trace:
            self.line(f"R.access({kind!r}, {site}, {_tuple(index)}, {self.env_values()})")

    # -- expressions -----------------------------------------------------------------------------------------------
    def known(self, e: Expr) -> str | None:
        if e.op == "const":
            return self.constant(e)
        if e.op == "var":
            if e not in self.names:
                raise InternalError(f"{self.func.name}: variable {e.name} is used where it does not exist")
            return self.names[e]
        for scope in reversed(self.scopes):
            if e in scope:
                return scope[e]
        return None

    def value(self, e: Expr) -> str:
        """A name or literal that holds `e`; emits what computes it."""
        stack = [(e, False)]
        while stack:
            node, operands_done = stack.pop()
            if self.known(node) is not None:
                continue
            if operands_done:
                self.operation(node)
                continue
            stack.append((node, True))
            operands = node.args[:1] if node.op == "select" else node.args  # the arms are evaluated lazily
            stack.extend((a, False) for a in reversed(operands))
        return self.known(e) or ""

    def constant(self, e: Expr) -> str:
        if e.dtype.lanes == 1 and not e.dtype.is_float:
            return repr(e.value) if e.value >= 0 else f"({e.value!r})"
        if e not in self.constants:
            scalar = e.dtype.numpy.type(e.value)
            held = scalar if e.dtype.lanes == 1 else np.full(e.dtype.lanes, scalar)
            self.constants[e] = self.bind(f"c{len(self.constants)}", held)
        return self.constants[e]

    def operation(self, e: Expr) -> None:
        if e.op == "select":
            self.select(e)
        elif e.op == "load":
            self.load(e)
        elif e.op == "reduce":
            raise InternalError(f"{self.func.name}: a reduction is no scalar expression: {e}")
        else:
            args = [self.known(a) or "" for a in e.args]
            self.assign(e, self.vector(e, args) if e.dtype.lanes > 1 else self.scalar(e, args))

    def load(self, e: Expr) -> None:
        b: Buffer = e.value
        index = [self.known(i) or "" for i in e.args]
        if e.dtype.lanes > 1:
            if b not in self.names:
                raise InternalError(f"{self.func.name}: buffer {b.name} is used where it does not exist")
            where = f"{self.site(b)}, {self.names[b]}, {_tuple(index)}"
            self.assign(e, f"R.vector_load({where}, {self.mask}, {self.env_values()})")
            return
        self.check("read", b, index)
        if b.dtype.is_float:
            self.assign(e, f"{self.names[b]}[{', '.join(index) or '()'}]")
        else:
            self.assign(e, f"{self.names[b]}.item({', '.join(index)})")

    def select(self, e: Expr) -> None:
        if e.args[0].dtype.lanes > 1:
            self.vector_select(e)
            return
        # A chain of selects in the other arm is flattened, for Python's depth of indentation is limited.
        result, state = self.fresh("t"), self.fresh("s")
        node, step = e, 0
        self.line(f"{state} = 0")
        while True:
            with self.suite(f"if {state} == {step}:"):
                cond = self.value(node.args[0])
                with self.suite(f"if {cond}:"):
                    self.line(f"{result} = {self.value(node.args[1])}")
                with self.suite("else:"):
                    other = node.args[2]
                    chained = other.op == "select" and other.args[0].dtype.lanes == 1 and self.known(other) is None
                    self.line(f"{state} = {step + 1}" if chained else f"{result} = {self.value(other)}")
            if not chained:
                break
            node, step = other, step + 1
        self.scopes[-1][e] = result

    def vector_select(self, e: Expr) -> None:
        cond = self.known(e.args[0])
        results = []
        for arm, inverse in zip(e.args[1:], ("", "~"), strict=True):
            mask, result = self.both(f"{inverse}{cond}"), self.fresh("t")
            self.line(f"{result} = {self.constant(const(0, e.dtype.scalar))}")
            with self.suite(f"if {mask}.any():"), self.masked(mask):
                self.line(f"{result} = {self.value(arm)}")
            results.append(result)
        self.assign(e, f"R.blend({cond}, {results[0]}, {results[1]}, {self.dtype(e.dtype)})")

    # -- scalars ---------------------------------------------------------------------------------------------------
    def scalar(self, e: Expr, args: list[str]) -> str:
        op = e.op
        if op in ("add", "sub", "mul", "floordiv", "floormod"):
            a, b = args
            if not e.dtype.is_int and op in ("floordiv", "floormod"):
                return f"{self.bind('np', np)}.{'floor_divide' if op == 'floordiv' else 'remainder'}({a}, {b})"
            text = f"{a} {BINARY[op]} {b}"
            return self.wrapped(e, text) if e.dtype.is_int else text
        if op == "div":
            return f"{args[0]} / {args[1]}"
        if op in ("min", "max"):
            a, b = args
            nan = f" or {a} != {a}" if e.dtype.is_float else ""
            return f"{a} if {a} {'<' if op == 'min' else '>'} {b}{nan} else {b}"
        if op in COMPARE:
            return f"{args[0]} {COMPARE[op]} {args[1]}"
        if op == "neg":
            return f"-{args[0]}" if e.dtype.is_float else self.wrapped(e, f"-{args[0]}")
        if op in ("and", "or"):
            return f"{args[0]} {op} {args[1]}"
        if op == "not":
            return f"not {args[0]}"
        if op == "cast":
            return self.cast(e.args[0].dtype, e.dtype, args[0])
        if op == "call":
            return self.call(e, args)
        raise InternalError(f"{self.func.name}: no meaning for {op} in {e}")

    def cast(self, frm: DType, to: DType, x: str) -> str:
        if to.is_bool:
            return f"{x} != 0"
        if to.is_int:
            if frm.is_bool:
                return f"int({x})"
            if frm.is_float:
                return f"R.float_to_int({x}, {self.dtype(to)})"
            fits = frm.bits < to.bits and (frm.kind == "u" or to.kind == "i")
            return x if fits else _wrap_text(x, to)
        if frm.is_float or frm.is_bool:
            return f"{self.numpy_type(to)}({x})"
        if frm.bits <= 32 and to.name in ("f32", "f64"):
            return f"{self.numpy_type(to)}({x})"
        return f"R.cast({self.numpy_type(frm)}({x}), {self.dtype(to)})"

    def call(self, e: Expr, args: list[str]) -> str:
        if e.value not in INTRINSICS:
            raise InternalError(f"{self.func.name}: unknown intrinsic {e.value}")
        operand = e.args[0].dtype
        if operand.is_float and operand.name != "bf16":
            function = self.bind(f"fn_{e.value}", INTRINSICS[e.value].numpy)
            as_type = "bool" if e.dtype.is_bool else "int" if e.dtype.is_int else self.numpy_type(e.dtype)
            return f"{as_type}({function}({', '.join(args)}))"
        if e.value in _BITWISE and operand.is_int:
            return f"{args[0]} {_BITWISE[e.value]} {args[1]}"
        typed = (f"{self.numpy_type(a.dtype)}({x})" for a, x in zip(e.args, args, strict=True))
        text = f"R.call({e.value!r}, {self.dtype(e.dtype)}, {_tuple(typed)})"
        return text if e.dtype.is_float else f"{text}.item()"

    def wrapped(self, e: Expr, text: str) -> str:
        fits = e.dtype.kind == "i" and self.bits(e) < e.dtype.bits
        return text if fits else _wrap_text(text, e.dtype)

    def bits(self, e: Expr) -> int:
        """A bound of log2 of the magnitude of a signed integer expression, before wrapping to its type."""
        if e not in self.bits_of:
            self.bits_of[e] = self.raw_bits(e)
        return self.bits_of[e]

    def raw_bits(self, e: Expr) -> int:
        whole = e.dtype.bits - 1

        def of(x: Expr) -> int:
            return min(self.bits(x), x.dtype.bits - 1)

        if e.op == "const":
            return int(e.value).bit_length()
        if e.op == "var":
            return min(SIZE_BITS, whole)
        if e.op in ("add", "sub"):
            return max(map(of, e.args)) + 1
        if e.op == "mul":
            return sum(map(of, e.args))
        if e.op == "floordiv":
            return of(e.args[0]) + 1
        if e.op == "floormod":
            return of(e.args[1])
        if e.op in ("min", "max"):
            return max(map(of, e.args))
        if e.op == "cast" and e.args[0].dtype.kind == "i":
            return min(of(e.args[0]), whole)
        return whole

    # -- vectors ---------------------------------------------------------------------------------------------------
    def vector(self, e: Expr, args: list[str]) -> str:
        op, lanes = e.op, e.dtype.lanes
        if op == "broadcast":
            return f"R.broadcast({args[0]}, {lanes}, {self.dtype(e.dtype)})"
        if op == "ramp":
            iota = self.bind(f"iota_{e.dtype}", np.arange(lanes, dtype=e.dtype.numpy))
            return f"{iota} * {args[1]} + {args[0]}"
        if op == "neg":
            return f"-{args[0]}"
        if op == "not":
            return f"~{args[0]}"
        if op == "cast":
            return f"R.cast({args[0]}, {self.dtype(e.dtype)})"
        if op == "call":
            if e.value not in INTRINSICS:
                raise InternalError(f"{self.func.name}: unknown intrinsic {e.value}")
            typed = (x if a.dtype.lanes > 1 else f"{self.numpy_type(a.dtype)}({x})" for a, x in zip(e.args, args, strict=True))
            return f"R.call({e.value!r}, {self.dtype(e.dtype)}, {_tuple(typed)})"
        if op in ("floordiv", "floormod") and e.dtype.is_int:
            return f"R.int_divide({op!r}, {args[0]}, {args[1]}, {self.mask})"
        return f"R.binary({op!r}, {args[0]}, {args[1]})"


def _tuple(items: Iterable[str]) -> str:
    return "(" + "".join(f"{i}, " for i in items) + ")"


def _wrap_text(text: str, dtype: DType) -> str:
    mask = (1 << dtype.bits) - 1
    if dtype.kind == "u":
        return f"({text}) & {mask}"
    half = 1 << (dtype.bits - 1)
    return f"(({text}) + {half} & {mask}) - {half}"
