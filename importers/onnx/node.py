"""What a rule sees of a node: its inputs as graph values, its attributes, and the means to emit operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from tensorlang.errors import ModelError, TypeCheckError
from tensorlang.graph import (
    MOVING,
    DType,
    Expr,
    GraphBuilder,
    TensorType,
    Value,
    as_dtype,
    as_ints,
    canonical,
    constant,
    free_vars,
    get,
    runtime_dim,
)

from .external import mapped

MAX_SIZES = 64  # elements of a computed tensor that become dimensions
SIZE_LIMIT = 1 << 38  # bytes of one tensor
FOLD_LIMIT = 1 << 22  # bytes; a larger result that inputs are much smaller than is left to run time

_DTYPES = {
    onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.DOUBLE: "f64", onnx.TensorProto.FLOAT16: "f16",
    onnx.TensorProto.BFLOAT16: "bf16", onnx.TensorProto.BOOL: "bool",
    onnx.TensorProto.INT8: "i8", onnx.TensorProto.INT16: "i16", onnx.TensorProto.INT32: "i32",
    onnx.TensorProto.INT64: "i64", onnx.TensorProto.UINT8: "u8", onnx.TensorProto.UINT16: "u16",
    onnx.TensorProto.UINT32: "u32", onnx.TensorProto.UINT64: "u64",
    onnx.TensorProto.INT4: "i4", onnx.TensorProto.UINT4: "u4", onnx.TensorProto.INT2: "i2",
    onnx.TensorProto.UINT2: "u2", onnx.TensorProto.FLOAT8E4M3FN: "f8e4m3fn",
    onnx.TensorProto.FLOAT8E4M3FNUZ: "f8e4m3fnuz", onnx.TensorProto.FLOAT8E5M2: "f8e5m2",
    onnx.TensorProto.FLOAT8E5M2FNUZ: "f8e5m2fnuz", onnx.TensorProto.FLOAT8E8M0: "f8e8m0",
    onnx.TensorProto.FLOAT6E2M3: "f6e2m3", onnx.TensorProto.FLOAT6E3M2: "f6e3m2",
    onnx.TensorProto.FLOAT4E2M1: "f4e2m1",
}  # fmt: skip


class Unsupported(Exception):
    """A node whose operator is known but not in this form; becomes part of one `UnsupportedOpError`.

    Attributes:
        needs: values whose contents, if they were known beforehand, would make it supported.
    """

    def __init__(self, reason: str, needs: Sequence[Value] = ()):
        super().__init__(reason)
        self.needs = tuple(needs)


def element_type(code: int) -> DType:
    """The dtype of an ONNX element type.

    Raises:
        Unsupported: there is none for it.
    """
    if code not in _DTYPES:
        known = code in onnx.TensorProto.DataType.values()
        raise Unsupported(f"element type {onnx.TensorProto.DataType.Name(code) if known else code}")
    return as_dtype(_DTYPES[code])


def element_code(dtype: DType) -> int:
    """ONNX's number for a dtype."""
    return next(code for code, name in _DTYPES.items() if name == str(dtype))


def to_array(tensor: onnx.TensorProto, what: str) -> np.ndarray:
    """A tensor's contents.

    Raises:
        ModelError: they do not fit its type and shape.
        Unsupported: its element type is not one of ours.
    """
    kind = element_type(tensor.data_type)
    if any(d < 0 for d in tensor.dims):
        raise ModelError(f"{what}: a negative size in {list(tensor.dims)}")
    if (kept := mapped(tensor)) is not None:
        return kept
    try:
        array = numpy_helper.to_array(tensor)
    except Exception as error:
        raise ModelError(f"{what}: its contents cannot be read: {error}") from error
    if array.dtype != kind.numpy:
        raise ModelError(f"{what}: contents of {array.dtype}, declared {kind}")
    return array


class Misfit(ModelError):
    """A node that is wrong in itself, or whose inputs do not fit it: an error only if the node would run."""


def refuse_absurd(type_: TensorType, what: str) -> None:
    """
    Raises:
        ModelError: a tensor that no machine holds.
    """
    size = type_.dtype.bits // 8 or 1
    for d in type_.shape:
        size *= d.value if d.op == "const" else 1
    if size > SIZE_LIMIT:
        raise ModelError(f"{what} {type_}: {size} bytes, more than {SIZE_LIMIT}")


class Structured:
    """What a name may stand for beside a tensor: a sequence or an optional, whose structure is known while importing."""

    kind = "a sequence"

    def map(self, change: Callable[[Value], Value]) -> Structured:
        """The same structure of changed values."""
        raise NotImplementedError


Item = Value | Structured


class Emitter:
    """Appends operators to a graph under construction; what is known at build time is computed here and now."""

    def __init__(self) -> None:
        self.builder = GraphBuilder()

    def constant(self, array: Any, name: str = "const") -> Value:
        return constant(np.ascontiguousarray(array).reshape(np.shape(array)), self.builder.unique(name))

    def emit(
        self, op: str, inputs: Sequence[Value], attrs: Mapping[str, Any] | None, name: str
    ) -> Value | tuple[Value, ...]:
        for value in inputs:
            if value.dtype.is_narrow and op not in MOVING and not get(op).structure:
                raise Unsupported(f"{op} of {value.type}")
        try:
            made = self.builder.add(op, inputs, attrs, name)
        except IndexError as error:  # known contents, indexed beyond their end
            raise ModelError(f"node {name!r}: {op} of what is known of its inputs is impossible: {error}") from error
        outputs = made if isinstance(made, tuple) else (made,)
        for value in outputs:
            refuse_absurd(value.type, f"node {name!r} would make")
        try:
            arrays = self._folded(op, inputs, attrs or {}, outputs)
        except (IndexError, ValueError, ZeroDivisionError) as error:  # NumPy's word on constants of a model that is not sound
            raise ModelError(f"node {name!r}: {op} of its constant inputs is impossible: {error}") from error
        if arrays is None:
            return made
        self.builder.nodes.pop()
        constants = tuple(constant(a, v.name) for a, v in zip(arrays, outputs, strict=True))
        return constants if isinstance(made, tuple) else constants[0]

    def _folded(
        self, op: str, inputs: Sequence[Value], attrs: Mapping[str, Any], outputs: Sequence[Value]
    ) -> list[np.ndarray] | None:
        """The outputs as arrays, if they are known and not worth computing at run time."""
        if all(v.data is not None and all(e.op == "const" for e in v.data.flat) for v in outputs):
            return [
                np.array([e.value for e in v.data.flat], v.dtype.numpy).reshape(v.data.shape)  # type: ignore[union-attr]
                for v in outputs
            ]
        if op == "dequantize" and sum(v.constant.size for v in inputs if v.constant is not None) > MAX_SIZES:
            return None  # weights: whether their products are computed in integers is decided later
        if get(op).structure or not all(v.is_constant for v in inputs) or any(_has_symbols(a) for a in attrs.values()):
            return None
        size = 0
        for v in outputs:
            dims = as_ints(v.shape)
            if dims is None:
                return None
            size += int(np.prod(dims, dtype=np.int64)) * v.dtype.nbytes
        given = sum(v.constant.nbytes for v in inputs if v.constant is not None)
        if size > (FOLD_LIMIT if inputs else 1 << 12) and size > 2 * given:
            return None
        with np.errstate(all="ignore"):
            result = get(op).numpy(*(v.constant for v in inputs if v.constant is not None), **plain_attrs(attrs))
        arrays = result if isinstance(result, tuple) else (result,)
        return [
            np.ascontiguousarray(a, v.dtype.numpy).reshape(as_ints(v.shape))
            for a, v in zip(arrays, outputs, strict=True)
        ]


def plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _plain(v) for k, v in attrs.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Expr):
        return value.value
    return tuple(map(_plain, value)) if isinstance(value, tuple | list) else value


def _has_symbols(value: Any) -> bool:
    if isinstance(value, Expr):
        return value.op != "const"
    return any(map(_has_symbols, value)) if isinstance(value, tuple | list) else False


class OnnxNode:
    """One node while it is imported.

    Attributes:
        proto: the node itself.
        version: the opset version of its domain.
        inputs: its inputs in order; None where one is left out.
        host: who imports it: `body.Host`.
        subgraph: imports a subgraph attribute where the node stands, given values for its formal inputs.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        version: int,
        inputs: Sequence[Item | None],
        emitter: Emitter,
        host: Any,
    ):
        self.proto = proto
        self.version = version
        self.inputs = list(inputs)
        self.emitter = emitter
        self.host = host
        self.subgraph: Callable[[onnx.GraphProto, Sequence[Item]], list[Item]] = host.subgraph
        self._attributes = {a.name: a for a in proto.attribute}
        if len(self._attributes) != len(proto.attribute):
            names = [a.name for a in proto.attribute]
            raise self.fail(f"attribute {next(n for n in names if names.count(n) > 1)!r} is given twice")

    # -- messages --------------------------------------------------------------------------------------------------
    @property
    def label(self) -> str:
        """What messages and profiles call the node: its name, or its first output's."""
        return node_label(self.proto)

    def fail(self, reason: str) -> Misfit:
        """The error for a node that is wrong in itself: raise it."""
        return Misfit(f"node {self.label!r} ({self.proto.op_type}): {reason}")

    def unsupported(self, reason: str, *needs: Value) -> Unsupported:
        """The error for a node that is sound but not supported: raise it. `needs` are values that it lacks the contents of."""
        return Unsupported(reason, needs)

    # -- inputs ----------------------------------------------------------------------------------------------------
    def input(self, position: int) -> Value:
        """An input that must be there.

        Raises:
            ModelError: it is not.
        """
        value = self.optional(position)
        if value is None:
            raise self.fail(f"input {position} is missing")
        return value

    def optional(self, position: int) -> Value | None:
        found = self.item(position)
        if isinstance(found, Structured):
            raise self.unsupported(f"input {position} is {found.kind}")
        return found

    def item(self, position: int) -> Item | None:
        """An input of any type."""
        return self.inputs[position] if position < len(self.inputs) else None

    def subgraph_values(self, proto: onnx.GraphProto, inputs: Sequence[Item]) -> list[Value]:
        """`subgraph` where its results are tensors."""
        results = self.subgraph(proto, inputs)
        if any(isinstance(v, Structured) for v in results):
            raise self.unsupported("its body gives a sequence or an optional")
        return [v for v in results if isinstance(v, Value)]

    def all_inputs(self) -> list[Value]:
        """Every input; none may be left out."""
        return [self.input(i) for i in range(len(self.inputs))]

    def known(self, position: int, what: str) -> np.ndarray:
        """The contents of an input that must be known now.

        Raises:
            Unsupported: it is computed at run time.
        """
        array = self.known_or_none(position)
        if array is None:
            raise self.unsupported(f"{what} (input {position}) is computed at run time", self.input(position))
        return array

    def known_or_none(self, position: int) -> np.ndarray | None:
        value = self.optional(position)
        if value is None:
            return None
        if value.constant is not None:
            return value.constant
        if value.data is not None and all(e.op == "const" for e in value.data.flat):
            return np.array([e.value for e in value.data.flat], value.dtype.numpy).reshape(value.data.shape)
        return None

    def dims(self, position: int, what: str, low: int | None = 0) -> list[Expr]:
        """The elements of an integer input, as expressions of the model's dimensions.

        What only a run can tell gets a dimension of its own for each element; a run in which one is below `low` is refused.

        Raises:
            Unsupported: not even their number is known.
        """
        value = self.input(position)
        if value.data is None and value.constant is not None and value.dtype.is_int:
            return [canonical(int(n)) for n in value.constant.reshape(-1)]
        if value.data is not None:
            return list(value.data.reshape(-1))
        shape = as_ints(value.shape)
        if shape is None or len(shape) > 1 or sum(shape) > MAX_SIZES:
            raise self.unsupported(f"{what} (input {position}) depends on data: not even their number is known", value)
        return [self.bound(self._element(value, k), low) for k in range(shape[0] if shape else 1)]

    def _element(self, value: Value, k: int) -> Value:
        wide = value if value.dtype == as_dtype("i64") else self.add("cast", value, dtype=as_dtype("i64"))
        if value.type.ndim:
            wide = self.add("slice", wide, starts=(k,), shape=(1,), steps=(1,))
        return self.add("reshape", wide, shape=())

    def bound(self, value: Value, low: int | None = 0) -> Expr:
        """The integer that a value (one i64) holds, as a dimension."""
        size = runtime_dim(self.label_word, low)
        self.add("bind_size", value, defines=(size,), low=low)
        return size

    def sources_of(self, shape: Sequence[Expr]) -> list[Value]:
        """The values that tell the sizes in `shape` that only a run knows."""
        unknown = set().union(*(free_vars(d) for d in shape)) if shape else set()
        return [n.inputs[0] for n in self.emitter.builder.nodes if n.op == "bind_size" and unknown & set(n.defines)]

    @property
    def label_word(self) -> str:
        """The operator's name as a word, for dimensions."""
        return self.proto.op_type.lower()

    # -- attributes ------------------------------------------------------------------------------------------------
    def has(self, name: str) -> bool:
        return name in self._attributes

    def attr(self, name: str, default: Any = ...) -> Any:
        """An attribute: int, float, str, tuple of these, array or GraphProto; `default` if it is not there.

        Raises:
            ModelError: it is missing and there is no default.
        """
        found = self._attributes.get(name)
        if found is None:
            if default is ...:
                raise self.fail(f"attribute {name!r} is missing")
            return default
        value = onnx.helper.get_attribute_value(found)
        if found.type == onnx.AttributeProto.STRING:
            return value.decode()
        if found.type == onnx.AttributeProto.STRINGS:
            return tuple(s.decode() for s in value)
        if found.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
            return tuple(value)
        if found.type == onnx.AttributeProto.TENSOR:
            return to_array(value, f"node {self.label!r}: attribute {name!r}")
        if found.type in (onnx.AttributeProto.INT, onnx.AttributeProto.FLOAT, onnx.AttributeProto.GRAPH):
            return value
        raise self.unsupported(f"attribute {name!r} of type {onnx.AttributeProto.AttributeType.Name(found.type)}")

    def graph(self, name: str) -> onnx.GraphProto:
        """An attribute that is a graph.

        Raises:
            ModelError: it is missing, or something else.
        """
        found = self.attr(name)
        if not isinstance(found, onnx.GraphProto):
            raise self.fail(f"attribute {name!r} is no graph")
        return found

    def attributes(self) -> dict[str, Any]:
        return {name: self.attr(name) for name in self._attributes}

    def dtype_attr(self, name: str, default: str | None = None) -> DType:
        """An attribute that names an element type."""
        code = self.attr(name, None)
        if code is None:
            if default is None:
                raise self.fail(f"attribute {name!r} is missing")
            return as_dtype(default)
        return element_type(code)

    def choice(self, name: str, default: str, *allowed: str) -> str:
        """A string attribute that takes one of a few values."""
        value = self.attr(name, default)
        if value not in (default, *allowed):
            raise self.fail(f"attribute {name}={value!r}; known: {', '.join(sorted({default, *allowed}))}")
        return value

    def axis(self, name: str, ndim: int, default: Any = ...) -> int:
        return self.normal_axis(self.attr(name, default), ndim)

    def normal_axis(self, axis: int, ndim: int) -> int:
        axis = int(axis)
        if not -ndim <= axis < max(ndim, 1):
            raise self.fail(f"axis {axis} of a tensor with {ndim} dimension(s)")
        return axis + ndim if axis < 0 else axis

    def normal_axes(self, axes: Sequence[int] | np.ndarray, ndim: int) -> tuple[int, ...]:
        found = tuple(self.normal_axis(int(a), ndim) for a in np.asarray(axes).reshape(-1))
        if len(set(found)) != len(found):
            raise self.fail(f"axes {list(map(int, axes))} name a dimension twice")
        return found

    # -- outputs ---------------------------------------------------------------------------------------------------
    @property
    def output_count(self) -> int:
        return len(self.proto.output)

    def wants(self, position: int) -> bool:
        """Whether anybody asks for an output."""
        return position < len(self.proto.output) and self.proto.output[position] in self.host.read

    def add(self, op: str, *inputs: Value, **attrs: Any) -> Value:
        """Emit an operator with one output (or compute it now, if it is known)."""
        value = self.add_all(op, *inputs, **attrs)
        assert isinstance(value, Value)
        return value

    def add_all(self, op: str, *inputs: Value, **attrs: Any) -> Value | tuple[Value, ...]:
        try:
            return self.emitter.emit(op, inputs, attrs, self.label)
        except TypeCheckError as error:
            raise self.fail(_without_location(str(error))) from error

    def constant(self, array: Any, like: Value | DType | None = None) -> Value:
        """A constant value; `like` gives its element type."""
        kind = like.dtype if isinstance(like, Value) else like
        return self.emitter.constant(np.asarray(array, None if kind is None else kind.numpy), f"{self.label}_const")


def size_value(node: OnnxNode, value: Value, axis: int) -> Value:
    """The size of a dimension as an i64 value."""
    return node.add("reshape", node.add("shape", value, start=axis, end=axis + 1), shape=())


def reversed_rows(node: OnnxNode, value: Value) -> Value:
    """`value` from the last to the first along its first dimension."""
    rest = value.type.ndim - 1
    return node.add("slice", value, starts=(value.shape[0] - 1, *(0,) * rest), shape=value.shape, steps=(-1, *(1,) * rest))


def node_label(proto: onnx.NodeProto) -> str:
    return proto.name or next((o for o in proto.output if o), proto.op_type)


def _without_location(message: str) -> str:
    """An error of the expression language without the file:line of this package's user, which means nothing here."""
    place, _, rest = message.partition(": ")
    return rest if ":" in place and place.rpartition(":")[2].isdigit() else message
