"""`python -m bench deploy`: fresh processes report, and C and Python agree."""

from __future__ import annotations

from bench import __main__ as commands, deploy, measure


def test_one_small_model() -> None:
    plan = measure.Plan(blocks=1, block_seconds=0.01, block_calls=2, minimum_calls=1, dropped_calls=1, rest_seconds=0)
    found = deploy.run(commands.model_subject("mlp", 0), 2, plan, repeats=1)
    assert 10e6 < found.model_bytes < found.library_bytes < 11e6
    assert found.ours.peak_mib >= found.ours.loaded_mib > 0
    assert found.ours.load_cpu > 0 and found.onnxruntime.load_cpu > 0
    assert found.c_latency > 0 and deploy.as_json(found)["name"] == "mlp"
    assert 50e3 < deploy.runtime_bytes() < 1e6 < deploy.install_bytes("onnxruntime")
