"""What a library tells of itself, as LLVM text: names, types, shapes and the texts of its statuses, and their accessors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tensorlang.codegen.library.interface import STATUS_TEXTS, UNKNOWN, Interface, Status, show


class _Strings:
    """Texts in one block, by their offsets: needs no relocation."""

    def __init__(self) -> None:
        self.block = bytearray()
        self.at: dict[str, int] = {}

    def add(self, text: str) -> int:
        if text not in self.at:
            self.at[text] = len(self.block)
            self.block += text.encode() + b"\0"
        return self.at[text]


def _array(name: str, type_: str, values: Iterable[int]) -> str:
    items = list(values) or [0]
    return f"@{name} = internal constant [{len(items)} x {type_}] [{', '.join(f'{type_} {v}' for v in items)}]"


def tables(interface: Interface, messages: Sequence[str]) -> list[str]:
    strings = _Strings()
    statuses = ["ok", *interface.checks, *messages]
    texts = [strings.add(t) for t in (*statuses, *STATUS_TEXTS.values(), UNKNOWN)]
    tensors = interface.tensors
    sizes = [d for t in tensors for d in t.shape]
    starts = [sum(len(t.shape) for t in tensors[:k]) for k in range(len(tensors))]
    lines = [
        _array("status_texts", "i32", texts),
        _array("tensor_names", "i32", (strings.add(t.name) for t in tensors)),
        _array("tensor_dtypes", "i32", (strings.add(t.dtype) for t in tensors)),
        _array("tensor_ranks", "i32", (len(t.shape) for t in tensors)),
        _array("tensor_starts", "i32", starts),
        _array("tensor_sizes", "i64", (d if isinstance(d, int) else -1 for d in sizes)),
        _array("tensor_dimensions", "i32", (strings.add("" if isinstance(d, int) else show(d)) for d in sizes)),
        _array("sizes", "i64", (d if isinstance(d, int) else -1 for t in interface.inputs for d in t.shape)),
    ]
    content = "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:02X}" for b in strings.block)
    lines.append(f'@strings = internal constant [{len(strings.block)} x i8] c"{content}"')
    lines.append(_STATUS_TEXT.format(p=interface.prefix, own=len(statuses), base=int(Status.OUT_OF_MEMORY),
                                     fixed=len(STATUS_TEXTS), unknown=len(texts) - 1))  # fmt: skip
    return lines


_STATUS_TEXT = """
define ptr @{p}_status_text(i32 %status) {{
  %own = icmp ult i32 %status, {own}
  %past = sub i32 %status, {base}
  %known = icmp ult i32 %past, {fixed}
  %moved = add i32 %past, {own}
  %other = select i1 %known, i32 %moved, i32 {unknown}
  %index = select i1 %own, i32 %status, i32 %other
  %at = getelementptr i32, ptr @status_texts, i32 %index
  %offset = load i32, ptr %at
  %text = getelementptr i8, ptr @strings, i32 %offset
  ret ptr %text
}}
"""


def descriptions(interface: Interface) -> list[str]:
    """Accessors: null or -1 for what is out of range."""
    lines = []
    for word, first, count in (("input", 0, len(interface.inputs)), ("output", len(interface.inputs), len(interface.outputs))):
        values = {"p": interface.prefix, "word": word, "first": first, "count": count}
        for name in ("name", "dtype"):
            lines.append(_TEXT_OF.format(**values, name=name))
        lines.append(_RANK_OF.format(**values))
        lines.append(_SIZE_OF.format(**values))
        lines.append(_DIMENSION_OF.format(**values))
    return lines


_TEXT_OF = """
define ptr @{p}_{word}_{name}(i32 %tensor) {{
  %fits = icmp ult i32 %tensor, {count}
  br i1 %fits, label %read, label %none
none:
  ret ptr null
read:
  %k = add i32 %tensor, {first}
  %at = getelementptr i32, ptr @tensor_{name}s, i32 %k
  %offset = load i32, ptr %at
  %text = getelementptr i8, ptr @strings, i32 %offset
  ret ptr %text
}}
"""
_RANK_OF = """
define i32 @{p}_{word}_rank(i32 %tensor) {{
  %fits = icmp ult i32 %tensor, {count}
  br i1 %fits, label %read, label %none
none:
  ret i32 -1
read:
  %k = add i32 %tensor, {first}
  %at = getelementptr i32, ptr @tensor_ranks, i32 %k
  %rank = load i32, ptr %at
  ret i32 %rank
}}
"""
_AXIS = """  %rank = call i32 @{p}_{word}_rank(i32 %tensor)
  %known = icmp sge i32 %rank, 0
  %inside = icmp ult i32 %axis, %rank
  %fits = and i1 %known, %inside
  br i1 %fits, label %read, label %none
read:
  %k = add i32 %tensor, {first}
  %start_at = getelementptr i32, ptr @tensor_starts, i32 %k
  %start = load i32, ptr %start_at
  %d = add i32 %start, %axis
"""
_SIZE_OF = "\ndefine i64 @{p}_{word}_size(i32 %tensor, i32 %axis) {{\n" + _AXIS + """\
  %at = getelementptr i64, ptr @tensor_sizes, i32 %d
  %size = load i64, ptr %at
  ret i64 %size
none:
  ret i64 -1
}}
"""
_DIMENSION_OF = "\ndefine ptr @{p}_{word}_dimension(i32 %tensor, i32 %axis) {{\n" + _AXIS + """\
  %at = getelementptr i32, ptr @tensor_dimensions, i32 %d
  %offset = load i32, ptr %at
  %text = getelementptr i8, ptr @strings, i32 %offset
  ret ptr %text
none:
  ret ptr null
}}
"""
