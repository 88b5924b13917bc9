"""Comparison and report with fake peers: verdicts, order, JSON."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from rich.console import Console

from bench import compare, measure, operators, peers, report
from bench.compare import Verdict
from bench.peers import Prepared

PLAN = measure.Plan(blocks=2, block_calls=3, minimum_calls=3, dropped_calls=0, rest_seconds=0.0)


class Clock:
    """Time that only fake calls advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def advance(self, seconds: float) -> None:
        self.now += seconds


CLOCK = Clock()


@pytest.fixture(autouse=True)
def fake_time(monkeypatch) -> None:
    fake = functools.partial(measure.interleave, clock=lambda: CLOCK.now, sleep=CLOCK.advance)
    monkeypatch.setattr(measure, "interleave", fake)


class FakePeer:
    """Adds its inputs, in the given time, with an error added to the result."""

    def __init__(self, name: str, seconds: float, error: float = 0.0, fault: Exception | None = None) -> None:
        self.name = name
        self.seconds = seconds
        self.error = error
        self.fault = fault

    def version(self) -> str | None:
        return "0"

    def prepare(self, model, feeds, threads) -> Prepared:
        if self.fault:
            raise self.fault

        def outputs() -> peers.Outputs:
            return {"value_0": feeds["x"] + feeds["y"] + np.float32(self.error)}

        return Prepared(lambda: CLOCK.advance(self.seconds), outputs, 0.5)


@pytest.fixture
def subject() -> compare.Subject:
    case = operators.get("add_small_1x64")
    return compare.Subject(case.name, case.family, case.path(), case.inputs(0), least_bytes=case.least_bytes)


JUDGE = FakePeer("judge", 0.002)


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        (FakePeer("ours", 0.008), Verdict.SLOWER),
        (FakePeer("ours", 0.001), Verdict.FASTER),
        (FakePeer("ours", 0.001, error=1.0), Verdict.WRONG),
        (FakePeer("ours", 0.001, fault=ValueError("no such operator\nand more")), Verdict.FAILED),
    ],
    ids=["slower", "faster", "wrong", "failed"],
)
def test_verdict(subject: compare.Subject, ours: FakePeer, verdict: Verdict) -> None:
    row = compare.run(subject, ours, JUDGE, [], 1, PLAN)
    assert row.verdict is verdict
    assert bool(row.timings) is (verdict is not Verdict.FAILED)
    if verdict is Verdict.FAILED:
        assert row.errors["ours"].startswith("ValueError: no such operator (")


def test_a_rival_that_fails_is_left_out_and_named(subject: compare.Subject) -> None:
    rival = FakePeer("rival", 0.0, fault=RuntimeError("broken"))
    row = compare.run(subject, FakePeer("ours", 0.001), JUDGE, [rival], 1, PLAN)
    assert set(row.ratios) == {"judge"}
    assert "broken" in row.errors["rival"]


def test_losses_come_first_and_the_report_holds_everything(subject: compare.Subject, tmp_path) -> None:
    rows = [
        compare.run(subject, ours, JUDGE, [FakePeer("rival", 0.001)], 1, PLAN)
        for ours in (
            FakePeer("ours", 0.001),
            FakePeer("ours", 0.008),
            FakePeer("ours", 0.001, error=1.0),
            FakePeer("ours", 0.001, fault=ValueError("no")),
        )
    ]
    order = [row.verdict for row in report.losses_first(rows, "judge")]
    assert order == [Verdict.FAILED, Verdict.WRONG, Verdict.SLOWER, Verdict.FASTER]

    console = Console(width=200, record=True, file=open("/dev/null", "w"))
    console.print(report.table(rows, "ours", "judge", ["rival"], "title"))
    text = console.export_text()
    assert "failed: ValueError: no" in text and "DISAGREES" in text and "GB/s" in text
    assert report.summary(rows, "judge").startswith("1 failed, 1 wrong, 1 slower, 1 faster; geometric mean")

    destination = tmp_path / "result.json"
    report.write_json(report.document("test", 1, PLAN, [report.row_json(row) for row in rows]), str(destination))
    stored = json.loads(destination.read_text())
    assert stored["machine"]["cores"] >= 1 and stored["versions"]["numpy"] == np.__version__
    assert [row["verdict"] for row in stored["rows"]] == ["faster", "slower", "wrong", "failed"]
    assert set(stored["rows"][0]["ratios"]) == {"judge", "rival"}
    assert stored["plan"]["blocks"] == 2


def test_null_test_of_a_steady_peer_is_quiet(subject: compare.Subject) -> None:
    row = compare.run_null(subject, FakePeer("judge", 0.002), 1, PLAN)
    assert row.spread == measure.LEAST_SPREAD
    assert row.timings["judge"].median == pytest.approx(0.002)
    assert report.null_json(row)["null_spread"] == row.spread


@pytest.mark.parametrize(("value", "text"), [(2.5, "2.5 s"), (0.0301, "30.1 ms"), (4.2e-6, "4.2 us"), (3e-8, "30 ns")])
def test_durations_have_fitting_units(value: float, text: str) -> None:
    assert report.seconds(value) == text


def test_onnxruntime_prepared_calls_and_outputs_agree_with_numpy(subject: compare.Subject) -> None:
    prepared = peers.JUDGE.prepare(subject.path, subject.feeds, threads=1)
    prepared.call()
    np.testing.assert_array_equal(prepared.outputs()["value_0"], subject.feeds["x"] + subject.feeds["y"])
