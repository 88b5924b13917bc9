"""A graph as an ONNX model: the importer's other direction, for the operators that ONNX has under the same meaning.

    model = to_onnx(graph)                     # onnx.ModelProto
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tensorlang.errors import UnsupportedOpError
from tensorlang.graph.ir import Graph, Node, Value
from tensorlang.ir.dtype import dtype as as_dtype
from tensorlang.ir.expr import wrap

OPSET = 20
IR_VERSION = 10
_TYPES = {
    "f32": TensorProto.FLOAT, "f64": TensorProto.DOUBLE, "f16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16,
    "i8": TensorProto.INT8, "i16": TensorProto.INT16, "i32": TensorProto.INT32, "i64": TensorProto.INT64,
    "u8": TensorProto.UINT8, "u16": TensorProto.UINT16, "u32": TensorProto.UINT32, "u64": TensorProto.UINT64,
    "bool": TensorProto.BOOL,
}  # fmt: skip


class Writer:
    """A model while it is written."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.names: dict[Value, str] = {}
        self.taken: set[str] = set()

    def fresh(self, hint: str) -> str:
        """A name that nothing has yet."""
        name, serial = hint, 1
        while name in self.taken:
            name, serial = f"{hint}_{serial}", serial + 1
        self.taken.add(name)
        return name

    def name(self, value: Value) -> str:
        """What a value is called; constants become initializers at their first use."""
        if value not in self.names:
            self.names[value] = self.fresh(value.name)
            if value.constant is not None:
                tensor = numpy_helper.from_array(np.ascontiguousarray(value.constant).reshape(value.constant.shape))
                tensor.name = self.names[value]
                self.initializers[tensor.name] = tensor
        return self.names[value]

    def constant(self, array: Any, dtype: Any = np.int64) -> str:
        """An initializer of its own."""
        name = self.fresh("c")
        tensor = numpy_helper.from_array(np.asarray(array, dtype))
        tensor.name = name
        self.initializers[name] = tensor
        return name

    def put(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attrs: Any) -> None:
        """Append a node."""
        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), **attrs))

    def emit(self, op: str, node: Node, *extra: str, **attrs: Any) -> None:
        """`node` as one ONNX node: its inputs, then `extra`."""
        self.put(op, [*map(self.name, node.inputs), *extra], [self.name(v) for v in node.outputs], **attrs)


Rule = Callable[[Writer, Node], None]
RULES: dict[str, Rule] = {}


class NoWord(Exception):
    """ONNX, or this exporter, has no word for this node."""


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register how graph operators are written."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return register


def ints(values: Sequence[Any]) -> list[int]:
    """Integers that are known."""
    found = [wrap(v) for v in values]
    if not all(e.op == "const" for e in found):
        raise NoWord("an attribute depends on open dimensions")
    return [int(e.value) for e in found]


def shape_of(values: Sequence[Any]) -> list[int]:
    """A target shape, of which ONNX can leave one dimension to be found out."""
    found = [wrap(v) for v in values]
    unknown = [e for e in found if e.op != "const"]
    if len(unknown) > 1 or (unknown and any(e.op == "const" and e.value == 0 for e in found)):
        raise NoWord("a shape with several open dimensions")
    return [-1 if e.op != "const" else int(e.value) for e in found]


def _plainly(op: str, *attributes: str) -> Rule:
    def write(w: Writer, node: Node) -> None:
        if set(node.attrs) - set(attributes):
            raise NoWord(f"attributes {sorted(set(node.attrs) - set(attributes))}")
        w.emit(op, node, **node.attrs)

    return write


RULES.update({
    name: _plainly(op, *attrs.split())
    for name, op, attrs in (
        ("add", "Add", ""), ("sub", "Sub", ""), ("mul", "Mul", ""), ("div", "Div", ""), ("pow", "Pow", ""),
        ("and", "And", ""), ("or", "Or", ""), ("xor", "Xor", ""), ("not", "Not", ""), ("equal", "Equal", ""),
        ("less", "Less", ""), ("less_equal", "LessOrEqual", ""), ("greater", "Greater", ""),
        ("greater_equal", "GreaterOrEqual", ""), ("where", "Where", ""), ("minimum", "Min", ""), ("maximum", "Max", ""),
        ("abs", "Abs", ""), ("neg", "Neg", ""), ("exp", "Exp", ""), ("log", "Log", ""), ("sqrt", "Sqrt", ""),
        ("reciprocal", "Reciprocal", ""), ("floor", "Floor", ""), ("ceil", "Ceil", ""), ("round", "Round", ""),
        ("sign", "Sign", ""), ("erf", "Erf", ""), ("sin", "Sin", ""), ("cos", "Cos", ""), ("tan", "Tan", ""),
        ("sinh", "Sinh", ""), ("cosh", "Cosh", ""), ("tanh", "Tanh", ""), ("sigmoid", "Sigmoid", ""), ("relu", "Relu", ""),
        ("arcsin", "Asin", ""), ("arccos", "Acos", ""), ("arctan", "Atan", ""), ("arcsinh", "Asinh", ""),
        ("arccosh", "Acosh", ""), ("arctanh", "Atanh", ""), ("isnan", "IsNaN", ""), ("identity", "Identity", ""),
        ("softplus", "Softplus", ""), ("softsign", "Softsign", ""), ("mish", "Mish", ""), ("hard_swish", "HardSwish", ""),
        ("matmul", "MatMul", ""), ("prelu", "PRelu", ""), ("det", "Det", ""),
        ("softmax", "Softmax", "axis"), ("log_softmax", "LogSoftmax", "axis"), ("concat", "Concat", "axis"),
        ("gather", "Gather", "axis"), ("gather_elements", "GatherElements", "axis"), ("gather_nd", "GatherND", "batch_dims"),
        ("scatter_elements", "ScatterElements", "axis reduction"), ("scatter_nd", "ScatterND", "reduction"),
        ("depth_to_space", "DepthToSpace", "blocksize mode"), ("lp_norm", "LpNormalization", "axis p"),
        ("lrn", "LRN", "size alpha beta bias"), ("instance_norm", "InstanceNormalization", "epsilon"),
        ("gelu", "Gelu", "approximate"),
    )
})  # fmt: skip
# Attributes whose defaults differ between our operators and ONNX's are always written out.
_DEFAULTS: dict[str, tuple[str, dict[str, float]]] = {
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}), "thresholded_relu": ("ThresholdedRelu", {"alpha": 1.0}),
    "elu": ("Elu", {"alpha": 1.0}), "celu": ("Celu", {"alpha": 1.0}), "selu": ("Selu", {}),
    "hard_sigmoid": ("HardSigmoid", {}), "shrink": ("Shrink", {"bias": 0.0, "lambd": 0.5}),
}  # fmt: skip


@rule(*_DEFAULTS)
def _with_numbers(w: Writer, node: Node) -> None:
    op, defaults = _DEFAULTS[node.op]
    w.emit(op, node, **{name: float(v) for name, v in {**defaults, **node.attrs}.items()})


@rule("silu")
def _silu(w: Writer, node: Node) -> None:
    gate = w.fresh("gate")
    w.put("Sigmoid", [w.name(node.inputs[0])], [gate])
    w.put("Mul", [w.name(node.inputs[0]), gate], [w.name(node.output)])


@rule("rsqrt")
def _rsqrt(w: Writer, node: Node) -> None:
    root = w.fresh("root")
    w.put("Sqrt", [w.name(node.inputs[0])], [root])
    w.put("Reciprocal", [root], [w.name(node.output)])


@rule("not_equal")
def _not_equal(w: Writer, node: Node) -> None:
    same = w.fresh("same")
    w.put("Equal", [w.name(v) for v in node.inputs], [same])
    w.put("Not", [same], [w.name(node.output)])


@rule("mod")
def _mod(w: Writer, node: Node) -> None:
    w.emit("Mod", node, fmod=int(bool(node.attrs.get("fmod", False))))


@rule("cast")
def _cast(w: Writer, node: Node) -> None:
    to = as_dtype(node.attrs["dtype"]).name
    if to not in _TYPES:
        raise NoWord(f"a cast to {to}")
    w.emit("Cast", node, to=_TYPES[to])


@rule("clip")
def _clip(w: Writer, node: Node) -> None:
    kind = node.inputs[0].dtype.numpy
    limits = [node.attrs.get(side) for side in ("min", "max")]
    w.emit("Clip", node, *("" if limit is None else w.constant(limit, kind) for limit in limits))


@rule("reshape")
def _reshape(w: Writer, node: Node) -> None:
    w.emit("Reshape", node, w.constant(shape_of(node.attrs["shape"])), allowzero=int(0 in shape_of(node.attrs["shape"])))


@rule("expand")
def _expand(w: Writer, node: Node) -> None:
    w.emit("Expand", node, w.constant(ints(node.attrs["shape"])))


@rule("tile")
def _tile(w: Writer, node: Node) -> None:
    w.emit("Tile", node, w.constant(ints(node.attrs["repeats"])))


@rule("transpose")
def _transpose(w: Writer, node: Node) -> None:
    w.emit("Transpose", node, perm=ints(node.attrs["perm"]))


@rule("slice")
def _slice(w: Writer, node: Node) -> None:
    starts, steps = ints(node.attrs["starts"]), ints(node.attrs["steps"])
    shape = [wrap(d) for d in node.attrs["shape"]]
    ends, used = [], []
    for axis, (start, step, size) in enumerate(zip(starts, steps, shape, strict=True)):
        whole = start == 0 and step == 1 and size is node.inputs[0].shape[axis]
        if whole:
            continue
        if size.op != "const":
            raise NoWord("a slice of open size")
        end = start + step * int(size.value)
        ends.append(end if end >= 0 else -(2**62))
        used.append(axis)
    parameters = [[starts[a] for a in used], ends, used, [steps[a] for a in used]]
    w.emit("Slice" if used else "Identity", node, *(w.constant(p) for p in parameters if used))


@rule("pad")
def _pad(w: Writer, node: Node) -> None:
    mode = node.attrs.get("mode", "constant")
    pads = w.constant(ints(node.attrs["pads"]))
    x, *fill = map(w.name, node.inputs)
    if mode == "constant" and not fill:
        fill = [w.constant(node.attrs.get("value", 0), node.inputs[0].dtype.numpy)]
    w.put("Pad", [x, pads, *fill], [w.name(node.output)], mode=mode)


@rule("trilu")
def _trilu(w: Writer, node: Node) -> None:
    w.emit("Trilu", node, w.constant(int(node.attrs.get("k", 0))), upper=int(node.attrs.get("upper", True)))


@rule("cumsum")
def _cumsum(w: Writer, node: Node) -> None:
    flags = {k: int(bool(node.attrs.get(k, False))) for k in ("exclusive", "reverse")}
    w.emit("CumSum", node, w.constant(int(node.attrs["axis"])), **flags)


@rule("argmax", "argmin")
def _arg(w: Writer, node: Node) -> None:
    attrs = {"keepdims": int(node.attrs.get("keepdims", True)), "select_last_index": int(node.attrs.get("last", False))}
    w.emit("ArgMax" if node.op == "argmax" else "ArgMin", node, axis=int(node.attrs["axis"]), **attrs)


_REDUCTIONS = {
    "reduce_sum": "ReduceSum", "reduce_mean": "ReduceMean", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd", "reduce_l1": "ReduceL1", "reduce_l2": "ReduceL2", "reduce_log_sum": "ReduceLogSum",
    "reduce_log_sum_exp": "ReduceLogSumExp", "reduce_sum_square": "ReduceSumSquare",
}  # fmt: skip


@rule(*_REDUCTIONS)
def _reduce(w: Writer, node: Node) -> None:
    axes = node.attrs["axes"]
    every = list(range(node.inputs[0].type.ndim)) if axes is None else ints(axes)
    keep = int(node.attrs.get("keepdims", True))
    w.emit(_REDUCTIONS[node.op], node, w.constant(every), keepdims=keep, noop_with_empty_axes=1)


@rule("layer_norm")
def _layer_norm(w: Writer, node: Node) -> None:
    x, *parameters = node.inputs
    axis = int(node.attrs["axis"]) % x.type.ndim
    if any(p.type.ndim != x.type.ndim - axis for p in parameters):
        raise NoWord("parameters that are broadcast")
    w.emit("LayerNormalization", node, axis=axis, epsilon=float(node.attrs.get("epsilon", 1e-5)))


@rule("batch_norm")
def _batch_norm(w: Writer, node: Node) -> None:
    if node.attrs.get("axis", 1) != 1:
        raise NoWord("channels elsewhere than second")
    w.emit("BatchNormalization", node, epsilon=float(node.attrs.get("epsilon", 1e-5)))


def _window(node: Node) -> dict[str, Any]:
    if node.attrs.get("layout", "NCHW") != "NCHW":
        raise NoWord("channels last")
    return {k: ints(node.attrs[k]) for k in ("strides", "pads", "dilations")}


@rule("conv", "conv_transpose")
def _conv(w: Writer, node: Node) -> None:
    attrs = {**_window(node), "group": int(node.attrs.get("group", 1))}
    if node.op == "conv_transpose":
        attrs["output_padding"] = ints(node.attrs["output_padding"])
    w.emit("Conv" if node.op == "conv" else "ConvTranspose", node, **attrs)


@rule("max_pool", "avg_pool", "lp_pool")
def _pool(w: Writer, node: Node) -> None:
    attrs = {**_window(node), "kernel_shape": ints(node.attrs["kernel"]), "ceil_mode": int(node.attrs.get("ceil_mode", False))}
    if node.op == "avg_pool":
        attrs["count_include_pad"] = int(node.attrs.get("count_include_pad", False))
    if node.op == "lp_pool":
        attrs["p"] = int(node.attrs.get("p", 2))
    w.emit({"max_pool": "MaxPool", "avg_pool": "AveragePool", "lp_pool": "LpPool"}[node.op], node, **attrs)


@rule("full")
def _full(w: Writer, node: Node) -> None:
    kind = as_dtype(node.attrs["dtype"])
    if kind.name not in _TYPES:
        raise NoWord(f"numbers of type {kind.name}")
    value = numpy_helper.from_array(np.asarray([node.attrs["value"]], kind.numpy))
    w.put("ConstantOfShape", [w.constant(ints(node.attrs["shape"]))], [w.name(node.output)], value=value)


@rule("quantize", "dequantize")
def _linear(w: Writer, node: Node) -> None:
    kind = str(node.attrs.get("to", node.attrs.get("of")))
    plain = not node.attrs.get("block") and not node.attrs.get("precision") and node.attrs.get("saturate", True)
    if kind not in ("i8", "u8") or not plain or len(node.inputs) != 3:
        raise NoWord(f"quantisation to {kind}")
    if node.op == "dequantize" and as_dtype(node.attrs["dtype"]).name != "f32":
        raise NoWord("dequantisation to another type than f32")
    w.emit("QuantizeLinear" if node.op == "quantize" else "DequantizeLinear", node, axis=int(node.attrs.get("axis", 0)))


# -- whole graphs -----------------------------------------------------------------------------------------------------


def write_node(w: Writer, node: Node) -> None:
    """Append `node`.

    Raises:
        NoWord: it cannot be said in ONNX.
    """
    if node.op not in RULES:
        raise NoWord(f"operator {node.op}")
    if strange := [v.dtype.name for v in (*node.inputs, *node.outputs) if v.dtype.name not in _TYPES]:
        raise NoWord(f"values of type {strange[0]}")
    RULES[node.op](w, node)


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """`graph` as an ONNX model of opset 20, inputs and outputs under their own names.

    Raises:
        UnsupportedOpError: ONNX has no word for some node; all are listed.
    """
    w = Writer()
    for value in graph.inputs:
        w.names[value] = w.fresh(value.name)
    missing: list[tuple[str, str, str]] = []
    for node in graph.nodes:
        try:
            write_node(w, node)
        except NoWord as reason:
            missing.append((node.op, node.name, f"it cannot be written as ONNX: {reason}"))
    if missing:
        raise UnsupportedOpError(missing)
    names = graph.output_names or [v.name for v in graph.outputs]
    given: list[str] = []
    for k, value in enumerate(graph.outputs):  # ONNX wants each output made by a node, and named once
        name = w.fresh(names[k])
        w.put("Identity", [w.name(value)], [name])
        given.append(name)
    made = helper.make_graph(
        w.nodes,
        graph.name,
        [_info(w.names[v], v) for v in graph.inputs],
        [_info(name, v) for name, v in zip(given, graph.outputs, strict=True)],
        list(w.initializers.values()),
    )
    return helper.make_model(
        made, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="tensorlang"
    )


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    shape = [int(d.value) if d.op == "const" else d.name if d.op == "var" else None for d in value.shape]
    return helper.make_tensor_value_info(name, _TYPES[value.dtype.name], shape)
