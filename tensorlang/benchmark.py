"""`tl.benchmark`: an operator or model timed side by side with what it replaces (layer 8).

Two thread pools in one process disturb each other, so sides alternate in blocks with a rest between; the first calls of a
block are not counted, and medians over all blocks are compared. A null test (our side against itself, in the same run)
gives the spread within which a ratio means nothing.
"""

from __future__ import annotations

import importlib
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tensorlang.errors import InputError

DROPPED = 2  # calls at the head of each block: they wake the pool
LEAST_CALLS = 3
Call = Callable[[], Any]


@dataclass(frozen=True)
class Comparison:
    """Latencies in seconds.

    Attributes:
        ours: median time of one call.
        theirs: median of what it was compared with; None without `against`.
        spread: what our side seems to gain or lose against itself in this run; ratios within it are ties.
        error: largest |ours - theirs| over all outputs, relative to the largest |theirs|; None without `against`.
    """

    ours: float
    theirs: float | None
    spread: float
    error: float | None

    @property
    def ratio(self) -> float | None:
        """ours / theirs: below 1 ours is faster."""
        return None if self.theirs is None else self.ours / self.theirs

    @property
    def is_tie(self) -> bool:
        return self.ratio is not None and 1 / (1 + self.spread) <= self.ratio <= 1 + self.spread

    def __str__(self) -> str:
        text = f"{self.ours * 1e6:.1f} us"
        if self.theirs is None or self.ratio is None:
            return text
        faster = f"{1 / self.ratio:.2f} times as fast" if self.ratio < 1 else f"{self.ratio:.2f} times as slow"
        verdict = "a tie" if self.is_tie else faster
        return f"{text} against {self.theirs * 1e6:.1f} us: {verdict} (spread {self.spread:.0%}), error {self.error:.1e}"


def benchmark(
    operator: Callable[..., Any],
    args: Sequence[Any],
    against: Any = None,
    *,
    blocks: int = 6,
    block_seconds: float = 0.1,
    rest_seconds: float = 0.05,
) -> Comparison:
    """Time `operator(*args)`, side by side with `against`.

    Args:
        operator: a `@te.compute` function, a kernel, an executable: anything that takes the arrays.
        args: arrays (and compile-time constants after them, as the operator takes them).
        against: a callable that takes the same arguments, or an ONNX model (path, bytes or ModelProto) whose inputs are
            the arrays among `args` in order, which onnxruntime runs.
        blocks: how many blocks each side gets, of `block_seconds` each, with `rest_seconds` before each.

    Raises:
        InputError: `against` cannot be run, or its outputs differ from ours in number or shape.
    """
    if blocks < 1:
        raise InputError(f"blocks={blocks}; at least one is needed")

    def ours() -> Any:
        return operator(*args)

    sides: dict[str, Call] = {"ours": ours, "twin": ours}
    error = None
    if against is not None:
        theirs = _callable(against, args)
        error = _difference(_arrays(ours()), _arrays(theirs()))
        sides["theirs"] = theirs
    medians = _interleave(sides, blocks, block_seconds, rest_seconds)
    ratio = medians["twin"] / medians["ours"]
    mine = statistics.median([medians["ours"], medians["twin"]])
    return Comparison(mine, medians.get("theirs"), max(0.01, max(ratio, 1 / ratio) - 1), error)


def _callable(against: Any, args: Sequence[Any]) -> Call:
    if callable(against):
        return lambda: against(*args)
    content: Any = against
    if hasattr(against, "SerializeToString"):
        content = against.SerializeToString()
    elif isinstance(against, str | os.PathLike):
        content = str(Path(against))
    elif not isinstance(against, bytes):
        raise InputError(f"against is {type(against).__name__}; give a callable or an ONNX model")
    try:
        onnxruntime = importlib.import_module("onnxruntime")
    except ImportError:
        raise InputError("comparing with an ONNX model needs onnxruntime: pip install tensorlang[bench]") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"onnxruntime does not take the model to compare with: {error}") from error
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    names = [i.name for i in session.get_inputs()]
    if len(names) != len(arrays):
        raise InputError(f"the model to compare with has inputs {', '.join(names)}; {len(arrays)} array(s) are given")
    feeds = dict(zip(names, arrays, strict=True))
    return lambda: session.run(None, feeds)


def _arrays(result: Any) -> list[np.ndarray]:
    if isinstance(result, dict):
        result = list(result.values())
    return [np.asarray(a) for a in (result if isinstance(result, tuple | list) else [result])]


def _difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    if [a.shape for a in ours] != [a.shape for a in theirs]:
        raise InputError(
            f"outputs differ in shape: ours {[a.shape for a in ours]}, theirs {[a.shape for a in theirs]}"
        )
    worst = 0.0
    for a, b in zip(ours, theirs, strict=True):
        if a.size:
            scale = float(np.max(np.abs(b.astype(np.float64)))) or 1.0
            worst = max(worst, float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)))) / scale)
    return worst


def _interleave(sides: dict[str, Call], blocks: int, seconds: float, rest: float) -> dict[str, float]:
    """The median time of a call of each side over alternating blocks; the order turns with each round."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for round_number in range(blocks):
        turn = round_number % len(names)
        for name in names[turn:] + names[:turn]:
            time.sleep(rest)
            times[name] += _block(sides[name], seconds)
    return {name: statistics.median(found) for name, found in times.items()}


def _block(call: Call, seconds: float) -> list[float]:
    for _ in range(DROPPED):
        call()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < LEAST_CALLS or time.perf_counter() < end:
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return found
