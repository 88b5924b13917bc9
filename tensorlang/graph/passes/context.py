"""What passes share: their options, and the report of what they did and why."""

from __future__ import annotations

from dataclasses import dataclass, field

from tensorlang.graph.ir import Node


@dataclass(frozen=True)
class Options:
    """How a graph is optimised; part of every cache key.

    Attributes:
        layout: "NHWC" moves convolutions to channels-last; "keep" leaves the model's layout.
        channels_second: even so, convolutions stay in the model's layout where transpositions cost more than they gain.
        flatten: turn pointwise convolutions and batched products with shared weights into two-dimensional products.
        winograd: let 3x3 convolutions at stride one be computed with fewer multiplications (see `ops.winograd` for the error).
        integers: compute products of quantised numbers in bytes and i32; pays where machines have an instruction for it.
        halves: compute products by constant weights of bf16 numbers, added up in f32 (`precision="bf16"`).
        lanes: f32 elements of a vector register; groups of convolutions are merged until they fill one.
        chain: let two products and the softmax between them be one kernel, which needs a schedule that keeps rows between.
        band_bytes: of lines of a product that windows read, which may be kept between the two in one kernel; 0: they have two.
        fold_limit: constants larger than this many bytes are not made out of smaller ones.
        max_group_nodes: the most nodes in one fused group; compile time grows with every statement of a kernel.
        max_group_inputs: the most inputs of one fused group.
    """

    layout: str = "NHWC"
    channels_second: bool = False
    flatten: bool = True
    winograd: bool = True
    integers: bool = True
    halves: bool = False
    lanes: int = 16
    chain: bool = False
    band_bytes: int = 0
    fold_limit: int = 1 << 22
    max_group_nodes: int = 40
    max_group_inputs: int = 24


@dataclass(frozen=True)
class Note:
    """One thing that a pass did: to which node, and why it may."""

    pass_name: str
    subject: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pass_name}: {self.subject}: {self.reason}"


@dataclass
class Context:
    """Handed to every pass: options to read, a report to write.

    Attributes:
        seconds: time spent by pass.
    """

    options: Options = field(default_factory=Options)
    notes: list[Note] = field(default_factory=list)
    pass_name: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def note(self, subject: str, reason: str) -> None:
        self.notes.append(Note(self.pass_name, subject, reason))


def subject_of(node: Node) -> str:
    """How a node is called in the report: the user's name for it, else its output's."""
    return node.name or node.output.name
