"""A graph that `graph_json` wrote as a torch function, for torch.compile to race against. Imports torch when asked to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.gpu.data import Recipe


def torch_function(graph: Mapping[str, Any], arrays: Mapping[str, np.ndarray], device: str) -> Callable[..., Any]:
    """A function of the graph's inputs (tensors on `device`) that gives its first output.

    Raises:
        NotImplementedError: an operator of it is none of those below.
    """
    import torch

    constants = {
        name: torch.from_numpy(np.ascontiguousarray(Recipe.of_json(r).draw() if r else arrays[name])).to(device)
        for name, r in graph["constants"].items()
    }
    unknown = sorted({n["op"] for n in graph["nodes"]} - set(_OPERATORS))
    if unknown:
        raise NotImplementedError(f"no torch counterpart of {', '.join(unknown)}")

    def run(*inputs: Any) -> Any:
        values = dict(constants)
        values.update(zip(graph["inputs"], inputs, strict=True))
        for node in graph["nodes"]:
            made = _OPERATORS[node["op"]](torch, node["attrs"], *(values[name] for name in node["in"]))
            values[node["out"][0]] = made
        return values[graph["outputs"][0]]

    return run


def _conv(torch: Any, a: Mapping[str, Any], x: Any, w: Any, bias: Any = None) -> Any:
    """NHWC activations are views of torch's channels-last; their weights are HWIO, or HWC of depthwise ones."""
    channels_last = a.get("layout", "NCHW") == "NHWC"
    if channels_last:
        x, w = x.permute(0, 3, 1, 2), (w.unsqueeze(2) if w.ndim == 3 else w).permute(3, 2, 0, 1)
    top, left, bottom, right = a["pads"]
    if (top, left) != (bottom, right):
        x, top, left = torch.nn.functional.pad(x, (left, right, top, bottom)), 0, 0
    y = torch.nn.functional.conv2d(x, w, bias, a["strides"], (top, left), a["dilations"], a.get("group", 1))
    return y.permute(0, 2, 3, 1) if channels_last else y


def _max_pool(torch: Any, a: Mapping[str, Any], x: Any) -> Any:
    channels_last = a.get("layout", "NCHW") == "NHWC"
    x = x.permute(0, 3, 1, 2) if channels_last else x
    y = torch.nn.functional.max_pool2d(x, a["kernel"], a["strides"], a["pads"][:2], a["dilations"], a.get("ceil_mode", False))
    return y.permute(0, 2, 3, 1) if channels_last else y


def _mean(torch: Any, a: Mapping[str, Any], x: Any) -> Any:
    return x.mean(tuple(a["axes"]), keepdim=bool(a.get("keepdims", True)))


def _layer_norm(torch: Any, a: Mapping[str, Any], x: Any, scale: Any, bias: Any = None) -> Any:
    return torch.nn.functional.layer_norm(x, x.shape[a["axis"] :], scale, bias, a["epsilon"])


def _slice(torch: Any, a: Mapping[str, Any], x: Any) -> Any:
    at = (
        slice(start, start + (n - 1) * step + 1, step)
        for start, n, step in zip(a["starts"], a["shape"], a["steps"], strict=True)
    )
    return x[tuple(at)]


def _gather(torch: Any, a: Mapping[str, Any], x: Any, index: Any) -> Any:
    flat = torch.index_select(x, a["axis"], index.reshape(-1).long())
    return flat.reshape(*x.shape[: a["axis"]], *index.shape, *x.shape[a["axis"] + 1 :])


_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": lambda t, a, x, y: x + y,
    "sub": lambda t, a, x, y: x - y,
    "mul": lambda t, a, x, y: x * y,
    "relu": lambda t, a, x: t.relu(x),
    "clip": lambda t, a, x: t.clamp(x, a["min"], a["max"]),
    "gelu": lambda t, a, x: t.nn.functional.gelu(x, approximate=a.get("approximate") or "none"),
    "where": lambda t, a, c, x, y: t.where(c, x, y),
    "cast": lambda t, a, x: x.to(getattr(t, a["dtype"])),
    "matmul": lambda t, a, x, y: t.matmul(x, y),
    "softmax": lambda t, a, x: t.softmax(x, a["axis"]),
    "transpose": lambda t, a, x: x.permute(a["perm"]),
    "reshape": lambda t, a, x: x.reshape(a["shape"]),
    "concat": lambda t, a, *x: t.cat(x, a["axis"]),
    "reduce_mean": _mean,
    "layer_norm": _layer_norm,
    "slice": _slice,
    "gather": _gather,
    "conv": _conv,
    "max_pool": _max_pool,
}
