"""Times of the kernel calls of a program with control flow: its `main` is walked, and each call timed (`runtime.replay`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tensorlang.errors import InputError
from tensorlang.runtime import sizes
from tensorlang.runtime.artifact import Artifact
from tensorlang.runtime.profile import Profile
from tensorlang.runtime.replay import Leaves, Replay

if TYPE_CHECKING:
    from tensorlang.runtime.executable import Frame, Runner


def profile_calls(artifact: Artifact, runner: Runner, frame: Frame, repeats: int) -> Profile:
    """One row for each call in the text that is done at all: how often in a run, and for how long together.

    Args:
        frame: the memory of a run, with inputs, outputs and sizes in it.

    Raises:
        InputError: the program refuses these inputs.
    """
    import statistics

    replay = Replay(artifact.source)
    described = _matched(replay.calls, artifact.manifest["calls"])
    tables = {"inputs": frame.inputs, "outputs": frame.outputs, "dims": frame.dims}
    start = {"arena": frame.arena.ctypes.data, "weights": frame.weights.ctypes.data, **tables}
    seconds: list[dict[int, float]] = []
    counts: dict[int, list[int]] = {}

    def call(number: int, kernel: str, arguments: Sequence[int], variables: Mapping[str, int]) -> None:
        ready = runner.step(kernel, frame, [("size", value) for value in arguments])
        begun = time.perf_counter()
        ready()
        spent = time.perf_counter() - begun
        seconds[-1][number] = seconds[-1].get(number, 0.0) + spent
        if len(seconds) == 1:
            told = counts.setdefault(number, [0, 0, 0])
            told[0] += 1
            for k, key in enumerate(("flops", "bytes"), 1):
                told[k] += sizes.evaluate(described[number][key], variables)

    try:
        for _ in range(repeats + 1):  # the first run warms caches
            seconds.append({})
            replay.run(start, call)
    except Leaves as refusal:
        checks = artifact.manifest["checks"]
        what = checks[refusal.status - 1] if 0 < refusal.status <= len(checks) else f"status {refusal.status}"
        raise InputError(f"{artifact.manifest['model']} does not work for these inputs: {what}") from None
    measured = seconds[1:] or seconds
    rows = []
    for number, (times, flops, nbytes) in counts.items():
        median = statistics.median(run.get(number, 0.0) for run in measured)
        rows.append((described[number], times, median, flops, nbytes))
    return Profile.of(rows)


def _matched(calls: Sequence[str], known: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What is known of each call in the text; of copies that only make room, their kernel's name."""
    found: list[Mapping[str, Any]] = []
    at = 0
    for kernel in calls:
        if at < len(known) and known[at]["kernel"] == kernel:
            found.append(known[at])
            at += 1
        else:
            found.append({"kernel": kernel, "label": "more room for a loop's results", "flops": 0, "bytes": 0})
    return found
