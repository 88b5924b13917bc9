"""The command line of the benchmark: names, exit codes, where output goes."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from bench import __main__ as cli, machine, models, operators, zoo

RUNNER = CliRunner()


def test_lists() -> None:
    assert RUNNER.invoke(cli.app, ["list"]).output.split() == list(models.NAMES)
    assert RUNNER.invoke(cli.app, ["list", "ops"]).output.split() == list(operators.NAMES)
    assert "ppocr_det/other" in RUNNER.invoke(cli.app, ["list", "zoo"]).output.split()
    assert "onnxruntime" in RUNNER.invoke(cli.app, ["list", "peers"]).output.split()


@pytest.mark.parametrize(
    "arguments",
    [["models", "--only", "alexnet"], ["ops", "--family", "nonesuch"], ["list", "cats"], ["models", "--threads", "0"]],
    ids=lambda arguments: arguments[0],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert RUNNER.invoke(cli.app, arguments).exit_code == 2


def test_an_unknown_peer_is_one_line_and_exit_code_1() -> None:
    result = RUNNER.invoke(cli.app, ["null", "--only", "mlp", "--peer", "abacus"])
    assert result.exit_code == 1
    assert "no peer 'abacus'" in result.output


def test_only_prefers_exact_names() -> None:
    assert cli.select(["resnet18", "resnet50", "res"], ["res"]) == ["res"]
    assert cli.select(["resnet18", "resnet50"], ["res"]) == ["resnet18", "resnet50"]
    assert cli.select(["a", "b"], None) == ["a", "b"]


def test_zoo_names_cover_every_size() -> None:
    assert {name.partition("/")[0] for name in cli.zoo_names(False)} == set(zoo.CORE)
    assert {name.partition("/")[0] for name in cli.zoo_names(True)} == set(zoo.NAMES)


def test_null_test_as_json(tmp_path) -> None:
    destination = tmp_path / "null.json"
    result = RUNNER.invoke(cli.app, ["null", "--only", "mlp", "--quick", "--threads", "1", "--json", str(destination)])
    assert result.exit_code == 0, result.output
    stored = json.loads(destination.read_text())
    (row,) = stored["rows"]
    assert row["name"] == "mlp" and row["null_spread"] >= 0.01
    assert stored["machine"]["cores"] == machine.cores()
