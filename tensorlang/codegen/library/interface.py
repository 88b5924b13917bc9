"""What an exported library is about: the names of its C functions, its tensors, its sizes, and what its statuses mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from tensorlang.codegen.intrinsics.abi import OUT_OF_MEMORY

Size = Any  # int | str | list: `runtime.sizes` says what they mean

MAX_SIZE = 1 << 40  # of one dimension: products of a few stay below 2^63


class Status(IntEnum):
    """What the C functions return beside 0 and the model's own checks (1, 2, ...)."""

    OUT_OF_MEMORY = OUT_OF_MEMORY
    INVALID = OUT_OF_MEMORY + 1
    NO_SHAPES = OUT_OF_MEMORY + 2
    WORKSPACE = OUT_OF_MEMORY + 3
    WEIGHTS = OUT_OF_MEMORY + 4
    FILE = OUT_OF_MEMORY + 5
    THREADS = OUT_OF_MEMORY + 6
    MACHINE = OUT_OF_MEMORY + 7


STATUS_TEXTS = {
    Status.OUT_OF_MEMORY: "out of memory",
    Status.INVALID: "a null pointer was given where data is needed",
    Status.NO_SHAPES: "the model has open dimensions: input_shapes has to be given",
    Status.WORKSPACE: "the workspace is smaller than workspace_bytes says",
    Status.WEIGHTS: "these are not the weights of this model: length, alignment (64) or checksum differ",
    Status.FILE: "the file of weights cannot be opened or mapped",
    Status.THREADS: "threads have to be 0 (one per processor) or 1 to 256, and the system has to give them",
    Status.MACHINE: "the processor lacks instructions that this library was compiled for",
}
UNKNOWN = "unknown status"

C_TYPES = {
    "bool": "uint8_t", "float32": "float", "float64": "double", "float16": "uint16_t", "bfloat16": "uint16_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """An input or output. `told`: its shape is known after a run only, and the library allocates it."""

    name: str
    dtype: str
    shape: tuple[Size, ...]
    itemsize: int
    told: bool = False


@dataclass(frozen=True)
class Interface:
    """One library.

    Attributes:
        prefix: of all its symbols, such as "tl_resnet50".
        dims: names of the open dimensions; `told`: of those that a run finds out.
        constraints: pairs of sizes that must be equal, with the node that needs it.
        checks: what the statuses 1, 2, ... of the model's program mean.
        arena: bytes that a run needs, a size.
        weights_bytes: length of the weights, a multiple of 64, at least 64.
        weights_sum: their checksum (`checksum`).
    """

    prefix: str
    model: str
    dims: tuple[str, ...]
    told: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constraints: tuple[tuple[Size, Size, str], ...]
    checks: tuple[str, ...]
    arena: Size
    weights_bytes: int
    weights_sum: int

    @classmethod
    def of(cls, manifest: Mapping[str, Any], weights: np.ndarray, stem: str) -> Interface:
        """The interface of a compiled model; `stem` is the library's file name without suffix, "libresnet50".

        Args:
            weights: padded by `padded`.
        """
        told = frozenset(manifest["told"])

        def tensors(entries: list[dict[str, Any]]) -> Iterator[Tensor]:
            for e in entries:
                shape = tuple(e["shape"])
                open_after = any(name in told for d in shape for name in names(d))
                yield Tensor(e["name"], e["dtype"], shape, itemsize(e["dtype"]), open_after)

        return cls(
            f"tl_{identifier(stem.removeprefix('lib'))}", manifest["model"], tuple(manifest["dims"]),
            tuple(manifest["told"]), tuple(tensors(manifest["inputs"])), tuple(tensors(manifest["outputs"])),
            tuple((a, b, str(node)) for a, b, node in manifest["constraints"]), tuple(manifest["checks"]),
            manifest["arena_bytes"], weights.nbytes, checksum(weights),
        )  # fmt: skip

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Inputs, then outputs."""
        return (*self.inputs, *self.outputs)

    @property
    def input_dims(self) -> int:
        """Sizes in `input_shapes`."""
        return sum(len(t.shape) for t in self.inputs)

    @property
    def output_dims(self) -> int:
        return sum(len(t.shape) for t in self.outputs)

    @property
    def is_static(self) -> bool:
        """Whether the sizes of all inputs are fixed."""
        return not self.dims


def identifier(text: str) -> str:
    """`text` as part of a C identifier."""
    return re.sub(r"\W", "_", text, flags=re.ASCII) or "model"


def names(size: Size) -> Iterator[str]:
    """The dimensions that a size mentions."""
    if isinstance(size, str):
        yield size
    elif not isinstance(size, int):
        for a in size[1:]:
            yield from names(a)


def show(size: Size) -> str:
    """A size for people."""
    symbols = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "floormod": "%"}
    if isinstance(size, int | str):
        return str(size)
    operands = [show(a) for a in size[1:]]
    if size[0] in symbols:
        return "(" + f" {symbols[size[0]]} ".join(operands) + ")"
    return f"{size[0]}({', '.join(operands)})"


def itemsize(dtype: str) -> int:
    """Bytes of an element by NumPy's name of its type; types of under 8 bits take a byte, as in memory."""
    if dtype == "bool":
        return 1
    if dtype.startswith("complex"):
        return int(dtype[7:]) // 8
    bits = re.match(r"(?:b?float|u?int)(\d+)", dtype)
    return max(1, int(bits[1]) // 8) if bits else 1


def padded(weights: np.ndarray) -> np.ndarray:
    """Flat bytes as a library holds them: a multiple of 64, and never none."""
    wanted = max(64, -(-weights.nbytes // 64) * 64)
    if wanted == weights.nbytes:
        return weights
    whole = np.zeros(wanted, np.uint8)
    whole[: weights.nbytes] = weights
    return whole


def checksum(weights: np.ndarray) -> int:
    """Sum over 64-bit words w[i] of w[i] (2 i + 1), modulo 2^64, signed: sees order, and runs at memory speed."""
    total = 0
    words = weights.view("<i8")
    for start in range(0, len(words), 1 << 20):
        part = words[start : start + (1 << 20)]
        odd = np.arange(start, start + len(part), dtype=np.int64) * 2 + 1
        total += int((part * odd).sum(dtype=np.int64))
    total &= (1 << 64) - 1
    return total - (1 << 64) if total >> 63 else total
