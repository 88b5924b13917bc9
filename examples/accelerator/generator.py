"""Which parts of a quantised model go to the accelerator: products of bytes, and convolutions made into such products.

Sizes are filled up with zeros to multiples of 16, images are cut into windows; both happen on the host, and so does what comes
after the sums. Depthwise convolutions stay on the host: of the array's 256 multipliers they could use 16.
"""

from __future__ import annotations

import numpy as np

from tensorlang.codegen.target import Need
from tensorlang.config import Settings
from tensorlang.graph.generator import TargetGenerator
from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.graph.rewrite import Rewriter, rewrite

from .machine import SIDE
from .target import target


class AcceleratorGenerator(TargetGenerator):
    form = "optimised"  # products of bytes are what the compiler makes of quantised convolutions

    def supports(self, node: Node) -> bool:
        if node.op not in ("matmul", "conv") or len(node.inputs) != 2 or not all(v.type.is_static for v in node.inputs):
            return False
        x, w = node.inputs
        if (x.dtype.name, w.dtype.name, node.output.dtype.name) != ("u8", "i8", "i32") or not w.is_constant:
            return False
        if node.op == "matmul":
            return w.type.ndim == 2
        plain = node.attrs.get("layout") == "NHWC" and node.attrs.get("group", 1) == 1 and w.type.ndim == 4
        return plain and x.type.ndim == 4 and not any(p != 0 for p in _ints(node.attrs["pads"]))

    def compile(self, graph: Graph, settings: Settings) -> bytes:
        return super().compile(rewrite(graph, _tiled), settings)

    def needs(self) -> list[Need]:
        return target.needs()


def _ints(values: object) -> list[int]:
    return [int(getattr(v, "value", v)) for v in values]  # type: ignore[attr-defined]


def _up(n: int) -> int:
    return -(-n // SIDE) * SIDE


def _tiled(rw: Rewriter, node: Node) -> Value | None:
    """A product whose sizes are multiples of 16, and the part of it that was wanted."""
    if node.op == "conv":
        return _windows(rw, node)
    if node.op != "matmul":
        return None
    x, w = node.inputs
    weights = w.constant
    assert weights is not None
    *lead, k = x.type.static_shape
    m, n = int(np.prod(lead, dtype=np.int64)), weights.shape[1]
    if x.type.ndim == 2 and m % SIDE == k % SIDE == n % SIDE == 0:
        return None
    if x.type.ndim != 2:
        x = rw.add("reshape", [x], {"shape": (m, k)})
    if (m, k) != (_up(m), _up(k)):
        x = rw.add("pad", [x], {"pads": (0, 0, _up(m) - m, _up(k) - k)})
    wide = np.pad(weights, ((0, _up(k) - k), (0, _up(n) - n)))
    y = rw.add("matmul", [x, rw.constant(wide, w.name)], {}, node)
    if (m, n) != (_up(m), _up(n)):
        y = rw.add("slice", [y], {"starts": (0, 0), "shape": (m, n), "steps": (1, 1)})
    return y if len(lead) == 1 else rw.add("reshape", [y], {"shape": (*lead, n)})


def _windows(rw: Rewriter, node: Node) -> Value:
    """A convolution as a product: every window of the image a row."""
    x, w = node.inputs
    weights = w.constant
    assert weights is not None
    height, width, channels, filters = weights.shape
    (sh, sw), (dh, dw) = _ints(node.attrs["strides"]), _ints(node.attrs["dilations"])
    n, oh, ow, _ = node.output.type.static_shape
    parts = []
    for kh in range(height):
        for kw in range(width):
            at = {"starts": (0, kh * dh, kw * dw, 0), "shape": (n, oh, ow, channels), "steps": (1, sh, sw, 1)}
            parts.append(rw.add("slice", [x], at))
    rows = parts[0] if len(parts) == 1 else rw.add("concat", parts, {"axis": 3})
    depth = height * width * channels
    flat = rw.add("reshape", [rows], {"shape": (n * oh * ow, depth)})
    y = rw.add("matmul", [flat, rw.constant(weights.reshape(depth, filters), w.name)], {}, node)
    return rw.add("reshape", [y], {"shape": (n, oh, ow, filters)})


generator = AcceleratorGenerator(target)
