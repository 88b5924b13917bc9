"""The seven standard models, built by script: ONNX opset 17 in the operators that torch's TorchScript exporter writes.

Batch 1, float32, seeded random weights scaled so that activations keep order one and outputs depend on inputs.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

from bench import cache, feeds
from bench.models import flops, transformers, vision

_BUILDERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mlp": vision.mlp,
    "mobilenet_v2": vision.mobilenet_v2,
    "resnet18": vision.resnet18,
    "resnet50": vision.resnet50,
    "bert": transformers.bert,
    "gpt2": transformers.gpt2,
    "vit": transformers.vit,
}

NAMES: tuple[str, ...] = tuple(_BUILDERS)

GFLOP: dict[str, float] = {
    "mlp": 0.005,
    "mobilenet_v2": 0.60,
    "resnet18": 3.63,
    "resnet50": 8.18,
    "bert": 7.45,
    "gpt2": 5.28,
    "vit": 11.86,
}


def path(name: str) -> Path:
    """The model's file in the cache, built now if it is not there yet."""
    if name not in _BUILDERS:
        raise cache.BenchError(f"no standard model {name!r}; there are: {', '.join(NAMES)}")
    file = cache.directory("models") / f"{name}-{_source_digest()}.onnx"
    if not file.exists():
        model = _BUILDERS[name]()
        cache.write_atomically(file, lambda temporary: onnx.save(model, temporary))
    return file


def build(name: str) -> onnx.ModelProto:
    """The model, from the cache where it has been built before."""
    return onnx.load(path(name))


def inputs(model: str | onnx.ModelProto, seed: int) -> feeds.Feeds:
    """Seeded inputs for a standard model by name, or for any loaded model (dynamic dimensions become 1)."""
    return feeds.generate(build(model) if isinstance(model, str) else model, seed)


def gflop(model: str | onnx.ModelProto) -> float:
    """10^9 floating-point operations of one run (multiply-adds of convolutions and matrix products, times 2)."""
    return flops.count(build(model) if isinstance(model, str) else model) / 1e9


@functools.cache
def _source_digest() -> str:
    """Cached files are those of this very source: a changed builder makes new files."""
    digest = hashlib.sha256(f"onnx {onnx.__version__} numpy {np.__version__}".encode())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
