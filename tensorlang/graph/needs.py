"""What targets and code generators need on this machine, for `tensorlang doctor`."""

from __future__ import annotations

from typing import Any

from tensorlang.codegen.target import Need, load_target, registered
from tensorlang.errors import TensorlangError
from tensorlang.graph.generator import find_generator, registered_generators


def needs_report() -> dict[str, dict[str, Any]]:
    """Of every registered target and code generator, by name: `ok`, `found` (what is there), `missing`, and `install`, the
    commands that add what is missing."""
    return {name: _report(name) for name in sorted({*registered_generators(), *registered()})}


def _report(name: str) -> dict[str, Any]:
    try:
        needs: list[Need] = (load_target(registered()[name]) if name in registered() else find_generator(name)).needs()
    except TensorlangError as error:
        return {"ok": False, "found": {}, "missing": [str(error)], "install": []}
    lacking = [n for n in needs if not n.found]
    return {
        "ok": not lacking,
        "found": {n.what: n.found for n in needs if n.found},
        "missing": [n.what for n in lacking],
        "install": [n.install for n in lacking if n.install],
    }
