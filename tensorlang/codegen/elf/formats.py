"""The two classes of ELF files: what packs and unpacks their records, 64-bit and 32-bit (System V ABI, chapters 4 and 5)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One class.

    Attributes:
        bits: width of an address.
        magic: the file's first six bytes; little-endian in both.
        header, program, section, symbol, dynamic, relocation: bytes of a record; a dynamic relocation has its addend where
            `has_addends`, else it stands at the place itself.
        rel: tags of the dynamic section for the relocations: table, size, size of an entry.
    """

    bits: int
    magic: bytes
    header: int
    program: int
    section: int
    symbol: int
    dynamic: int
    relocation: int
    has_addends: bool
    rel: tuple[int, int, int]

    def _word(self, text: str) -> str:
        """A `struct` format in which W is a word of an address's width."""
        return "<" + text.replace("W", "Q" if self.bits == 64 else "I")

    def pack_header(
        self, machine: int, entry: int, table: int, flags: int, programs: int, sections: int, names: int
    ) -> bytes:
        """The file header of a shared library; section headers begin at `table`, section `names` holds their names."""
        return struct.pack(
            self._word("16sHHIWWWIHHHHHH"), self.magic.ljust(16, b"\0"), 3, machine, 1, entry, self.header, table, flags,
            self.header, self.program, programs, self.section, sections, names,
        )  # fmt: skip

    def pack_program(self, kind: int, permissions: int, at: int, size: int, memory: int, alignment: int) -> bytes:
        """A program header; addresses are offsets in the file."""
        if self.bits == 64:
            return struct.pack("<IIQQQQQQ", kind, permissions, at, at, at, size, memory, alignment)
        return struct.pack("<IIIIIIII", kind, at, at, at, size, memory, permissions, alignment)

    def pack_section(self, fields: Sequence[int]) -> bytes:
        """A section header: name, type, flags, address, offset, size, link, info, alignment, bytes of an entry."""
        return struct.pack(self._word("IIWWWWIIWW"), *fields)

    def pack_symbol(self, name: int, info: int, section: int, value: int, size: int) -> bytes:
        if self.bits == 64:
            return struct.pack("<IBBHQQ", name, info, 0, section, value, size)
        return struct.pack("<IIIBBH", name, value, size, info, 0, section)

    def pack_dynamic(self, tag: int, value: int) -> bytes:
        return struct.pack(self._word("WW"), tag, value)

    def pack_relocation(self, at: int, symbol: int, kind: int, addend: int) -> bytes:
        if self.has_addends:
            return struct.pack("<QQq", at, symbol << 32 | kind, addend)
        return struct.pack("<II", at, symbol << 8 | kind)

    def sections(self, code: bytes) -> tuple[int, int, list[tuple[int, ...]], int]:
        """Of an object file: machine, flags, section headers, and which of them holds the names."""
        fields = struct.unpack_from(self._word("16sHHIWWWIHHHHHH"), code)
        table, size, count = fields[6], fields[11], fields[12]
        headers = [struct.unpack_from(self._word("IIWWWWIIWW"), code, table + n * size) for n in range(count)]
        return fields[2], fields[7], headers, fields[13]

    def symbols(self, table: bytes) -> Iterator[tuple[int, int, int, int, int]]:
        """Name, info, section, value, size."""
        if self.bits == 64:
            for name, info, _, section, value, size in struct.iter_unpack("<IBBHQQ", table):
                yield name, info, section, value, size
        else:
            for name, value, size, info, _, section in struct.iter_unpack("<IIIBBH", table):
                yield name, info, section, value, size

    def relocations(self, table: bytes) -> Iterator[tuple[int, int, int, int]]:
        """Offset, symbol, kind, addend (0 where it stands at the place)."""
        if self.has_addends:
            for offset, info, addend in struct.iter_unpack("<QQq", table):
                yield offset, info >> 32, info & 0xFFFFFFFF, addend
        else:
            for offset, info in struct.iter_unpack("<II", table):
                yield offset, info >> 8, info & 0xFF, 0


ELF64 = Format(64, b"\x7fELF\x02\x01\x01", 64, 56, 64, 24, 16, 24, True, (7, 8, 9))
ELF32 = Format(32, b"\x7fELF\x01\x01\x01", 52, 32, 40, 16, 8, 8, False, (17, 18, 19))


def format_of(code: bytes) -> Format | None:
    """The class of a file, by its first bytes; None where it is no little-endian ELF file."""
    return next((f for f in (ELF64, ELF32) if code.startswith(f.magic[:6]) and len(code) >= f.header), None)
