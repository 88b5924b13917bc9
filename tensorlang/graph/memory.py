"""Memory planning: where in one arena each intermediate lives, so that those alive at the same time never overlap.

    size 256 live [0, 2]      offset 0           sizes in bytes; a piece of memory is live from its first to its last step,
    size 128 live [1, 3]  ->  offset 256         both included
    size 200 live [3, 4]      offset 0

Symbolic sizes are planned by kind: 4*N*H and 512*N*H are 4 and 512 units of N*H. Within one kind the plan is that of the
constant units, so it holds for every value of N and H; the kinds lie one behind the other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import gcd

from tensorlang.ir.expr import Expr, add, const, mul, wrap
from tensorlang.symbolic.affine import ONE, Monomial, build, polynomial

ALIGNMENT = 64


@dataclass(frozen=True)
class Request:
    """One piece of memory.

    Attributes:
        key: whatever names it.
        nbytes: its size, at least 0; an expression of the model's dimensions.
        first, last: the steps between which it must keep its contents, both included.
    """

    key: Hashable
    nbytes: Expr
    first: int
    last: int


@dataclass(frozen=True)
class Plan:
    """Offsets in bytes by key, each a multiple of 64, and the size of the arena."""

    offsets: dict[Hashable, Expr]
    nbytes: Expr


def plan_memory(requests: Sequence[Request]) -> Plan:
    """Place every request.

    Greedy by size: the largest first, each into the smallest gap that is free for its whole life. Pisarchyk & Lee,
    "Efficient Memory Management for Deep Neural Net Inference", 2020.
    """
    kinds: dict[tuple[tuple[Monomial, int], ...], list[tuple[Request, int]]] = {}
    for request in requests:
        units, kind = _units(request.nbytes)
        kinds.setdefault(kind, []).append((request, units))
    offsets: dict[Hashable, Expr] = {}
    base: Expr = const(0)
    constant = ((ONE, 1),)
    for kind in sorted(kinds, key=lambda k: k != constant):  # constants first; the rest in order of appearance
        unit = build(dict(kind))
        placed, total = _place(kinds[kind])
        for request, _ in kinds[kind]:
            offsets[request.key] = add(base, mul(placed[request.key], unit))
        base = add(base, mul(total, unit))
    return Plan(offsets, base)


def _units(nbytes: Expr) -> tuple[int, tuple[tuple[Monomial, int], ...]]:
    """`nbytes` as (units, primitive polynomial), where nbytes == units * polynomial."""
    terms = polynomial(wrap(nbytes))
    if not terms:
        return 0, ((ONE, 1),)
    common = gcd(*terms.values())
    return common, tuple(sorted(((m, c // common) for m, c in terms.items()), key=lambda t: _order(t[0])))


def _order(monomial: Monomial) -> list[str]:
    return [str(atom) for atom in monomial]


def _place(requests: Sequence[tuple[Request, int]]) -> tuple[dict[Hashable, int], int]:
    """Offsets in units, each a multiple of 64, and their total: a whole number of units is then aligned in bytes too."""
    placed: list[tuple[int, int, Request]] = []  # (begin, end, request), by begin
    offsets: dict[Hashable, int] = {}
    total = 0
    for request, units in sorted(requests, key=lambda r: (-r[1], r[0].first, r[0].last)):
        size = -(-units // ALIGNMENT) * ALIGNMENT
        best, best_gap, free_from = -1, -1, 0
        for begin, end, other in placed:
            if other.last < request.first or request.last < other.first:
                continue
            gap = begin - free_from
            if gap >= size and (best < 0 or gap < best_gap):
                best, best_gap = free_from, gap
            free_from = max(free_from, end)
        offset = best if best >= 0 else free_from
        offsets[request.key] = offset
        if size:
            placed.append((offset, offset + size, request))
            placed.sort(key=lambda p: p[:2])
        total = max(total, offset + size)
    return offsets, total
