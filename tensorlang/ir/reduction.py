"""Blocks seen as reductions, and their initialisation as a nest of its own.

A reducer of the language (`sum prod max min any all`) is recognised by its operator. One that the user made is written in
the block's annotation `reducer`: its types, how two partial results combine (associative and commutative: the user says
so), and the identity. It is data, so that it prints, parses back and is hashed:

    reducer={"name": "argmax", "types": ("i64", "f32"), "identity": "lambda: (-1, float(\"-inf\"))",
             "combine": "lambda x0, x1, y0, y1: (select(y1 <= x1, x0, y0), max(x1, y1))"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from tensorlang.errors import InternalError, TypeCheckError
from tensorlang.ir.dtype import DType, dtype as as_dtype
from tensorlang.ir.expr import Expr, add, and_, const, format_expr, load, maximum, minimum, mul, or_, var
from tensorlang.ir.parser import ParseError, parse_lambda
from tensorlang.ir.semantics import identity_of
from tensorlang.ir.stmt import Block, For, MultiStore, Stmt, Store
from tensorlang.ir.tensor_intrin import of_initialisation
from tensorlang.ir.visitor import free_vars, loads, substitute, substitute_stmt

COMBINE = {"sum": add, "prod": mul, "max": maximum, "min": minimum, "any": or_, "all": and_}
_KIND_OF_OP = {"add": "sum", "mul": "prod", "max": "max", "min": "min", "or": "any", "and": "all"}
REDUCER = "reducer"  # the annotation
CROSS_THREAD = "cross_thread"  # annotation of a loop bound to threads, whose values are combined into one element


@dataclass(frozen=True, eq=False)
class Reducer:
    """How partial results, tuples of `len(left)` values, combine: `result` is an expression of `left` and `right`.

    Attributes:
        identity: constants that `result` leaves unchanged, on either side.
    """

    name: str
    left: tuple[Expr, ...]
    right: tuple[Expr, ...]
    result: tuple[Expr, ...]
    identity: tuple[Expr, ...]

    @property
    def types(self) -> tuple[DType, ...]:
        return tuple(v.dtype for v in self.left)

    def combine(self, left: Sequence[Expr], right: Sequence[Expr]) -> tuple[Expr, ...]:
        """`left` and `right` combined."""
        mapping = {**dict(zip(self.left, left, strict=True)), **dict(zip(self.right, right, strict=True))}
        return tuple(substitute(e, mapping) for e in self.result)

    def annotation(self) -> dict[str, Any]:
        """This reducer as the value of a block's annotation."""
        spelled = {v: f"x{n}" for n, v in enumerate(self.left)} | {v: f"y{n}" for n, v in enumerate(self.right)}

        def tuple_of(items: Sequence[Expr]) -> str:
            return "(" + "".join(f"{format_expr(e, spelled.__getitem__)}, " for e in items).rstrip(" ") + ")"

        return {
            "name": self.name,
            "types": tuple(str(t) for t in self.types),
            "combine": f"lambda {', '.join(spelled.values())}: {tuple_of(self.result)}",
            "identity": f"lambda: {tuple_of(self.identity)}",
        }


def builtin_reducer(kind: str, dtype: DType) -> Reducer:
    """A reducer of the language on values of `dtype`."""
    x, y = var("x", dtype), var("y", dtype)
    return Reducer(kind, (x,), (y,), (COMBINE[kind](x, y),), (const(identity_of(kind, dtype), dtype),))


def reducer_of(annotation: Any) -> Reducer | None:
    """The reducer that an annotation describes; None where it is none."""
    if not isinstance(annotation, Mapping):
        return None
    try:
        return _parsed(annotation["name"], tuple(annotation["types"]), annotation["combine"], annotation["identity"])
    except (KeyError, TypeError, ParseError, TypeCheckError):
        return None


@lru_cache(maxsize=256)
def _parsed(name: str, types: tuple[str, ...], combine: str, identity: str) -> Reducer | None:
    elements = tuple(as_dtype(t) for t in types)
    n = len(elements)
    params, result = parse_lambda(combine, (*elements, *elements))
    _, neutral = parse_lambda(identity, ())
    found = Reducer(name, params[:n], params[n:], result, neutral)
    sound = [e.dtype for e in result] == list(elements) and [e.dtype for e in neutral] == list(elements)
    return found if sound and all(e.op == "const" for e in neutral) else None


@dataclass(frozen=True)
class Reduction:
    """A block seen as `buffer[index] = combine(buffer[index], source)`, with a tuple of buffers in general."""

    kind: str
    reducer: Reducer
    sources: tuple[Expr, ...]
    stores: tuple[Store, ...]

    @property
    def source(self) -> Expr:
        """The only source.

        Raises:
            InternalError: the reduction is one of tuples.
        """
        if len(self.sources) != 1:
            raise InternalError(f"{self.kind} reduces tuples of {len(self.sources)}")
        return self.sources[0]

    @property
    def store(self) -> Store:
        """The only store; as for `source`."""
        if len(self.stores) != 1:
            raise InternalError(f"{self.kind} reduces tuples of {len(self.stores)}")
        return self.stores[0]


def reduction_of(block: Block) -> Reduction | None:
    """`block` as a reduction, or None if it is not one."""
    if not any(it.kind == "reduce" for it in block.iters):
        return None
    stores = stores_of(block.body)
    if stores is None:
        return None
    if REDUCER in block.annotations:
        reducer = reducer_of(block.annotations[REDUCER])
        return None if reducer is None else _matched(reducer, stores)
    if len(stores) != 1:
        return None
    store = stores[0]
    value = store.value
    kind = _KIND_OF_OP.get(value.op)
    if kind is None:
        return None
    own = load(store.buffer, store.indices)
    for mine, source in (value.args, value.args[::-1]):
        if mine is own and own not in loads(source):
            return Reduction(kind, _builtin(kind, store.buffer.dtype), (source,), stores)
    return None


_builtin = lru_cache(maxsize=256)(builtin_reducer)


def _matched(reducer: Reducer, stores: tuple[Store, ...]) -> Reduction | None:
    """The sources with which `stores` are what `reducer` says; None where there are none."""
    if len(stores) != len(reducer.result) or len({s.indices for s in stores}) != 1:
        return None
    own = [load(s.buffer, s.indices) for s in stores]
    found: dict[Expr, Expr] = dict(zip(reducer.left, own, strict=True))
    work = [(pattern, s.value) for pattern, s in zip(reducer.result, stores, strict=True)]
    while work:
        pattern, value = work.pop()
        if pattern.op == "var":
            if found.setdefault(pattern, value) is not value:
                return None
        elif pattern.args:
            if (pattern.op, pattern.value, len(pattern.args)) != (value.op, value.value, len(value.args)):
                return None
            work += zip(pattern.args, value.args, strict=True)
    if any(v not in found for v in reducer.right):
        return None
    sources = tuple(found[v] for v in reducer.right)
    if any(e in own for source in sources for e in loads(source)):
        return None
    if any(e is not s.value for e, s in zip(reducer.combine(own, sources), stores, strict=True)):
        return None
    return Reduction(reducer.name, reducer, sources, stores)


def stores_of(s: Stmt | None) -> tuple[Store, ...] | None:
    """The stores of a statement that is nothing but one store or simultaneous ones; None for any other."""
    if isinstance(s, Store):
        return (s,)
    return s.stores if isinstance(s, MultiStore) else None


def store_all(stores: Sequence[Store]) -> Stmt:
    """`stores` as one statement."""
    return stores[0] if len(stores) == 1 else MultiStore(tuple(stores))


def reduce_loop_vars(block: Block) -> set[Expr]:
    """The loop variables that drive the block's reduction."""
    return {v for it in block.iters if it.kind == "reduce" for v in free_vars(it.binding)}


def init_stores(block: Block) -> tuple[Store, ...]:
    """The stores of the block's initialisation."""
    stores = stores_of(block.init)
    if stores is None:
        raise InternalError(f"the initialisation of {block.name!r} is no store")
    return stores


def init_nest(block: Block, loops: list[For], name: str) -> Stmt:
    """The initialisation of `block` over the spatial loops among `loops` (fresh copies of them), as a stage `name`.

    A loop that runs over elements and the reduction at once (two fused loops) is copied too, and initialises repeatedly.
    """
    spatial = [it for it in block.iters if it.kind == "spatial"]
    spatial_vars = {v for it in spatial for v in free_vars(it.binding)}
    copied = [of_initialisation(f) for f in loops if f.var in spatial_vars]
    renamed = {f.var: var(f.var.name) for f in copied}
    fresh = {it.var: var(it.var.name) for it in spatial}
    dropped = {f.var for f in loops} - set(renamed)
    nest: Stmt = Block(
        name,
        tuple(replace(it, var=fresh[it.var], binding=substitute(it.binding, renamed)) for it in spatial),
        substitute_stmt(store_all(init_stores(block)), fresh),
        None,
        substitute(conjuncts_free_of(block.predicate, dropped), renamed),
    )
    return wrap_loops(copied, renamed, nest)


def wrap_loops(loops: list[For], renamed: dict[Expr, Expr], body: Stmt) -> Stmt:
    """`body` inside copies of `loops` with renamed variables."""
    for f in reversed(loops):
        body = For(renamed[f.var], f.extent, f.kind, body, f.annotations)
    return body


def conjuncts_free_of(predicate: Expr, variables: set[Expr]) -> Expr:
    """The conjuncts of `predicate` that do not mention `variables`."""
    if predicate.op == "and":
        a, b = (conjuncts_free_of(p, variables) for p in predicate.args)
        return a & b
    return const(True) if free_vars(predicate) & variables else predicate


def conjuncts_on(predicate: Expr, variables: set[Expr]) -> Expr:
    """The conjuncts of `predicate` that mention `variables`: the other ones."""
    if predicate.op == "and":
        a, b = (conjuncts_on(p, variables) for p in predicate.args)
        return a & b
    return predicate if free_vars(predicate) & variables else const(True)
