"""Peers and the compare command, with a stand-in for tensorlang's API where the compiler itself is not the point."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner

import tensorlang as tl
from bench import __main__ as cli, agreement, build_cost, cache, compare, models, operators, peers, zoo


class StandIn:
    """`tensorlang` as far as the benchmark uses it, on onnxruntime; records how it was called."""

    __version__ = "0"
    errors = tl.errors

    def __init__(self, error: float = 0.0) -> None:
        self.error = error
        self.threads = 0
        self.shapes: object = "not called"

    def set_num_threads(self, threads: int) -> None:
        self.threads = threads

    def compile(self, model: str, target: str, shapes: object = None, precision: str = "float32"):
        assert target == "cpu" and precision == "float32"
        self.shapes = shapes
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(feeds, out=None):
            return {name: y + np.float32(self.error) for name, y in zip(names, session.run(names, feeds), strict=True)}

        return SimpleNamespace(
            run=run, bind=lambda feeds: lambda: run(feeds), build_report={"codegen": 0.5}, profile=lambda feeds: "kernel  time",
            precision=precision,
        )


@pytest.fixture
def stand_in(monkeypatch) -> StandIn:
    fake = StandIn()
    monkeypatch.setattr(peers, "tl", fake)
    return fake


def test_static_compilation_is_for_the_shapes_of_the_feeds(stand_in: StandIn) -> None:
    path, feeds = softmax_case()
    prepared = peers.TensorLang().prepare(path, feeds, threads=2)
    assert stand_in.threads == 2
    assert stand_in.shapes == {name: array.shape for name, array in feeds.items()}
    assert prepared.details["build_report"] == {"codegen": 0.5}
    peers.TensorLang(static=False).prepare(path, feeds, threads=1)
    assert stand_in.shapes is None


def softmax_case():
    case = operators.get("softmax_1x1000")
    return case.path(), case.inputs(0)


@pytest.mark.parametrize("peer", [peers.JUDGE, peers.OpenVino(), peers.TorchEager()], ids=lambda peer: peer.name)
def test_rival_agrees_with_onnxruntime(peer: peers.Peer) -> None:
    if peer.version() is None:
        pytest.skip(f"{peer.name} is not installed")
    path, feeds = models.path("mlp"), models.inputs("mlp", 0)
    expected = peers.JUDGE.prepare(path, feeds, 1).outputs()
    prepared = peer.prepare(path, feeds, 1)
    prepared.call()
    assert agreement.check(prepared.outputs(), expected, path, feeds).ok


def test_a_rival_that_is_not_installed_is_an_error_only_if_asked_for(monkeypatch) -> None:
    monkeypatch.setattr(peers.OpenVino, "version", lambda self: None)
    assert "openvino" not in [peer.name for peer in peers.rivals()]
    with pytest.raises(cache.BenchError, match="not installed"):
        peers.rivals(["openvino"])


@pytest.mark.parametrize(("error", "code", "verdicts"), [(0.0, 0, {"faster", "slower", "tie"}), (1.0, 1, {"wrong"})])
def test_ops_command(monkeypatch, tmp_path, error: float, code: int, verdicts: set[str]) -> None:
    monkeypatch.setattr(peers, "tl", StandIn(error))
    destination = tmp_path / "ops.json"
    arguments = ["ops", "--only", "add_small", "--quick", "--threads", "1", "--json", str(destination)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == code, result.output
    assert "add_small_1x64" in result.output and "onnxruntime" in result.output
    (row,) = json.loads(destination.read_text())["rows"]
    assert row["verdict"] in verdicts
    assert row["agreements"]["tensorlang"]["ok"] is (error == 0.0)


def test_a_limit_that_is_exceeded_is_exit_code_3(stand_in: StandIn) -> None:
    arguments = ["ops", "--only", "add_small", "--quick", "--threads", "1", "--limit", "0.0001"]
    assert CliRunner().invoke(cli.app, arguments).exit_code == 3


def test_json_to_standard_output_is_json_alone(stand_in: StandIn) -> None:
    arguments = ["ops", "--only", "add_small", "--quick", "--threads", "1", "--json", "-"]
    assert json.loads(CliRunner().invoke(cli.app, arguments).stdout)["kind"] == "operators"


def test_profile_command(stand_in: StandIn) -> None:
    result = CliRunner().invoke(cli.app, ["profile", "softmax_1x1000"])
    assert result.exit_code == 0 and "kernel  time" in result.output


def test_profile_of_a_model_that_does_not_compile_is_one_line(stand_in: StandIn, monkeypatch) -> None:
    def refuse(*_, **__):
        raise tl.errors.ModelError("no Foo")

    monkeypatch.setattr(stand_in, "compile", refuse)
    result = CliRunner().invoke(cli.app, ["profile", "softmax_1x1000"])
    assert result.exit_code == 1 and "ModelError: no Foo" in result.output


def test_build_cost_uses_one_fresh_cache_for_a_cold_and_a_warm_process(monkeypatch) -> None:
    caches: list[str] = []
    monkeypatch.setattr(build_cost, "_write_bytecode", lambda: None)

    def child(command, env, **_):
        assert "bench.build_child" in command
        with np.load(command[-1]) as stored:
            assert stored["x"].shape == (1, 1000)
        caches.append(env["TENSORLANG_CACHE_DIR"])
        cold = len(caches) == 1
        result = {
            "compile_cpu": 30.0 if cold else 0.5, "compile_wall": 20.0, "process_cpu": 31.0, "peak_memory_mib": 100.0,
            "report": {"front end": 20.0, "LLVM": 10.0},
        }  # fmt: skip
        return subprocess.CompletedProcess(command, 0, "some chatter\n" + json.dumps(result), "")

    monkeypatch.setattr(build_cost.subprocess, "run", child)
    path, feeds = softmax_case()
    cost = build_cost.measure(compare.Subject("softmax", "op", path, feeds), threads=2)
    assert caches[0] == caches[1]
    assert cost.cold is not None and cost.warm is not None
    assert (cost.cold.compile_cpu, cost.warm.compile_cpu) == (30.0, 0.5)
    assert build_cost.as_json(cost)["cold"]["report"]["LLVM"] == 10.0


def test_build_cost_of_a_failing_build_keeps_the_last_line_of_its_error(monkeypatch) -> None:
    def child(command, **_):
        return subprocess.CompletedProcess(command, 1, "", "Traceback\nUnsupportedOpError: Foo")

    monkeypatch.setattr(build_cost, "_write_bytecode", lambda: None)
    monkeypatch.setattr(build_cost.subprocess, "run", child)
    path, feeds = softmax_case()
    cost = build_cost.measure(compare.Subject("softmax", "op", path, feeds), threads=2)
    assert cost.cold is None and cost.error == "UnsupportedOpError: Foo"
    assert build_cost.table([cost]).row_count == 1


def test_check_command_covers_sizes_and_seeds(monkeypatch, tmp_path) -> None:
    fake = StandIn()
    monkeypatch.setattr(peers, "tl", fake)
    destination = tmp_path / "check.json"
    arguments = ["check", "--only", "mlp", "--seeds", "3", "--symbolic", "--json", str(destination)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads(destination.read_text())["rows"]
    assert [(row["size"], row["seed"], row["ok"]) for row in rows] == [("base", seed, True) for seed in range(3)]
    assert fake.shapes is None, "one symbolic build"

    fake.error = 1.0
    result = CliRunner().invoke(cli.app, ["check", "--only", "mlp", "--seeds", "1"])
    assert result.exit_code == 1 and "wrong" in result.output


def test_zoo_subject_takes_a_size(monkeypatch) -> None:
    monkeypatch.setattr(zoo, "path", lambda name: models.path("mlp"))
    base, other = (cli.zoo_subject(name, 0).feeds["x"].shape for name in ("ppocr_det", "ppocr_det/other"))
    assert base != other
