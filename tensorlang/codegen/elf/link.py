"""The linker: sections laid out, symbols resolved, places patched, and the library written.

    segment   mapped      holds
    0         r           file header, hash table, symbols, names, dynamic relocations, constants, payloads
    1         r x         code, stubs for imported functions
    2         r w         dynamic section, address table, data; then zeros that are not in the file
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tensorlang.codegen.elf.formats import Format
from tensorlang.codegen.elf.reader import (
    ABSOLUTE,
    EXECUTE,
    GLOBAL,
    LOCAL,
    REL,
    UNDEFINED,
    WRITE,
    ObjectFile,
    Relocation,
    Section,
    Symbol,
    read_object,
)
from tensorlang.codegen.elf.relocate import MACHINES, START, START_BYTES, Machine, Place
from tensorlang.errors import BuildError

PAYLOAD_ALIGNMENT = 4096
_STUB = 16
_SEGMENTS = 5  # three to load, the dynamic section, and the stack's permissions

_READ, _WRITE, _EXECUTE = 4, 2, 1
_LOAD, _DYNAMIC, _INTERP, _PHDR, _GNU_STACK = 1, 2, 3, 6, 0x6474E551

# tags of the dynamic section
_NEEDED, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME, _FLAGS = 1, 4, 5, 6, 10, 11, 14, 30
_BIND_NOW = 8


@dataclass
class _Piece:
    """A section of an object, with its address in the library."""

    section: Section
    owner: ObjectFile
    address: int = 0


@dataclass
class _Segment:
    permissions: int
    pieces: list[_Piece] = field(default_factory=list)
    address: int = 0
    content: bytearray = field(default_factory=bytearray)
    zeros: int = 0  # bytes after the content, in memory only

    def place(self, nbytes: int, alignment: int) -> int:
        """The address of `nbytes` zero bytes appended to the content."""
        offset = -(-(self.address + len(self.content)) // alignment) * alignment - self.address
        self.content.extend(bytes(offset + nbytes - len(self.content)))
        return self.address + offset

    def write(self, address: int, data: bytes) -> None:
        start = address - self.address
        self.content[start : start + len(data)] = data


def link_shared(
    objects: Sequence[bytes],
    exports: Sequence[str],
    *,
    payloads: Mapping[str, bytes | memoryview] | None = None,
    soname: str = "",
    needed: Sequence[str] = (),
    interpreter: str = "",
) -> bytes:
    """One shared library, or program, of several objects.

    Args:
        objects: relocatable ELF files of one machine, compiled position-independent.
        exports: global symbols that the library offers.
        payloads: constant data by symbol, each beginning on a page; objects may refer to the symbols.
        soname: the library's own name.
        needed: libraries that the loader must bring for what is undefined, where the process has them not already.
        interpreter: path of the loader; given, the result is a program, which begins at the function `main`.

    Returns:
        The file's bytes; the same arguments give the same bytes.

    Raises:
        BuildError: a symbol is defined twice or an export nowhere, or an object asks for what is not known here.
    """
    parsed = [read_object(o) for o in objects]
    return _Linker(parsed, list(exports), dict(payloads or {}), soname, list(needed), interpreter).link()


class _Linker:
    def __init__(
        self,
        objects: list[ObjectFile],
        exports: list[str],
        payloads: dict[str, bytes | memoryview],
        soname: str,
        needed: list[str],
        interpreter: str,
    ):
        if not objects or len({o.machine for o in objects}) != 1:
            raise BuildError("linking takes one or more objects, all for one machine")
        self.objects, self.exports, self.payloads = objects, exports, payloads
        self.soname, self.needed, self.interpreter = soname, needed, interpreter
        self.machine: Machine = MACHINES[objects[0].machine]
        self.format = objects[0].format
        self.pieces: dict[int, _Piece] = {}  # by identity of the section
        self.defined: dict[str, tuple[ObjectFile | None, Symbol | None]] = dict.fromkeys(payloads, (None, None))
        self.payload_address: dict[str, int] = {}
        self.slots: dict[object, int] = {}  # by symbol: address of its slot
        self.stubs: dict[str, int] = {}
        self.dynamic: list[tuple[int, int, str, int]] = []  # place, kind, imported symbol or "", addend
        self._collect()

    # -- symbols -------------------------------------------------------------------------------------------------
    def _collect(self) -> None:
        for o in self.objects:
            for symbol in o.symbols:
                if symbol.binding == LOCAL or symbol.section == UNDEFINED:
                    continue
                if symbol.name in self.defined:
                    raise BuildError(f"linking: {symbol.name} is defined twice")
                self.defined[symbol.name] = (o, symbol)
        if missing := [name for name in self.exports if name not in self.defined]:
            raise BuildError(f"linking: {', '.join(missing)} is to be exported but not defined")
        wanted: dict[str, None] = {}
        for _, _, symbol in self._places():
            if symbol.section == UNDEFINED and symbol.name not in self.defined:
                wanted[symbol.name] = None
        if self.interpreter:
            wanted[START] = None
        self.imports = list(wanted)

    def _places(self) -> list[tuple[ObjectFile, tuple[Section, Relocation], Symbol]]:
        found = []
        for o in self.objects:
            for section in o.sections.values():
                for r in section.relocations:
                    if r.kind not in self.machine.ignored:
                        found.append((o, (section, r), o.symbols[r.symbol]))
        return found

    def _address(self, o: ObjectFile, symbol: Symbol) -> int | None:
        """Where a symbol is in the library; None if it is imported."""
        if symbol.section == UNDEFINED:
            if symbol.name not in self.defined:
                return None
            owner, definition = self.defined[symbol.name]
            if owner is None or definition is None:
                return self.payload_address[symbol.name]
            return self._address(owner, definition)
        if symbol.section == ABSOLUTE:
            return symbol.value
        if symbol.section not in o.sections:
            raise BuildError(f"linking: {symbol.name or 'a symbol'} is in a section that is not mapped")
        return self.pieces[id(o.sections[symbol.section])].address + symbol.value

    # -- layout --------------------------------------------------------------------------------------------------
    def link(self) -> bytes:
        constants, code, data = _Segment(_READ), _Segment(_READ | _EXECUTE), _Segment(_READ | _WRITE)
        zeros: list[_Piece] = []
        for o in self.objects:
            for section in o.sections.values():
                piece = self.pieces[id(section)] = _Piece(section, o)
                if section.flags & WRITE and not section.data:
                    zeros.append(piece)
                else:
                    segment = code if section.flags & EXECUTE else data if section.flags & WRITE else constants
                    segment.pieces.append(piece)
        slot_keys, called, relocations = self._survey()

        names = _Names()
        symbols = [*self.imports, *self.exports]
        for name in (*symbols, *self.needed, self.soname):
            names.add(name)
        form = self.format
        constants.place(form.header + (_SEGMENTS + 2 * bool(self.interpreter)) * form.program, 1)
        path = self.interpreter.encode() + b"\0"
        self.interpreter_at = constants.place(len(path), 1) if self.interpreter else 0
        hash_at = constants.place(4 * (2 + 1 + len(symbols) + 1), 8)
        symbols_at = constants.place(form.symbol * (len(symbols) + 1), 8)
        names_at = constants.place(len(names.table), 1)
        relocations_at = constants.place(form.relocation * relocations, 8)
        self._place_pieces(constants)
        for name, payload in self.payloads.items():
            at = self.payload_address[name] = constants.place(len(payload), PAYLOAD_ALIGNMENT)
            constants.write(at, payload)  # type: ignore[arg-type]

        code.address = self._next_page(constants)
        self._place_pieces(code)
        for name in called:
            self.stubs[name] = code.place(_STUB, _STUB)
        self.entry = code.place(START_BYTES, _STUB) if self.interpreter else 0
        data.address = self._next_page(code)
        dynamic_at = data.place(form.dynamic * (10 + len(self.needed) + bool(self.soname)), 16)
        for key in slot_keys:
            self.slots[key] = data.place(8, 8)
        self._place_pieces(data)
        end = data.address + len(data.content)
        for piece in zeros:
            piece.address = -(-end // piece.section.alignment) * piece.section.alignment
            end = piece.address + piece.section.size
        data.zeros = end - data.address - len(data.content)

        for name, at in self.stubs.items():
            code.write(at, self.machine.stub(at, self.slots[name]))
        if self.interpreter:
            constants.write(self.interpreter_at, path)
            owner, main = self.defined["main"]
            if owner is None or main is None or self.machine.start is None:
                raise BuildError("linking: a program needs a function main, and its beginning is not written for this machine")
            code.write(self.entry, self.machine.start(self.entry, self._address(owner, main) or 0, self.stubs[START]))
        self._relocate((constants, code, data))
        self._fill_slots()
        if len(self.dynamic) != relocations:
            raise BuildError("linking: the count of dynamic relocations is wrong")

        number = {name: n for n, name in enumerate(symbols, 1)}
        constants.write(hash_at, _hash_table(symbols))
        constants.write(symbols_at, self._symbol_table(names))
        constants.write(names_at, bytes(names.table))
        for n, (at, kind, name, addend) in enumerate(self.dynamic):
            entry = form.pack_relocation(at, number[name] if name else 0, kind, addend)
            constants.write(relocations_at + n * form.relocation, entry)
            if not form.has_addends:
                data.write(at, struct.pack("<I", addend))
        tags = [(_NEEDED, names.add(name)) for name in self.needed]
        if self.soname:
            tags.append((_SONAME, names.add(self.soname)))
        tags += [(_HASH, hash_at), (_STRTAB, names_at), (_SYMTAB, symbols_at), (_STRSZ, len(names.table))]
        tags.append((_SYMENT, form.symbol))
        tags += zip(form.rel, (relocations_at, form.relocation * relocations, form.relocation), strict=True)
        tags += [(_FLAGS, _BIND_NOW), (0, 0)]
        data.write(dynamic_at, b"".join(form.pack_dynamic(*tag) for tag in tags))
        dynamic_bytes = form.dynamic * len(tags)
        parts = [
            ("hash", hash_at, 4 * (3 + len(symbols) + 1)), ("dynsym", symbols_at, form.symbol * (len(symbols) + 1)),
            ("dynstr", names_at, len(names.table)), ("rela.dyn", relocations_at, form.relocation * relocations),
            ("text", code.address, len(code.content)), ("dynamic", dynamic_at, dynamic_bytes),
            ("data", dynamic_at + dynamic_bytes, len(data.content) - dynamic_bytes),
        ]  # fmt: skip
        return self._file((constants, code, data), dynamic_at, dynamic_bytes, parts)

    def _survey(self) -> tuple[list[object], list[str], int]:
        """Slots and stubs that are needed, and how many dynamic relocations there will be."""
        slot_keys: dict[object, None] = {}
        called: dict[str, None] = {}
        relocations = 0
        for o, (_, r), symbol in self._places():
            imported = symbol.section == UNDEFINED and symbol.name not in self.defined
            if r.kind == self.machine.word:
                relocations += 1
            elif r.kind in self.machine.slots:
                slot_keys[self._slot_key(o, r.symbol)] = None
            elif imported and r.kind in self.machine.calls:
                called[symbol.name] = slot_keys[symbol.name] = None
            elif imported:
                raise BuildError(f"linking: {symbol.name} is not defined, and is used other than by a call")
        if self.interpreter:
            called[START] = slot_keys[START] = None
        return list(slot_keys), list(called), relocations + len(slot_keys)

    @staticmethod
    def _slot_key(o: ObjectFile, number: int) -> object:
        symbol = o.symbols[number]
        return symbol.name if symbol.binding != LOCAL else (id(o), number)

    def _place_pieces(self, segment: _Segment) -> None:
        for piece in segment.pieces:
            section = piece.section
            piece.address = segment.place(section.size, section.alignment)
            segment.write(piece.address, section.data)

    def _next_page(self, segment: _Segment) -> int:
        page = self.machine.page
        return -(-(segment.address + len(segment.content)) // page) * page

    # -- patching ------------------------------------------------------------------------------------------------
    def _relocate(self, segments: Sequence[_Segment]) -> None:
        self.slot_targets: dict[object, tuple[int | None, str]] = {name: (None, name) for name in self.stubs}
        deferred = []
        highs: dict[int, int] = {}  # address of a RISC-V high part: the offset that it is part of
        for o, (section, found), symbol in self._places():
            r = self._with_addend(section, found)
            piece = self.pieces[id(section)]
            segment = next(s for s in segments if piece in s.pieces)
            at, address = piece.address + r.offset, self._address(o, symbol)
            if r.kind == self.machine.word:
                kind = self.machine.glob_dat if address is None else self.machine.relative
                if address is None and r.addend:
                    raise BuildError(f"linking: an address inside {symbol.name}, which is imported")
                self.dynamic.append((at, kind, symbol.name if address is None else "", (address or 0) + r.addend))
                continue
            if r.kind not in self.machine.patches:
                raise BuildError(f"linking: relocation {r.kind} of {section.name} is not known here")
            slot = None
            if r.kind in self.machine.slots:
                key = self._slot_key(o, r.symbol)
                slot = self.slots[key] + r.addend
                self.slot_targets[key] = (address, symbol.name)
            if address is None:
                address = self.stubs.get(symbol.name, 0)
            if r.kind in self.machine.high:
                highs[at] = (address + r.addend if slot is None else slot) - at
            place = Place(at, address + r.addend, slot)
            if r.kind in self.machine.low:
                deferred.append((segment, r.kind, place, address))
            else:
                self._patch(segment, r.kind, place)
        for segment, kind, place, high_at in deferred:
            self._patch(segment, kind, Place(place.at, place.symbol, partner=highs[high_at]))

    def _with_addend(self, section: Section, r: Relocation) -> Relocation:
        if self.format.has_addends or self.machine.addend is None:
            return r
        word = int.from_bytes(section.data[r.offset : r.offset + 4], "little")
        return replace(r, addend=self.machine.addend(r.kind, word))

    def _patch(self, segment: _Segment, kind: int, place: Place) -> None:
        start = place.at - segment.address
        self.machine.patches[kind](memoryview(segment.content)[start : start + 8], place)

    def _fill_slots(self) -> None:
        for key, at in self.slots.items():
            address, name = self.slot_targets[key]
            if address is None:
                self.dynamic.append((at, self.machine.glob_dat, name, 0))
            else:
                self.dynamic.append((at, self.machine.relative, "", address))

    # -- the file ------------------------------------------------------------------------------------------------
    def _symbol_table(self, names: _Names) -> bytes:
        entries = [bytes(self.format.symbol)]
        entries += [self.format.pack_symbol(names.add(n), GLOBAL << 4, 0, 0, 0) for n in self.imports]
        for name in self.exports:
            owner, symbol = self.defined[name]
            if owner is None or symbol is None:
                address, size, kind = self.payload_address[name], len(self.payloads[name]), 1
            else:
                address, size, kind = self._address(owner, symbol) or 0, symbol.size, symbol.type
            entries.append(self.format.pack_symbol(names.add(name), GLOBAL << 4 | kind, 1, address, size))
        return b"".join(entries)

    def _file(
        self, segments: Sequence[_Segment], dynamic_at: int, dynamic_bytes: int, parts: Sequence[tuple[str, int, int]]
    ) -> bytes:
        """Addresses are offsets in the file, so that every segment is mapped as it lies."""
        page, form = self.machine.page, self.format
        loads = [(_LOAD, s.permissions, s.address, len(s.content), len(s.content) + s.zeros, page) for s in segments]
        loads.append((_DYNAMIC, _READ | _WRITE, dynamic_at, dynamic_bytes, dynamic_bytes, 8))
        programs = [form.pack_program(*load) for load in loads]
        programs.append(form.pack_program(_GNU_STACK, _READ | _WRITE, 0, 0, 0, 16))
        if self.interpreter:
            at, size = self.interpreter_at, len(self.interpreter) + 1
            programs.insert(0, form.pack_program(_INTERP, _READ, at, size, size, 1))
            size = (len(programs) + 1) * form.program  # from where this table is, the loader knows where the program is
            programs.insert(0, form.pack_program(_PHDR, _READ, form.header, size, size, 8))
        flags = self.machine.flags
        for o in self.objects:
            flags |= o.flags
        last = segments[-1]
        sections, table_at = _section_table(form, parts, last.address + len(last.content))
        header = form.pack_header(
            self.machine.number, self.entry, table_at, flags, len(programs), len(parts) + 2, len(parts) + 1
        )
        segments[0].write(0, header + b"".join(programs))
        file = bytearray(last.address + len(last.content))
        for s in segments:
            file[s.address : s.address + len(s.content)] = s.content
        return bytes(file) + sections


# type, flags, number of the section it refers to
_SECTIONS = {
    "hash": (5, 2, 2), "dynsym": (11, 2, 3), "dynstr": (3, 2, 0), "rela.dyn": (4, 2, 2), "text": (1, 6, 0),
    "dynamic": (6, 3, 3), "data": (1, 3, 0),
}  # fmt: skip


def _section_table(form: Format, parts: Sequence[tuple[str, int, int]], end: int) -> tuple[bytes, int]:
    """What linkers and debuggers read (loaders do not): the end of the file from byte `end` on, and where the table begins."""
    entries = {"hash": 4, "dynsym": form.symbol, "rela.dyn": form.relocation, "dynamic": form.dynamic}
    labels = [*(p[0] for p in parts), "shstrtab"]
    if not form.has_addends:
        labels[labels.index("rela.dyn")] = "rel.dyn"
    names = b"\0" + b"".join(b"." + label.encode() + b"\0" for label in labels)
    table_at = -(-(end + len(names)) // 8) * 8
    table = [bytes(form.section)]
    for (name, at, size), label in zip(parts, labels, strict=False):
        kind, flags, link = _SECTIONS[name]
        if label == "rel.dyn":
            kind = REL
        info = 1 if name == "dynsym" else 0  # symbols before this one are local
        word = names.index(b"." + label.encode() + b"\0")
        table.append(form.pack_section((word, kind, flags, at, at, size, link, info, 8, entries.get(name, 0))))
    table.append(form.pack_section((names.index(b".shstrtab"), 3, 0, 0, end, len(names), 0, 0, 1, 0)))
    return names.ljust(table_at - end, b"\0") + b"".join(table), table_at


class _Names:
    """A table of zero-terminated names."""

    def __init__(self) -> None:
        self.table = bytearray(b"\0")
        self._at: dict[str, int] = {"": 0}

    def add(self, name: str) -> int:
        """The name's place in the table."""
        if name not in self._at:
            self._at[name] = len(self.table)
            self.table += name.encode() + b"\0"
        return self._at[name]


def _hash_table(symbols: Sequence[str]) -> bytes:
    """One bucket that chains all symbols: there are few (System V ABI, figure 5-12)."""
    count = len(symbols) + 1
    chain = [0, *(n + 1 if n + 1 < count else 0 for n in range(1, count))]
    return struct.pack(f"<{3 + count}I", 1, count, 1 if symbols else 0, *chain)
