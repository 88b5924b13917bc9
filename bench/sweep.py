"""Agreement without timing: a model on several seeds and all its input sizes, against onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from bench import agreement, compare, models, peers, zoo
from bench.feeds import Feeds


@dataclass(frozen=True)
class Check:
    """One model on one seed and size; ``found`` is None where it did not run, and ``error`` says why."""

    name: str
    size: str
    seed: int
    found: agreement.Agreement | None
    error: str = ""

    @property
    def ok(self) -> bool:
        return self.found is not None and self.found.ok


def run(name: str, seeds: Sequence[int], threads: int, static: bool) -> list[Check]:
    """Check a standard or zoo model. ``static``: one build for each size; otherwise one symbolic build for all."""
    standard = name in models.NAMES
    path = models.path(name) if standard else zoo.path(name)
    sizes = ("base",) if standard else zoo.sizes(name)
    model = models.build(name) if standard else None
    feeds = {
        (size, seed): zoo.inputs(name, seed, size) if model is None else models.inputs(model, seed)
        for size in sizes
        for seed in seeds
    }
    if static:
        groups = [{key: value for key, value in feeds.items() if key[0] == size} for size in sizes]
    else:
        groups = [feeds]
    return [check for group in groups for check in _run_group(name, path, group, threads, static)]


def _run_group(name: str, path: Path, group: Mapping[tuple[str, int], Feeds], threads: int, static: bool) -> list[Check]:
    first = next(iter(group.values()))
    judge = peers.onnxruntime_runner(path, threads)
    try:
        runner = peers.tensorlang_runner(path, first if static else None, threads)
    except Exception as error:  # whatever a build raises is the result
        return [Check(name, size, seed, None, compare.one_line(error)) for size, seed in group]
    checks = []
    for (size, seed), feeds in group.items():
        try:
            found = agreement.check(runner(feeds), judge(feeds), path, feeds)
            checks.append(Check(name, size, seed, found))
        except Exception as error:  # likewise a run
            checks.append(Check(name, size, seed, None, compare.one_line(error)))
    return checks


def as_json(check: Check) -> dict[str, object]:
    worst = None if check.found is None else check.found.worst
    return {
        "name": check.name,
        "size": check.size,
        "seed": check.seed,
        "ok": check.ok,
        "difference": worst.error if worst else None,
        "failure": check.error,
        "bound": worst.bound if worst else None,
        "basis": worst.basis.value if worst else None,
        "output": worst.name if worst else None,
    }


def table(checks: Sequence[Check]) -> Table:
    result = Table(title="agreement with onnxruntime", box=box.SIMPLE_HEAD, title_justify="left")
    for heading in ("", "size", "seed", "error/allowed", ""):
        result.add_column(heading)
    for check in sorted(checks, key=lambda check: check.ok):
        if check.found is None:
            cells = ["", f"failed: {check.error}"]
        else:
            worst = check.found.worst
            widened = ", bound from onnxruntime's own difference" if worst.basis is agreement.Basis.ORACLE else ""
            cells = [f"{worst.error / worst.bound:.3f}", ("agrees" if check.ok else f"wrong: {worst}") + widened]
        result.add_row(check.name, check.size, str(check.seed), *cells, style="" if check.ok else "bold red")
    return result
