"""`python -m bench dynamic`, with a stand-in for tensorlang."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from bench import __main__ as cli, cache, compare, dynamic, measure, operators, peers
from tests.bench.test_peers import StandIn


@pytest.fixture
def subject(monkeypatch) -> compare.Subject:
    monkeypatch.setattr(peers, "tl", StandIn())
    case = operators.get("softmax_1x1000")
    return compare.Subject("softmax", "operator", case.path(), case.inputs(0))


@pytest.mark.parametrize("cpu", [False, True])
def test_both_builds_are_timed_and_compared(subject: compare.Subject, cpu: bool) -> None:
    cost = dynamic.run(subject, 1, measure.QUICK, cpu)
    assert cost.open > 0 and cost.fixed > 0 and cost.difference == 0.0
    assert cost.ratio.low <= cost.ratio.high


def test_processor_time_of_spinning_threads_means_nothing(subject: compare.Subject) -> None:
    with pytest.raises(cache.BenchError, match="--threads 1"):
        dynamic.run(subject, 2, measure.QUICK, cpu=True)


def test_command(subject: compare.Subject, monkeypatch) -> None:
    monkeypatch.setattr(cli, "zoo_names", lambda everything: ["minilm", "other"])
    monkeypatch.setattr(cli, "zoo_subject", lambda name, seed: subject)
    arguments = ["dynamic", "--quick", "--threads", "1", "--json", "-"]
    found = json.loads(CliRunner().invoke(cli.app, arguments).stdout)
    assert found["kind"] == "dynamic" and [row["name"] for row in found["rows"]] == ["softmax"]
    assert CliRunner().invoke(cli.app, [*arguments, "--limit", "0.0001"]).exit_code == 3
