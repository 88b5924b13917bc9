"""A relocatable ELF object as sections, symbols and relocations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tensorlang.codegen.elf.formats import Format, format_of
from tensorlang.errors import BuildError

MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64", 40: "armv7"}

ALLOC, WRITE, EXECUTE = 2, 1, 4  # section flags
NOBITS, SYMTAB, RELA, REL = 8, 2, 4, 9  # section types
UNDEFINED, ABSOLUTE, COMMON = 0, 0xFFF1, 0xFFF2  # section numbers of symbols
LOCAL, GLOBAL, WEAK = range(3)  # bindings

# never mapped: unwinding tables are useless to code that does not throw
_SKIPPED = (".eh_frame", ".ARM.ex", ".note", ".comment")


@dataclass(frozen=True)
class Relocation:
    """A place to be patched with `symbol + addend`, in the way that `kind` (the processor's number) says.

    Of files without addends (32-bit ones), `addend` is 0 and what stands at the place is the addend.
    """

    offset: int
    kind: int
    symbol: int
    addend: int


@dataclass
class Section:
    """A part of the file that is mapped at run time."""

    name: str
    flags: int
    alignment: int
    size: int
    data: bytes  # empty where the section is all zeros
    relocations: list[Relocation] = field(default_factory=list)


@dataclass(frozen=True)
class Symbol:
    """A name for an offset in a section; `section` is a section's number, or UNDEFINED or ABSOLUTE."""

    name: str
    binding: int
    section: int
    value: int
    size: int
    type: int


@dataclass
class ObjectFile:
    """One object file.

    Attributes:
        machine: "x86_64", "aarch64", "riscv64" or "armv7".
        format: its class.
        flags: the processor's own flags of the file header.
        sections: those that are mapped, by number.
        symbols: all, in the file's order.
    """

    machine: str
    format: Format
    flags: int
    sections: dict[int, Section]
    symbols: list[Symbol]


def read_object(code: bytes) -> ObjectFile:
    """Parse an object file.

    Raises:
        BuildError: it is not a little-endian relocatable ELF file of a machine that is known here.
    """
    form = format_of(code)
    if form is None:
        raise BuildError("linking takes little-endian ELF objects")
    machine, flags, headers, names = form.sections(code)
    if code[16:18] != b"\1\0" or machine not in MACHINES:
        raise BuildError(f"linking takes relocatable objects for {', '.join(MACHINES.values())}")
    strings = _content(code, headers[names])
    sections: dict[int, Section] = {}
    symbols: list[Symbol] = []
    for number, header in enumerate(headers):
        name, section_type, section_flags, _, _, nbytes, link, _, alignment, _ = header
        label = _string(strings, name)
        if section_type == SYMTAB:
            symbols = list(_symbols(form, _content(code, header), _content(code, headers[link])))
        elif section_flags & ALLOC and not label.startswith(_SKIPPED):
            data = b"" if section_type == NOBITS else _content(code, header)
            sections[number] = Section(label, section_flags, max(1, alignment), nbytes, data)
    for header in headers:
        section_type, target = header[1], header[7]
        if section_type in (REL, RELA) and target in sections:
            if (section_type == RELA) != form.has_addends:
                raise BuildError(f"linking takes {form.bits}-bit relocations with{'' if form.has_addends else 'out'} addends")
            for offset, symbol, kind, addend in form.relocations(_content(code, header)):
                sections[target].relocations.append(Relocation(offset, kind, symbol, addend))
    return ObjectFile(MACHINES[machine], form, flags, sections, symbols)


def _content(code: bytes, header: tuple[int, ...]) -> bytes:
    return code[header[4] : header[4] + header[5]]


def _string(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()


def _symbols(form: Format, table: bytes, strings: bytes) -> Iterator[Symbol]:
    for name, info, section, value, size in form.symbols(table):
        if section == COMMON:
            raise BuildError(f"linking does not take common symbols ({_string(strings, name)})")
        yield Symbol(_string(strings, name), info >> 4, section, value, size, info & 15)
