"""The last entry of a grid kernel's proof: whether its barriers suffice, decided with integer sets, else tried by running."""

from __future__ import annotations

from math import prod

import numpy as np

from tensorlang.codegen.race_proof import Races, prove_no_races
from tensorlang.errors import BuildError, TensorlangError
from tensorlang.ir.races import RaceError, check_races
from tensorlang.ir.stmt import For, PrimFunc
from tensorlang.ir.visitor import walk_stmt
from tensorlang.schedule.verdict import NOT_CHECKED, ProofEntry, Verdict

MOST_ITERATIONS = 200_000  # of all loops together, up to which a program is run to look for races


def barrier_proof(func: PrimFunc) -> ProofEntry:
    """What is known of the races of a grid's program. What integer sets cannot decide is run when somebody asks for it.

    Raises:
        BuildError: two threads race.
    """
    found = prove_no_races(func)
    if found.status == "refuted":
        raise BuildError(f"{func.name} has a race: {found.reason}; bind the loops so that each element is one thread's")
    verdict = Verdict(found.status, found.reason)
    return ProofEntry("barriers", verdict, None if found.status == "proved" else lambda: _run(func, found))


def _run(func: PrimFunc, found: Races) -> Verdict:
    extents = [s.extent for s in walk_stmt(func.body) if isinstance(s, For)]
    sizes = [d for b in func.buffers for d in b.shape]
    if any(e.op != "const" for e in (*extents, *sizes)) or prod(e.value for e in extents) > MOST_ITERATIONS:
        return Verdict("unknown", found.reason, checked=f"{NOT_CHECKED}: the program is too large to run")
    arrays = [np.zeros([d.value for d in b.shape], b.dtype.numpy) for b in func.buffers]
    try:
        check_races(func, arrays)
    except RaceError as error:
        return Verdict("refuted", str(error))
    except TensorlangError as error:
        return Verdict("unknown", found.reason, checked=f"{NOT_CHECKED}: {error}")
    return Verdict("unknown", found.reason, checked="a run on zeros had no race")
