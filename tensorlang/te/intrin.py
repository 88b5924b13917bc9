"""Tensor intrinsics of the user: `te.tensor_intrin`, which joins a meaning and an instruction.

@te.compute
def dot4(a: te.u8[4], b: te.i8[16, 4]):                             the meaning: te over tiles
    k = te.reduce_axis(4, name="k")
    return te.compute((16,), lambda i: te.sum(te.cast("i32", a[k]) * te.cast("i32", b[i, k]), axis=k), name="c")

@te.tensor_intrin(dot4, requires=["avx512vnni"])
def vnni_dot4(c, a, b):                                             the instruction: Python over pointers
    hw.vstore(c, 0, hw.vpdpbusd(hw.vload(c, 0, 16), hw.vload_repeated(a, 0, 4, 16), hw.vload(b, 0, 64)))

stage.tensorize(loop, vnni_dot4)
"""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from tensorlang.codegen import intrinsics
from tensorlang.codegen.intrinsics.dtypes import SCALAR_TYPES
from tensorlang.errors import TypeCheckError
from tensorlang.ir.expr import fail
from tensorlang.ir.reduction import init_stores, reduction_of
from tensorlang.ir.stmt import PrimFunc, Store
from tensorlang.ir.tensor_intrin import Instruction, TensorIntrin, register
from tensorlang.ir.visitor import blocks, free_vars
from tensorlang.te.annotations import TensorKind
from tensorlang.te.operator import Operator
from tensorlang.te.verify_intrin import verify_intrinsic

Function = Callable[..., Any]
_VOCABULARY: dict[int, str] = {id(getattr(intrinsics, n)): n for n in intrinsics.__all__}
_PYTHON = ("range", "len")
_DECORATED: Any = object()


def tensor_intrin(
    meaning: Operator | PrimFunc,
    instruction: Function | None = _DECORATED,
    *,
    name: str | None = None,
    reset: Function | None = None,
    body: Function | None = None,
    around: tuple[Function, Function] | None = None,
    requires: Sequence[str] = (),
    rtol: float | None = None,
) -> Any:
    """Declare a tensor intrinsic for `stage.tensorize`; without `instruction`, a decorator of it.

    Args:
        meaning: a `@te.compute` function (or a loop nest) of one stage, over tiles. Dimensions are constants or names, whose
            values the instruction may take.
        instruction: a Python function in the vocabulary of `te.instructions`. Its parameters are found by name: a tensor's
            (a pointer to the tile's first element), `a_stride0` (the distance of neighbours of `a` along dimension 0, in
            elements), a dimension's. A dimension whose stride is not taken is contiguous. For a reduction it accumulates
            into the output (the update); otherwise it writes it. None: the meaning itself, as loops. Where the schedule asks
            for `a` ahead (`prefetch` with `over=` a loop of the tile), `a_ahead` is how far on what is asked for lies, and
            `a_turn` of `a_turns` tiles in a row each ask for a share of it; `a_turns` is 0 where nothing is.
        name: what `tensorize` and traces call it; the instruction's own name by default.
        reset: for a reduction, writes the initial value; by default plain loops do.
        body: for a reduction, initialises and accumulates at once: used where the tile holds the whole reduction. With
            `instruction=None` and no `reset`, the only part.
        around: functions of dimensions, which a thread calls once before any number of tiles of one size, and once after them:
            they prepare a unit of the machine.
        requires: LLVM names of CPU features that all parts need, e.g. "avx512vnni".
        rtol: how far floating-point results may be from the meaning's, relative to the largest; by default that of the type.

    Raises:
        TypeCheckError: the meaning is not one stage, or the function uses a name that no instruction knows.
    """
    if instruction is _DECORATED:

        def decorate(function: Function) -> TensorIntrin:
            return _declare(meaning, function, name, reset, body, around, requires, rtol)

        return decorate
    return _declare(meaning, instruction, name, reset, body, around, requires, rtol)


def _declare(
    meaning: Operator | PrimFunc,
    instruction: Function | None,
    name: str | None,
    reset: Function | None,
    body: Function | None,
    around: tuple[Function, Function] | None,
    requires: Sequence[str],
    rtol: float | None,
) -> TensorIntrin:
    program = meaning.prim_func() if isinstance(meaning, Operator) else meaning
    if not isinstance(program, PrimFunc):
        fail(f"te.tensor_intrin: the meaning is a @te.compute function or a loop nest, not {type(meaning).__name__}")
    found = name or getattr(instruction or body, "__name__", None) or program.name
    reduces = _check_meaning(found, program)
    parts: dict[str, Instruction | None] = {}
    if not reduces:
        if reset is not None or (body is not None and instruction is not None):
            fail(f"te.tensor_intrin {found}: reset and body are parts of reductions, and {program.name} is none")
        parts["body"] = _instruction(instruction or body, program, found) if instruction or body else None
    else:
        if instruction is not None or body is None:
            parts["update"] = _instruction(instruction, program, found) if instruction else None
        if body is not None:
            parts["body"] = _instruction(body, program, found)
        if reset is not None:
            parts["reset"] = _instruction(reset, program, found, only_output=True)
    prepared = tuple(_instruction(f, program, found, only_sizes=True) for f in around or ())
    return register(TensorIntrin(found, program, parts, tuple(requires), prepared, lambda i: verify_intrinsic(i, rtol)))


def _check_meaning(name: str, program: PrimFunc) -> bool:
    """Whether the meaning is a reduction."""
    stages = blocks(program.body)
    if len(stages) != 1 or len(program.outputs) != 1 or not isinstance(stages[0].body, Store):
        fail(
            f"te.tensor_intrin {name}: the meaning has to be one stage with one output; {program.name} has {len(stages)}"
        )
    for b in program.buffers:
        for d in b.shape:
            if d.op not in ("const", "var"):
                fail(f"te.tensor_intrin {name}: dimension {d} of {b.name} is neither a number nor a name")
    block = stages[0]
    if block.init is None:
        return False
    if reduction_of(block) is None or len(init_stores(block)) != 1:
        fail(f"te.tensor_intrin {name}: {block.name} is not a reduction of one value")
    return True


def _instruction(
    function: Function | None, program: PrimFunc, name: str, only_output: bool = False, only_sizes: bool = False
) -> Instruction:
    if not inspect.isfunction(function):
        fail(f"te.tensor_intrin {name}: an instruction is a Python function, not {type(function).__name__}")
    code = function.__code__
    source = f"{code.co_filename.rsplit('/', 1)[-1]}:{code.co_firstlineno}"
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, SyntaxError) as error:
        raise TypeCheckError(
            f"{source}: te.tensor_intrin {name}: the source of {function.__name__} cannot be read: {error}"
        ) from None
    definition = tree.body[0]
    if not isinstance(definition, ast.FunctionDef):
        fail(f"te.tensor_intrin {name}: write the instruction as a def, not as a lambda")
    known = _parameters(program, only_output, only_sizes)
    params = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD or parameter.name not in known:
            fail(
                f"te.tensor_intrin {name}: {function.__name__} takes {parameter}; an instruction of {program.name} may take "
                + ", ".join(known)
            )
        params.append((known[parameter.name], parameter.name))
    needed = [n for n in known if not re.search(r"_(stride\d+|ahead|turns?)$", n) and n not in {p for _, p in params}]
    if needed and not only_sizes:
        fail(
            f"te.tensor_intrin {name}: {function.__name__} does not take {needed[0]}; "
            "it has to take every tensor and every size"
        )
    own = {n for _, n in params} | {
        n.id for n in ast.walk(definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    resolver = _Resolver(function, own, f"{source}: te.tensor_intrin {name}: {function.__name__}")
    statements = [resolver.visit(s) for s in definition.body if not _is_docstring(s)]
    text = "\n".join(ast.unparse(ast.fix_missing_locations(s)) for s in statements) or "pass"
    return Instruction(tuple(params), textwrap.indent(text, "    "), source, resolver.native_only)


def _parameters(program: PrimFunc, only_output: bool, only_sizes: bool) -> dict[str, str]:
    """What an instruction may take: the type of each name."""
    known: dict[str, str] = {}
    tensors = program.outputs if only_output else (*program.outputs, *program.inputs)
    for b in () if only_sizes else tensors:
        known[b.name] = f"{b.dtype}*"
        known.update({f"{b.name}_stride{d}": "i64" for d in range(b.ndim)})
        if b not in program.outputs:
            known.update({f"{b.name}_{hint}": "i64" for hint in ("ahead", "turn", "turns")})
    sizes = {v for b in tensors for d in b.shape for v in free_vars(d)}
    known.update({v.name: "i64" for v in program.size_vars if v in sizes})
    return known


def _is_docstring(s: ast.stmt) -> bool:
    return isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) and isinstance(s.value.value, str)


class _Resolver(ast.NodeTransformer):
    """Names from outside of the function become words of the vocabulary, or numbers."""

    def __init__(self, function: Function, own: set[str], where: str):
        self.own, self.where = own, where
        self.native_only = False
        closure = inspect.getclosurevars(function)
        self.outside: dict[str, Any] = {**closure.builtins, **closure.globals, **closure.nonlocals}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.own or not isinstance(node.ctx, ast.Load):
            return node
        if node.id in _PYTHON and self.outside.get(node.id) is getattr(builtins, node.id):
            return node
        if node.id not in self.outside:
            raise TypeCheckError(f"{self.where}: {node.id} is not defined")
        return self.value(node, self.outside[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self.value(node, self.evaluate(node))

    def evaluate(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Attribute):
            return getattr(self.evaluate(node.value), node.attr, None)
        if isinstance(node, ast.Name) and node.id not in self.own and node.id in self.outside:
            return self.outside[node.id]
        raise TypeCheckError(
            f"{self.where}: {ast.unparse(node)} is nothing that an instruction knows; see te.instructions"
        )

    def value(self, node: ast.expr, found: Any) -> ast.expr:
        if isinstance(found, TensorKind):
            found = SCALAR_TYPES.get(str(found), found)
        if id(found) in _VOCABULARY:
            self.native_only = self.native_only or found is intrinsics.llvm_call
            return ast.Name(_VOCABULARY[id(found)], ast.Load())
        if isinstance(found, bool | int | float):
            return ast.Constant(found)
        raise TypeCheckError(
            f"{self.where}: {ast.unparse(node)} is nothing that an instruction knows; see te.instructions"
        )
