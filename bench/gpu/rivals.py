"""What torch, and through it cuBLAS and cuDNN, makes of the same work on the same device; timed with its own events.

Nothing of torch is imported until a rival is asked for; where torch or its device is missing, a rival says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from bench.gpu.torch_models import torch_function


def torch_versions() -> dict[str, str]:
    """Versions of torch and of what it runs on; empty where it, or its device, is missing."""
    try:
        import torch
    except ImportError:
        return {}
    if not torch.cuda.is_available():
        return {}
    found = {"torch": torch.__version__, "torch_cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}
    for name in ("triton", "cupy"):
        try:
            found[name] = __import__(name).__version__
        except (ImportError, AttributeError):
            continue
    return found


class Rivals:
    """torch's times, in ms. All arithmetic is that of the case: f32 without TF32, where it says nothing else."""

    def __init__(self, folder: Path, seconds: float):
        import torch

        self.torch, self.folder, self.seconds = torch, folder, seconds
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False

    def measure(
        self, case: Mapping[str, Any], inputs: Sequence[np.ndarray], arrays: Mapping[str, np.ndarray]
    ) -> dict[str, Any]:
        """Times of everything that torch has for a case, by name; what fails has its error instead."""
        tensors = [self.torch.from_numpy(np.ascontiguousarray(a)).cuda() for a in inputs]
        tensors = [t.view(self.torch.bfloat16) if t.dtype == self.torch.uint16 else t for t in tensors]
        self.torch.backends.cuda.matmul.allow_tf32 = "tf32" in case["name"]
        found: dict[str, Any] = {}
        for name, function in self._functions(case, arrays).items():
            try:
                with self.torch.inference_mode():
                    found[name] = self._time(lambda f=function: f(*tensors))  # type: ignore[misc]
            except Exception as error:  # a rival's failure is a finding, not ours
                found[name] = f"{type(error).__name__}: {error}"[:200]
        self.torch.cuda.empty_cache()
        return found

    def _functions(self, case: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Callable[..., Any]]:
        t, f, a = self.torch, self.torch.nn.functional, case["attrs"]
        if case["rival"] == "graph":
            graph = json.loads((self.folder / f"{case['name']}.graph.json").read_text())
            constants = {n.removeprefix("constant_"): v for n, v in arrays.items() if n.startswith("constant_")}
            eager = torch_function(graph, constants, "cuda")
            return {"torch eager": eager, "torch.compile": t.compile(eager, mode="reduce-overhead")}
        if case["rival"] == "attention":
            return {"torch SDPA": f.scaled_dot_product_attention}
        if case["rival"] == "matmul" and any(kind in case["name"] for kind in ("f16", "tf32")):
            return {"cuBLAS": t.matmul}
        if case["rival"] == "matmul":
            return {"cuBLAS f32": t.matmul, "cuBLAS bf16": _in_bf16(t)}
        single: dict[str, Callable[..., Any]] = {
            "gelu": f.gelu,
            "add": t.add,
            "softmax": lambda x: t.softmax(x, a["axis"]),
            "layer_norm": lambda x, w, b: f.layer_norm(x, x.shape[a["axis"] :], w, b, a["epsilon"]),
            "reduce_sum": lambda x: x.sum(tuple(a["axes"])),
            "transpose": lambda x: x.permute(a["perm"]).contiguous(),
        }
        function = single.get(case["rival"])
        return {} if function is None else {"torch": function}

    def _time(self, work: Callable[[], Any]) -> float:
        cuda = self.torch.cuda
        for _ in range(3):
            work()
        cuda.synchronize()

        def times(runs: int) -> list[float]:
            events = [cuda.Event(enable_timing=True) for _ in range(runs + 1)]
            events[0].record()
            for event in events[1:]:
                work()
                event.record()
            cuda.synchronize()
            return [a.elapsed_time(b) for a, b in zip(events, events[1:], strict=False)]

        once = median(times(3))
        return median(times(runs_for(once, self.seconds)))


def runs_for(ms: float, seconds: float) -> int:
    """How often to run what takes `ms`, to fill about `seconds`: 5 to 1000 times."""
    return int(min(1000, max(5, seconds * 1000 / max(ms, 1e-3))))


def _in_bf16(torch: Any) -> Callable[[Any, Any], Any]:
    """Products of bf16 operands that are converted once, not in each call."""
    kept: dict[int, Any] = {}

    def product(x: Any, y: Any) -> Any:
        operands = [kept.setdefault(id(o), o.to(torch.bfloat16)) for o in (x, y)]
        return torch.matmul(*operands)

    return product
