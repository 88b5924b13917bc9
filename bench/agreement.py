"""When two runtimes' outputs agree.

Per output tensor: ``|ours - theirs| <= 2e-4 max|theirs| + 2e-6``. Where onnxruntime's own optimised and unoptimised
runs differ by more than that (quantised models, saturated sigmoids), three times their difference is allowed instead.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

RELATIVE = 2e-4
ABSOLUTE = 2e-6
ORACLE_FACTOR = 3.0

Array = NDArray[np.generic]
Oracle: TypeAlias = str | os.PathLike[str] | bytes | onnxruntime.InferenceSession


class Basis(enum.Enum):
    """What the bound of an output rests on."""

    TOLERANCE = "2e-4 max|theirs| + 2e-6"
    ORACLE = "3 x onnxruntime's optimised against its unoptimised run"


@dataclass(frozen=True)
class OutputAgreement:
    """One output. ``error``: largest |ours - theirs|; ``reason``: why it does not agree, empty where it does."""

    name: str
    error: float
    bound: float
    largest: float
    basis: Basis
    reason: str = ""

    @property
    def ok(self) -> bool:
        return not self.reason

    def __str__(self) -> str:
        verdict = "agrees" if self.ok else f"DISAGREES ({self.reason})"
        error = f"|error| {self.error:.3g} of {self.bound:.3g} allowed"
        return f"{self.name}: {verdict}, {error}, max|theirs| {self.largest:.3g}"


@dataclass(frozen=True)
class Agreement:
    """All outputs of one run."""

    outputs: tuple[OutputAgreement, ...]

    @property
    def ok(self) -> bool:
        return all(output.ok for output in self.outputs)

    @property
    def worst(self) -> OutputAgreement:
        """The output that uses most of its bound; one that disagrees before one that does not."""
        return max(self.outputs, key=lambda o: (not o.ok, o.error / o.bound if o.bound else 0.0))

    def __str__(self) -> str:
        return "\n".join(str(output) for output in self.outputs)


def check(
    ours: Mapping[str, Array], theirs: Mapping[str, Array], oracle: Oracle | None, feeds: Mapping[str, Array]
) -> Agreement:
    """Compare ``ours`` with onnxruntime's (optimised) outputs ``theirs``, by name.

    ``oracle`` is the model (a path or its bytes), or an onnxruntime session of it with all optimisations off; it is run
    on ``feeds`` only if some output misses the plain tolerance. With None the plain tolerance is all there is. Outputs
    must have the same names, dtypes and shapes, NaN at the same places and the same infinities.
    """
    if set(ours) != set(theirs):
        missing, extra = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
        raise ValueError(f"outputs differ in name: missing {missing}, unexpected {extra}")
    if not theirs:
        raise ValueError("nothing to compare: the model has no outputs")
    results = [_compare(name, ours[name], theirs[name]) for name in theirs]
    if oracle is not None and not all(result.ok for result in results):
        reference = _run_unoptimised(oracle, feeds)
        results = [r if r.ok else _with_oracle(r, ours[r.name], theirs[r.name], reference[r.name]) for r in results]
    return Agreement(tuple(results))


def _compare(name: str, ours: Array, theirs: Array) -> OutputAgreement:
    largest = _largest(theirs)
    bound = RELATIVE * largest + ABSOLUTE
    reason = _mismatch(ours, theirs)
    error = float("inf") if reason else difference(ours, theirs)
    if not reason and not error <= bound:
        reason = f"{error:.3g} > {bound:.3g}"
    return OutputAgreement(name, error, bound, largest, Basis.TOLERANCE, reason)


def _with_oracle(plain: OutputAgreement, ours: Array, theirs: Array, reference: Array) -> OutputAgreement:
    """The second chance: the bound widens only if onnxruntime disagrees with itself by more than the tolerance."""
    if _mismatch(ours, theirs) or _mismatch(reference, theirs):
        return plain
    own = difference(theirs, reference)
    if own <= plain.bound:
        return plain
    bound = ORACLE_FACTOR * own
    reason = "" if plain.error <= bound else f"{plain.error:.3g} > {bound:.3g}"
    return OutputAgreement(plain.name, plain.error, bound, plain.largest, Basis.ORACLE, reason)


def difference(a: Array, b: Array) -> float:
    """Largest |a - b| over elements that are finite in both, in float64 (0 for empty or textual arrays)."""
    if a.dtype.kind not in "fiub" or not a.size:
        return 0.0
    x, y = a.astype(np.float64), b.astype(np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    return float(np.abs(x[both] - y[both]).max()) if both.any() else 0.0


def _largest(array: Array) -> float:
    if array.dtype.kind not in "fiub" or not array.size:
        return 0.0
    values = array.astype(np.float64)
    finite = np.isfinite(values)
    return float(np.abs(values[finite]).max()) if finite.any() else 0.0


def _mismatch(ours: Array, theirs: Array) -> str:
    """What sets two arrays apart before any tolerance: dtype, shape, NaNs, infinities, text."""
    if ours.dtype != theirs.dtype:
        return f"dtype {ours.dtype}, expected {theirs.dtype}"
    if ours.shape != theirs.shape:
        return f"shape {ours.shape}, expected {theirs.shape}"
    if theirs.dtype.kind == "f":
        x, y = ours.astype(np.float64), theirs.astype(np.float64)
        if not np.array_equal(np.isnan(x), np.isnan(y)):
            return f"{int(np.isnan(x).sum())} NaN, expected {int(np.isnan(y).sum())} at other places"
        infinite = np.isinf(x) | np.isinf(y)
        if not np.array_equal(x[infinite], y[infinite]):
            return "infinities differ"
    elif theirs.dtype.kind not in "iub" and not np.array_equal(ours, theirs):
        return f"{theirs.dtype} values differ"
    return ""


def _run_unoptimised(oracle: Oracle, feeds: Mapping[str, Array]) -> dict[str, Array]:
    if isinstance(oracle, onnxruntime.InferenceSession):
        session = oracle
    else:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        source = oracle if isinstance(oracle, bytes) else str(Path(oracle))
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))
