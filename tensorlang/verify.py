"""The oracle certificate (layer 8): a build compared with onnxruntime, or with the operators' NumPy references.

Per output: |ours - theirs| <= 2e-4 max|theirs| + 2e-6; where onnxruntime's optimised and unoptimised runs differ by more
than that (quantised models, saturated sigmoids), three times their difference. Builds whose products are of bf16 numbers are
held to 1e-1 instead of 2e-4 (deep networks of random weights reach 5e-2).
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tensorlang.errors import BuildError, InputError
from tensorlang.graph.ir import Graph
from tensorlang.graph.reference import evaluate
from tensorlang.runtime.executable import Executable, TensorInfo, numpy_dtype

ABSOLUTE, ORACLE_FACTOR = 2e-6, 3.0
RELATIVE = {"float32": 2e-4, "bf16": 1e-1}  # of the largest element, by the precision of the build's products
SEEDS = (0, 1)
# Sizes tried for open dimensions, all those of batch-like (first) and of other dimensions alike, until the oracle accepts.
SIZES = ((1, 64), (2, 32), (1, 48), (1, 128), (1, 224), (1, 1), (2, 2), (3, 7), (4, 4))
ENOUGH_SIZES = 2

Feeds = dict[str, np.ndarray]
Oracle = Callable[[Feeds], Feeds]


class VerificationError(BuildError):
    """The build differs from the oracle by more than the bound.

    Attributes:
        certificate: what was compared and found.
    """

    def __init__(self, message: str, certificate: dict[str, Any]):
        super().__init__(message)
        self.certificate = certificate


def certify(exe: Executable, source: Path | Graph, shapes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Run `exe` and an oracle on seeded inputs and compare.

    Args:
        source: an ONNX file, for onnxruntime; or the graph, for its operators' NumPy references.

    Returns:
        The certificate, JSON-able: oracle, seeds, sizes of open dimensions, bound, largest error, and per output the
        error and bound of its worst run.

    Raises:
        VerificationError: an output differs by more than its bound.
        BuildError: the oracle or the build accepts no input that was tried.
    """
    del shapes  # the executable's inputs have them
    relative = RELATIVE[exe.precision]
    oracle = _onnxruntime(source) if isinstance(source, Path) else None
    name, run, rerun = oracle or _reference(source)
    outputs: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    tried: list[dict[str, int]] = []
    refused = ""
    for sizes in _sizes(exe.inputs, exe.dims):
        try:
            cases = [(feeds, run(feeds)) for feeds in (_feeds(exe.inputs, sizes, seed) for seed in SEEDS)]
        except Exception as error:  # the oracle refuses these sizes; whatever it raises
            refused = f"{type(error).__name__}: {error}"
            continue
        try:
            results = [exe.run(feeds) for feeds, _ in cases]
        except InputError as error:  # so do we; a model may work at few sizes only
            if not sizes:
                raise
            refused = str(error)
            continue
        tried.append(sizes)
        for (feeds, theirs), ours in zip(cases, results, strict=True):
            _compare(ours, theirs, partial(rerun, feeds) if rerun else None, relative, outputs, problems)
        if len(tried) == ENOUGH_SIZES:
            break
    if not tried:
        raise BuildError(f"{exe.name} cannot be verified: no input that was tried is accepted ({refused})")
    certificate = {
        "ok": not problems,
        "oracle": name,
        "seeds": list(SEEDS),
        "sizes": tried,
        "precision": exe.precision,
        "bound": f"{relative:.0e} max|theirs| + {ABSOLUTE:.0e}".replace("e-0", "e-"),
        "max_error": max((o["error"] for o in outputs.values()), default=0.0),
        "outputs": outputs,
    }
    if problems:
        raise VerificationError(f"{exe.name} differs from {name}: " + "; ".join(problems), certificate)
    return certificate


def _onnxruntime(path: Path) -> tuple[str, Oracle, Oracle] | None:
    """onnxruntime, its run and its unoptimised run; None where it is not installed or does not know the file."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    ort = importlib.import_module("onnxruntime")

    def session(level: Any) -> Oracle:
        options = ort.SessionOptions()
        options.graph_optimization_level = level
        options.log_severity_level = 4  # sizes that it refuses are no news
        made = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [o.name for o in made.get_outputs()]
        return lambda feeds: dict(zip(names, made.run(names, feeds), strict=True))

    levels = ort.GraphOptimizationLevel
    unoptimised: list[Oracle] = []

    def rerun(feeds: Feeds) -> Feeds:
        if not unoptimised:
            unoptimised.append(session(levels.ORT_DISABLE_ALL))
        return unoptimised[0](feeds)

    try:
        return f"onnxruntime {ort.__version__}", session(levels.ORT_ENABLE_ALL), rerun
    except Exception as error:
        raise BuildError(f"{path} cannot be verified: onnxruntime does not load it: {error}") from None


def _reference(source: Path | Graph) -> tuple[str, Oracle, None]:
    if isinstance(source, Path):
        raise BuildError(f"{source} cannot be verified: onnxruntime is not installed (pip install 'tensorlang[test]')")
    return "NumPy references", lambda feeds: evaluate(source, feeds), None


def _sizes(inputs: Sequence[TensorInfo], names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Values for the open dimensions, most plausible first."""
    leading = {d for info in inputs for d in info.shape[:1]}
    if not names:
        yield {}
        return
    choices = [{n: first if n in leading else other for n in names} for first, other in SIZES]
    yield from (c for k, c in enumerate(choices) if c not in choices[:k])


def _feeds(inputs: Sequence[TensorInfo], sizes: Mapping[str, int], seed: int) -> Feeds:
    """Standard normal floats; integers 0 and 1, since an integer input is usually an index or a mask."""
    random = np.random.default_rng(seed)
    feeds: Feeds = {}
    for info in inputs:
        if formulas := [d for d in info.shape if isinstance(d, str) and d not in sizes]:
            raise InputError(f"input {info}: the size {formulas[0]} is not a plain dimension")
        shape = tuple(sizes[d] if isinstance(d, str) else d for d in info.shape)
        dtype = numpy_dtype(info.dtype)
        if dtype.kind in "iub":
            feeds[info.name] = random.integers(0, 2, shape).astype(dtype)
        else:
            feeds[info.name] = random.standard_normal(shape).astype(dtype)
    return feeds


def _compare(
    ours: Mapping[str, np.ndarray],
    theirs: Mapping[str, np.ndarray],
    rerun: Callable[[], Feeds] | None,
    relative: float,
    outputs: dict[str, dict[str, Any]],
    problems: list[str],
) -> None:
    again: Feeds | None = None
    for name, expected in theirs.items():
        got = ours.get(name)
        if got is None:
            problems.append(f"output {name} is missing")
            continue
        if got.dtype != expected.dtype or got.shape != expected.shape:
            problems.append(
                f"{name} is {got.dtype}{list(got.shape)}, expected {expected.dtype}{list(expected.shape)}"
            )
            continue
        error, bound = difference(got, expected), relative * _largest(expected) + ABSOLUTE
        if not error <= bound and rerun is not None:
            again = rerun() if again is None else again
            own = difference(again[name], expected)
            bound = max(bound, ORACLE_FACTOR * own) if own < float("inf") else bound
        worst = outputs.setdefault(name, {"error": 0.0, "bound": bound})
        if error * worst["bound"] >= worst["error"] * bound:
            worst.update(error=error, bound=bound)
        if not error <= bound:
            problems.append(f"{name} by {error:.3g} (bound {bound:.3g})")


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest |a - b| in float64; infinite where NaNs or infinities stand at different places."""
    if a.size == 0:
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        gap = np.where(same, 0.0, np.abs(x - y))
    return float(np.where(np.isnan(gap), np.inf, gap).max())


def _largest(array: np.ndarray) -> float:
    values = np.abs(array.astype(np.float64)) if array.size else np.zeros(1)
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 0.0
