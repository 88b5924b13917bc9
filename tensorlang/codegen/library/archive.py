"""Static libraries (`.a`), and constant data as an object file. Source: System V ABI chapter 4, GNU's archive format."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from tensorlang.codegen.elf.reader import read_object
from tensorlang.errors import BuildError

_ALIGNMENT = 4096
_MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243}


def static_library(members: Mapping[str, bytes], symbols: Mapping[str, Sequence[str]]) -> bytes:
    """An archive with a symbol table, the same bytes for the same members.

    Args:
        members: object files by name (at most 15 characters).
        symbols: global symbols that each member defines.
    """
    if long := [name for name in members if len(name) > 15]:
        raise BuildError(f"names in a static library have at most 15 characters: {', '.join(long)}")
    names = [(symbol, member) for member in members for symbol in symbols.get(member, ())]
    table = 4 + 4 * len(names) + sum(len(n) + 1 for n, _ in names)
    at: dict[str, int] = {}
    position = 8 + 60 + table + table % 2
    for name, content in members.items():
        at[name] = position
        position += 60 + len(content) + len(content) % 2
    index = struct.pack(">I", len(names)) + b"".join(struct.pack(">I", at[m]) for _, m in names)
    index += b"".join(n.encode() + b"\0" for n, _ in names)
    parts = [b"!<arch>\n", _member("/", index)]
    parts += [_member(f"{name}/", content) for name, content in members.items()]
    return b"".join(parts)


def _member(name: str, content: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


def weights_object(symbol: str, data: bytes | memoryview, like: bytes) -> bytes:
    """An object file that defines `symbol` as read-only data that begins on a page.

    Args:
        like: an object of the machine that it is for.
    """
    model = read_object(like)
    strings = b"\0" + symbol.encode() + b"\0"
    sections = b"\0.rodata\0.symtab\0.strtab\0.shstrtab\0.note.GNU-stack\0"
    symbols = bytes(24) + struct.pack("<IBBHQQ", 1, 1 << 4 | 1, 2, 1, 0, len(data))  # global, hidden
    content_at = _ALIGNMENT
    symbols_at = content_at + -(-len(data) // 8) * 8
    strings_at = symbols_at + len(symbols)
    names_at = strings_at + len(strings)
    table_at = -(-(names_at + len(sections)) // 8) * 8

    def header(
        name: bytes, kind: int, flags: int, at: int, size: int, *, link: int = 0, info: int = 0, align: int = 1, entry: int = 0
    ) -> bytes:
        return struct.pack("<IIQQQQIIQQ", sections.index(name), kind, flags, 0, at, size, link, info, align, entry)

    table = bytes(64) + b"".join([
        header(b".rodata", 1, 2, content_at, len(data), align=_ALIGNMENT),
        header(b".symtab", 2, 0, symbols_at, len(symbols), link=3, info=1, align=8, entry=24),
        header(b".strtab", 3, 0, strings_at, len(strings)),
        header(b".shstrtab", 3, 0, names_at, len(sections)),
        header(b".note.GNU-stack", 1, 0, table_at, 0),
    ])  # fmt: skip
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", identity, 1, _MACHINES[model.machine], 1, 0, 0, table_at, model.flags, 64, 0, 0, 64, 6, 4
    )
    file = bytearray(table_at)
    file[: len(head)] = head
    file[content_at : content_at + len(data)] = data
    file[symbols_at : symbols_at + len(symbols)] = symbols
    file[strings_at : strings_at + len(strings)] = strings
    file[names_at : names_at + len(sections)] = sections
    return bytes(file) + table
