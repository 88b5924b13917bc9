"""Damaged models, made from sound ones by flipping bits, cutting, and editing fields; judged in a process of their own.

    python -m tests.errors.corruption SEED COUNT

Each damaged model is to give a typed error or a correct run: no other exception, no crash, no more than `SECONDS` and
`MEMORY` bytes. Prints one line per model that does not; crashes end the process, whose parent then knows the last number.
"""

from __future__ import annotations

import resource
import signal
import sys
import time

import numpy as np
import onnx
from onnx import helper, numpy_helper

import tensorlang as tl
from tensorlang.errors import TensorlangError
from tests.importers.models import model, node

SECONDS = 10
MEMORY = 12 << 30
F = np.float32


def sound_models() -> list[onnx.ModelProto]:
    rng = np.random.default_rng(0)
    classifier = model(
        [node("MatMul", ["x", "w"], ["h"], name="fc"), node("Add", ["h", "b"], ["i"]), node("Softmax", ["i"], ["y"], axis=-1)],
        [("x", F, [2, 8])], ["y"], {"w": rng.random((8, 5), F), "b": np.zeros(5, F)},
    )  # fmt: skip
    image = model(
        [
            node("Conv", ["x", "w"], ["h"], name="conv", pads=[1, 1, 1, 1]),
            node("Relu", ["h"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Flatten", ["p"], ["y"]),
        ],
        [("x", F, [1, 3, 8, 8])], ["y"], {"w": rng.random((4, 3, 3, 3), F)},
    )  # fmt: skip
    shapes = model(
        [
            node("Shape", ["x"], ["s"]),
            node("Gather", ["s", "zero"], ["n"]),
            node("Unsqueeze", ["n", "axes"], ["m"]),
            node("Concat", ["m", "rest"], ["t"], axis=0),
            node("Reshape", ["x", "t"], ["r"]),
            node("ReduceMean", ["r", "axes"], ["y"], keepdims=0),
        ],
        [("x", F, ["batch", 6])], ["y"],
        {"zero": np.array(0), "axes": np.array([0]), "rest": np.array([-1, 2])},
    )  # fmt: skip
    return [classifier, image, shapes]


def damaged(content: bytes, rng: np.random.Generator, cheap: bool = False) -> bytes:
    """One damage of a kind that `rng` picks; `cheap`: none that mostly leaves a sound model (flipped bits of weights)."""
    kind = rng.integers(1 if cheap else 0, 4)
    if kind == 0:
        flipped = bytearray(content)
        for position in rng.integers(0, len(content), rng.integers(1, 6)):
            flipped[position] ^= 1 << rng.integers(8)
        return bytes(flipped)
    if kind == 1:
        return content[: rng.integers(len(content))]
    if kind == 2:
        begin = rng.integers(len(content))
        return content[:begin] + content[begin + rng.integers(1, 40) :]
    return edited(content, rng)


NUMBERS = (0, -1, 1, 2, 7, 1 << 20, 1 << 40, -(1 << 62), (1 << 63) - 1)


def edited(content: bytes, rng: np.random.Generator) -> bytes:
    """A field of the protobuf that means something else: still a file that parses."""
    proto = onnx.ModelProto()
    proto.ParseFromString(content)
    graph, number = proto.graph, int(NUMBERS[rng.integers(len(NUMBERS))])
    target = graph.node[rng.integers(len(graph.node))]
    names = [n for other in graph.node for n in (*other.input, *other.output)] + ["", "nowhere"]
    kind = rng.integers(8)
    if kind == 0:
        target.op_type = ["Add", "Gemm", "Concat", "Conv", "Loop", "TopK", "Nothing", ""][rng.integers(8)]
    elif kind == 1 and target.input:
        target.input[rng.integers(len(target.input))] = names[rng.integers(len(names))]
    elif kind == 2:
        target.output[0] = names[rng.integers(len(names))]
    elif kind == 3 and target.attribute:
        attribute = target.attribute[rng.integers(len(target.attribute))]
        target.attribute.remove(attribute)
        if rng.integers(2):
            target.attribute.append(helper.make_attribute(attribute.name, [number, number] if attribute.ints else number))
    elif kind == 4:
        dim = graph.input[rng.integers(len(graph.input))].type.tensor_type.shape.dim
        if dim:
            dim[rng.integers(len(dim))].dim_value = number
    elif kind == 5 and graph.initializer:
        tensor = graph.initializer[rng.integers(len(graph.initializer))]
        if tensor.dims:
            tensor.dims[rng.integers(len(tensor.dims))] = number
    elif kind == 6 and graph.initializer:
        graph.initializer[rng.integers(len(graph.initializer))].data_type = int(rng.integers(0, 30))
    else:
        integers = [t for t in graph.initializer if t.data_type == onnx.TensorProto.INT64]
        if integers:
            tensor = integers[rng.integers(len(integers))]
            changed = np.full_like(numpy_helper.to_array(tensor), number)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
        elif target.attribute:
            target.attribute.append(target.attribute[0])
    return proto.SerializeToString()


def judge(content: bytes) -> None:
    """Import, compile and run; typed errors are what is expected of a damaged model."""
    try:
        graph = tl.from_onnx(content)
        sizes = [d.value for v in graph.inputs for d in v.shape if d.op == "const"]
        if int(np.prod(sizes, dtype=np.float64)) > 1 << 16:
            return  # sound, but more than a test should run
        exe = tl.compile(graph)
        feeds = {i.name: np.ones([d if isinstance(d, int) else 2 for d in i.shape], i.dtype) for i in exe.inputs}
        exe.run(feeds)
    except TensorlangError:
        return


def main(seed: int, count: int) -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    rng, wrong = np.random.default_rng(seed), 0
    contents = [m.SerializeToString() for m in sound_models()]
    for content in contents:  # what is loaded once, is not the fault of the first damaged model
        judge(content)

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    for number in range(count):
        content = damaged(contents[number % len(contents)], rng)
        print(f"at {number}", file=sys.stderr, flush=True)
        begun = time.monotonic()
        signal.alarm(SECONDS)
        try:
            judge(content)
        except Exception as error:
            wrong += 1
            print(f"{number}: {type(error).__name__}: {str(error)[:300]} after {time.monotonic() - begun:.1f} s", flush=True)
        finally:
            signal.alarm(0)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
