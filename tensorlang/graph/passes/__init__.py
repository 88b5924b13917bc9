"""Layer 6: what is done to a graph before it is compiled, as one list that can be read aloud.

graph = optimize(graph)          # the passes of PIPELINE, in order
groups = fuse(graph)             # kernels
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from tensorlang.config import Settings
from tensorlang.graph.ir import Graph
from tensorlang.graph.passes.bodies import bodies
from tensorlang.graph.passes.context import Context, Note, Options
from tensorlang.graph.passes.cse import cse
from tensorlang.graph.passes.dce import dce
from tensorlang.graph.passes.flatten import flatten
from tensorlang.graph.passes.fold_affine import fold_affine
from tensorlang.graph.passes.fold_constants import fold_constants
from tensorlang.graph.passes.fuse import fuse
from tensorlang.graph.passes.group import Group
from tensorlang.graph.passes.half_products import half_products
from tensorlang.graph.passes.half_storage import half_storage
from tensorlang.graph.passes.integers import integers
from tensorlang.graph.passes.layout import layout
from tensorlang.graph.passes.merge_groups import merge_groups
from tensorlang.graph.passes.patches import patches
from tensorlang.graph.passes.phases import phases
from tensorlang.graph.passes.recognise import recognise
from tensorlang.graph.passes.simplify import simplify
from tensorlang.graph.passes.winograd import winograd

Pass = Callable[[Graph, Context], Graph]

PIPELINE: tuple[Pass, ...] = (
    dce,  # first: nothing below looks at dead nodes
    integers,  # before simplify, which makes floats of quantised constants
    simplify,  # with constant folding
    cse,  # before recognise, whose patterns want one node for one value
    recognise,  # before fold_affine, which would take such compositions apart
    fold_affine,  # while convolutions are channels-second, as models have them
    patches,  # before layout, which carries its transpositions to where they cost least
    phases,  # before layout, as patches
    merge_groups,  # also of the convolutions that phases makes
    layout,
    winograd,  # on channels-last images, with a bias still inside the convolution
    flatten,  # after layout: a pointwise convolution is a product only if channels are last
    half_products,  # when every product has its final form
    cse,  # layouts, views and roundings of one value made for several readers
    half_storage,  # after cse: readers have conversions of their own, each computed where it is read
)


def optimize(graph: Graph, options: Options | None = None, context: Context | None = None) -> Graph:
    """`graph` as the compiler wants it: an equal function, ready for `fuse`.

    Args:
        context: gives the caller the report: afterwards `context.notes` says what every pass did and why.

    With TENSORLANG_DUMP set, the graph is written there before and after every pass that changed it.
    """
    context = context or Context(options or Options())
    folder = Settings.from_env().dump_dir
    _dump(folder, graph, 0, "input")
    for position, step in enumerate(PIPELINE, 1):
        graph = run_pass(step, graph, context, folder, position)
    return bodies(graph, context, lambda body, inner: optimize(body, context=inner))


def run_pass(step: Pass, graph: Graph, context: Context, folder: Path | None = None, position: int = 0) -> Graph:
    """One pass, named in the report, timed (`context.seconds`), and dumped into `folder` if it changed the graph."""
    context.pass_name = step.__name__
    begin = time.perf_counter()
    after = step(graph, context)
    context.seconds[step.__name__] = context.seconds.get(step.__name__, 0.0) + time.perf_counter() - begin
    if after is not graph:
        _dump(folder, after, position, step.__name__)
    return after


def graph_report(context: Context) -> list[str]:
    """What the passes did, a line each."""
    return [str(note) for note in context.notes]


def _dump(folder: Path | None, graph: Graph, position: int, name: str) -> None:
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    model = re.sub(r"\W+", "_", graph.name)[:80] or "main"
    (folder / f"{model}.graph.{position:02d}.{name}.txt").write_text(f"{graph}\n")


__all__ = [
    "PIPELINE", "Context", "Group", "Note", "Options", "Pass", "cse", "dce", "flatten", "fold_affine", "fold_constants", "fuse",
    "graph_report", "integers", "layout", "merge_groups", "optimize", "patches", "phases", "recognise", "run_pass", "simplify",
    "winograd",
]  # fmt: skip
