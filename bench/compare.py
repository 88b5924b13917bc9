"""One comparison: prepare all peers, check that they agree, time them side by side with a twin of the judge."""

from __future__ import annotations

import enum
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import agreement, measure
from bench.feeds import Feeds
from bench.peers import Peer, Prepared

TWIN = "twin"  # the judge once more, under this name, for the null test


@dataclass(frozen=True)
class Subject:
    """A model to compare on: a file and feeds for it. ``flop`` and ``least_bytes`` give rates (0: not counted), ``limit``
    the least seconds that a run could take on this machine (0: not known)."""

    name: str
    group: str
    path: Path
    feeds: Feeds
    flop: float = 0.0
    least_bytes: float = 0.0
    limit: float = 0.0


class Verdict(enum.Enum):
    """What a row says of us, worst first."""

    FAILED = "failed"
    WRONG = "wrong"
    SLOWER = "slower"
    TIE = "tie"
    FASTER = "faster"


@dataclass(frozen=True)
class Row:
    """The result for one subject. Where we failed there are no timings, and ``errors`` says why, by peer."""

    subject: Subject
    verdict: Verdict
    timings: Mapping[str, measure.Timing] = field(default_factory=dict)
    ratios: Mapping[str, measure.Ratio] = field(default_factory=dict)
    spread: float = 0.0
    agreements: Mapping[str, agreement.Agreement] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    prepare_seconds: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, object] = field(default_factory=dict)


def run(subject: Subject, ours: Peer, judge: Peer, others: Sequence[Peer], threads: int, plan: measure.Plan) -> Row:
    """Compare ``ours`` with ``judge`` (of results and of time) and with ``others`` (of time; they too are checked).

    A peer that raises is left out and its error kept; if it is ours, nothing is timed. Wrong results are timed
    nevertheless: the row says that they are wrong.
    """
    prepared: dict[str, Prepared] = {}
    errors: dict[str, str] = {}
    agreements: dict[str, agreement.Agreement] = {}
    theirs = judge.prepare(subject.path, subject.feeds, threads)
    expected = theirs.outputs()
    for peer in (ours, *others):
        try:
            ready = peer.prepare(subject.path, subject.feeds, threads)
            agreements[peer.name] = agreement.check(ready.outputs(), expected, subject.path, subject.feeds)
            prepared[peer.name] = ready
        except Exception as error:  # whatever a runtime may raise is a result of the benchmark, not a fault of it
            errors[peer.name] = one_line(error)
    if ours.name not in prepared:
        return Row(subject, Verdict.FAILED, errors=errors, agreements=agreements)

    prepared[judge.name] = theirs
    prepared[TWIN] = judge.prepare(subject.path, subject.feeds, threads)
    timings = measure.interleave({name: ready.call for name, ready in prepared.items()}, plan)
    spread = measure.null_spread(measure.ratio(timings[judge.name], timings[TWIN]))
    ratios = {
        name: measure.ratio(timings[ours.name], timing) for name, timing in timings.items() if name not in (ours.name, TWIN)
    }
    return Row(
        subject,
        _verdict(agreements[ours.name].ok, ratios[judge.name], spread),
        timings,
        ratios,
        spread,
        agreements,
        errors,
        {name: ready.prepare_seconds for name, ready in prepared.items() if name != TWIN},
        prepared[ours.name].details,
    )


def _verdict(agrees: bool, ratio: measure.Ratio, spread: float) -> Verdict:
    if not agrees:
        return Verdict.WRONG
    if measure.is_tie(ratio, spread):
        return Verdict.TIE
    return Verdict.FASTER if ratio.median < 1 else Verdict.SLOWER


@dataclass(frozen=True)
class NullRow:
    """A peer against itself on one subject."""

    subject: Subject
    timings: Mapping[str, measure.Timing]
    ratio: measure.Ratio
    spread: float


def run_null(subject: Subject, peer: Peer, threads: int, plan: measure.Plan) -> NullRow:
    """Prepare ``peer`` twice and time it against itself: whatever shows is noise."""
    calls: dict[str, Callable[[], object]] = {
        name: peer.prepare(subject.path, subject.feeds, threads).call for name in (peer.name, TWIN)
    }
    timings = measure.interleave(calls, plan)
    ratio = measure.ratio(timings[peer.name], timings[TWIN])
    return NullRow(subject, timings, ratio, measure.null_spread(ratio))


def one_line(error: Exception) -> str:
    """Kind, first line and place of an error, for a table."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}:{frame.lineno}"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]} ({where})"
