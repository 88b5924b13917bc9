"""One relocatable WebAssembly object to one module that a host can instantiate.

    object (LLVM)                                        module
    imports __linear_memory, __indirect_function_table,  defines and exports memory, __indirect_function_table
      __stack_pointer, functions of libc                 imports the functions, from "env"
    indices and addresses as if it were alone            the same
    linking, reloc.* sections                            none; exports by name, and __heap_base

An object's code already holds the indices and addresses that are right if nothing is linked with it (the "provisional
values" of LLVM's writer), so that only the sections around the code are rewritten. Memory: data from address 0 on (where LLVM
put it), then the stack, which grows down, then what the host may use, from `__heap_base` on.

Formats: WebAssembly core specification, section 5.5; object files: tool-conventions, Linking.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tensorlang.errors import BuildError

PAGE = 65536
STACK_BYTES = 16 * PAGE
_MAGIC = b"\0asm\x01\0\0\0"
_CUSTOM, _IMPORT, _TABLE, _MEMORY, _GLOBAL, _EXPORT, _ELEMENT, _DATA = 0, 2, 4, 5, 6, 7, 9, 11
_ORDER = (1, 2, 3, 4, 5, 13, 6, 7, 8, 9, 12, 10, 11)  # of sections in a file; their numbers came later
_SYMBOL_TABLE, _UNDEFINED, _EXPLICIT_NAME = 8, 0x10, 0x40
_FUNCTION_SYMBOL, _DATA_SYMBOL, _SECTION_SYMBOL = 0, 1, 3
_I32, _FUNCREF = 0x7F, 0x70


class _Reader:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """An unsigned LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def signed(self) -> int:
        """A signed LEB128 number."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - (1 << shift) if byte & 0x40 else value

    def bytes(self) -> bytes:
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at]


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    out = bytearray()
    while not -0x40 <= value < 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value & 0x7F)
    return bytes(out)


def _text(name: str) -> bytes:
    return _number(len(name.encode())) + name.encode()


def _vector(items: Sequence[bytes]) -> bytes:
    return _number(len(items)) + b"".join(items)


def _sections(code: bytes) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(code)
    reader.at = len(_MAGIC)
    while reader.at < len(code):
        number = reader.byte()
        yield number, reader.bytes()


def link_module(code: bytes, exports: Sequence[str]) -> bytes:
    """A module of one object.

    Args:
        code: an object of LLVM for wasm32, not position-independent.
        exports: the functions that the module offers, beside "memory", "__indirect_function_table" and "__heap_base" (a global:
            the first address that is free).

    Returns:
        The module's bytes. What it imports from "env" are functions of libc.

    Raises:
        BuildError: it is no such object, an export is not in it, or it needs data of other objects.
    """
    if code[: len(_MAGIC)] != _MAGIC:
        raise BuildError("linking for wasm32 takes WebAssembly objects")
    sections: dict[int, bytes] = {}
    functions: dict[str, int] = {}
    for number, content in _sections(code):
        if number != _CUSTOM:
            sections[number] = content
            continue
        reader = _Reader(content)
        if reader.bytes() == b"linking":
            functions = _functions(reader)
    if missing := [name for name in exports if name not in functions]:
        raise BuildError(f"linking: {', '.join(missing)} is to be exported but not defined")
    kept, stack_pointer = _imports(sections.get(_IMPORT, b"\0"))
    if _GLOBAL in sections:
        raise BuildError("linking for wasm32 takes objects without globals of their own")
    stack = -(-_data_end(sections.get(_DATA, b"\0")) // 16) * 16 + STACK_BYTES
    pages = -(-stack // PAGE)
    constants = [(1, stack)] if stack_pointer else []
    constants.append((0, stack))
    sections[_IMPORT] = _vector(kept)
    sections[_TABLE] = _vector([bytes([_FUNCREF, 0]) + _number(_elements_end(sections.get(_ELEMENT, b"\0")))])
    sections[_MEMORY] = _vector([b"\0" + _number(pages)])
    sections[_GLOBAL] = _vector([bytes([_I32, mutable, 0x41]) + _signed(value) + b"\x0b" for mutable, value in constants])
    offered = [_text(name) + b"\0" + _number(functions[name]) for name in exports]
    offered += [_text("memory") + b"\x02\0", _text("__indirect_function_table") + b"\x01\0"]
    offered.append(_text("__heap_base") + b"\x03" + _number(len(constants) - 1))
    sections[_EXPORT] = _vector(offered)
    parts = [bytes([n]) + _number(len(sections[n])) + sections[n] for n in _ORDER if n in sections]
    return _MAGIC + b"".join(parts)


def _functions(reader: _Reader) -> dict[str, int]:
    """Indices of the functions that the object defines, by name: from its "linking" section."""
    found: dict[str, int] = {}
    reader.number()  # version
    while reader.at < len(reader.data):
        kind, part = reader.byte(), _Reader(reader.bytes())
        if kind != _SYMBOL_TABLE:
            continue
        for _ in range(part.number()):
            symbol, flags = part.byte(), part.number()
            if symbol == _DATA_SYMBOL:
                name = part.bytes().decode()
                if flags & _UNDEFINED:
                    raise BuildError(f"linking: {name} is not defined")
                for _ in range(3):  # segment, offset, size
                    part.number()
                continue
            index = part.number()
            if symbol != _SECTION_SYMBOL and (not flags & _UNDEFINED or flags & _EXPLICIT_NAME):
                name = part.bytes().decode()
                if symbol == _FUNCTION_SYMBOL and not flags & _UNDEFINED:
                    found[name] = index
    return found


def _imports(content: bytes) -> tuple[list[bytes], bool]:
    """The imports that stay, which are functions, and whether there was one of the stack pointer."""
    reader, kept, stack_pointer = _Reader(content), [], False
    for _ in range(reader.number()):
        start = reader.at
        reader.bytes()
        name = reader.bytes()
        kind = reader.byte()
        if kind == 0:
            reader.number()
            kept.append(reader.data[start : reader.at])
        elif kind in (1, 2):  # table, memory: limits, and of a table its type before
            if kind == 1:
                reader.byte()
            limits = reader.byte()
            for _ in range(1 + (limits & 1)):
                reader.number()
        elif kind == 3 and name == b"__stack_pointer":
            reader.at += 2
            stack_pointer = True
        else:
            raise BuildError(f"linking: {name.decode()} is not defined")
    return kept, stack_pointer


def _data_end(content: bytes) -> int:
    """The first address after the data."""
    reader, end = _Reader(content), 0
    for _ in range(reader.number()):
        if reader.number() != 0 or reader.byte() != 0x41:
            raise BuildError("linking for wasm32 takes data at constant addresses")
        at = reader.signed()
        reader.byte()  # end of the expression
        end = max(end, at + len(reader.bytes()))
    return end


def _elements_end(content: bytes) -> int:
    """How many places the table needs; place 0 stays empty, so that no function's address is null."""
    reader, end = _Reader(content), 1
    for _ in range(reader.number()):
        if reader.number() != 0 or reader.byte() != 0x41:
            raise BuildError("linking for wasm32 takes table elements at constant places")
        at = reader.signed()
        reader.byte()
        count = reader.number()
        for _ in range(count):
            reader.number()
        end = max(end, at + count)
    return end
