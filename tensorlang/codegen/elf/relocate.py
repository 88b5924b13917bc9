"""The machines' relocations: how an address is written into an instruction, and calls that go through the address table.

Names and formulas: x86-64 psABI section 4.4, AAELF64 section 5.7, AAELF32 section 5.6, RISC-V ELF psABI section "Relocations".
S is the symbol's address, A the addend, P the address of the place, G the address of the symbol's slot in the table.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tensorlang.errors import BuildError

PAGE_BITS = 12
START = "__libc_start_main"  # what a program's first instructions call: (main, argc, argv, init, fini, rtld_fini, stack)
START_BYTES = 64


@dataclass(frozen=True)
class Place:
    """What a relocation may need.

    Attributes:
        at: P, address of the place.
        symbol: S + A (or, for a call, of the stub that leads there).
        slot: G + A, or None where no relocation of the symbol needs a slot.
        partner: for RISC-V's low parts, the value that the high part's place computes.
    """

    at: int
    symbol: int
    slot: int | None = None
    partner: int = 0


Patch = Callable[[memoryview, Place], None]


@dataclass(frozen=True)
class Machine:
    """What linking needs to know of a processor.

    Attributes:
        number: of the file header.
        page: largest page of its systems; segments begin at multiples of it.
        word: relocations of a whole address in data.
        relative: dynamic relocation "base + addend"; `glob_dat`: "address of the symbol".
        slots: relocations that go through the symbol's slot in the address table.
        calls: relocations of calls, which reach imported functions through a stub.
        ignored: relocations that are only hints.
        high: relocations that set the upper part of an address for a `low` one, which names that place (RISC-V).
        start: a program's first instructions, given their address, that of `main`, and that of the stub of `START`.
        stub: machine code that jumps to the address in a slot, given the stub's and the slot's addresses.
        addend: what stands at a place for a kind of relocation, where files have no addends.
        flags: of the file header, beside the objects' own.
    """

    number: int
    page: int
    word: int
    relative: int
    glob_dat: int
    patches: Mapping[int, Patch]
    slots: frozenset[int]
    calls: frozenset[int]
    stub: Callable[[int, int], bytes]
    ignored: frozenset[int] = frozenset()
    high: frozenset[int] = frozenset()
    low: frozenset[int] = frozenset()
    start: Callable[[int, int, int], bytes] | None = None
    addend: Callable[[int, int], int] | None = None
    flags: int = 0


def _fits(value: int, bits: int, what: str) -> int:
    if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise BuildError(f"linking: {what} cannot reach {value} bytes away; the library is too large")
    return value


def _word32(view: memoryview) -> int:
    return int(struct.unpack_from("<I", view)[0])


# -- x86-64 --------------------------------------------------------------------------------------------------------
def _pc32(view: memoryview, p: Place) -> None:
    struct.pack_into("<i", view, 0, _fits(p.symbol - p.at, 32, "a 32-bit offset"))


def _pc64(view: memoryview, p: Place) -> None:
    struct.pack_into("<q", view, 0, p.symbol - p.at)


def _gotpcrel(view: memoryview, p: Place) -> None:
    assert p.slot is not None
    struct.pack_into("<i", view, 0, _fits(p.slot - p.at, 32, "a 32-bit offset"))


def _x86_stub(at: int, slot: int) -> bytes:
    return b"\xff\x25" + struct.pack("<i", slot - (at + 6)) + b"\xcc\xcc"  # jmp *slot(%rip)


def _x86_start(at: int, main: int, stub: int) -> bytes:
    code = bytes.fromhex("31ed 4989d1 5e 4889e2 4883e4f0 50 54 4531c0 31c9".replace(" ", ""))
    # xor ebp,ebp; mov r9,rdx; pop rsi; mov rdx,rsp; and rsp,-16; push rax; push rsp; xor r8d,r8d; xor ecx,ecx
    code += b"\x48\x8d\x3d" + struct.pack("<i", main - (at + len(code) + 7))  # lea rdi,[main]
    code += b"\xe8" + struct.pack("<i", stub - (at + len(code) + 5))  # call stub
    return code + b"\xf4"  # hlt


# -- AArch64 -------------------------------------------------------------------------------------------------------
def _page(address: int) -> int:
    return address >> PAGE_BITS << PAGE_BITS


def _adrp_bits(target: int, at: int) -> int:
    pages = _fits((_page(target) - _page(at)) >> PAGE_BITS, 21, "adrp") & 0x1FFFFF
    return (pages & 3) << 29 | (pages >> 2) << 5


def _adrp(view: memoryview, p: Place) -> None:
    struct.pack_into("<I", view, 0, _word32(view) & 0x9F00001F | _adrp_bits(p.symbol, p.at))


def _adrp_slot(view: memoryview, p: Place) -> None:
    assert p.slot is not None
    struct.pack_into("<I", view, 0, _word32(view) & 0x9F00001F | _adrp_bits(p.slot, p.at))


def _low12(shift: int) -> Patch:
    def patch(view: memoryview, p: Place) -> None:
        struct.pack_into("<I", view, 0, _word32(view) & ~(0xFFF << 10) | ((p.symbol & 0xFFF) >> shift) << 10)

    return patch


def _low12_slot(view: memoryview, p: Place) -> None:
    assert p.slot is not None
    struct.pack_into("<I", view, 0, _word32(view) & ~(0xFFF << 10) | ((p.slot & 0xFFF) >> 3) << 10)


def _branch26(view: memoryview, p: Place) -> None:
    words = _fits(p.symbol - p.at, 28, "a branch") >> 2 & 0x3FFFFFF
    struct.pack_into("<I", view, 0, _word32(view) & 0xFC000000 | words)


def _aarch64_start(at: int, main: int, stub: int) -> bytes:
    words = [
        0xD280001D, 0xD280001E,  # mov x29, #0; mov x30, #0
        0xAA0003E5, 0xF94003E1, 0x910023E2, 0x910003E6,  # mov x5, x0; ldr x1, [sp]; add x2, sp, #8; mov x6, sp
        0x90000000 | _adrp_bits(main, at + 24), 0x91000000 | (main & 0xFFF) << 10,  # adrp x0, main; add x0, x0, main
        0xD2800003, 0xD2800004,  # mov x3, #0; mov x4, #0
        0x94000000 | (stub - (at + 40)) >> 2 & 0x3FFFFFF, 0xD4200000,  # bl stub; brk #0
    ]  # fmt: skip
    return struct.pack(f"<{len(words)}I", *words)


def _aarch64_stub(at: int, slot: int) -> bytes:
    adrp = 0x90000010 | _adrp_bits(slot, at)  # adrp x16, slot
    load = 0xF9400211 | ((slot & 0xFFF) >> 3) << 10  # ldr x17, [x16, slot]
    return struct.pack("<IIII", adrp, load, 0xD61F0220, 0xD503201F)  # br x17; nop


# -- RISC-V --------------------------------------------------------------------------------------------------------
def _parts(offset: int) -> tuple[int, int]:
    """Upper 20 bits and lower 12 of an offset, the lower ones signed."""
    _fits(offset + 0x800, 32, "auipc")
    return (offset + 0x800) >> 12 & 0xFFFFF, offset & 0xFFF


def _riscv_call(view: memoryview, p: Place) -> None:
    high, low = _parts(p.symbol - p.at)
    auipc, jalr = struct.unpack_from("<II", view)
    struct.pack_into("<II", view, 0, auipc & 0xFFF | high << 12, jalr & 0xFFFFF | low << 20)


def _riscv_high(view: memoryview, p: Place) -> None:
    struct.pack_into("<I", view, 0, _word32(view) & 0xFFF | _parts(p.symbol - p.at)[0] << 12)


def _riscv_high_slot(view: memoryview, p: Place) -> None:
    assert p.slot is not None
    struct.pack_into("<I", view, 0, _word32(view) & 0xFFF | _parts(p.slot - p.at)[0] << 12)


def _riscv_low_load(view: memoryview, p: Place) -> None:
    struct.pack_into("<I", view, 0, _word32(view) & 0xFFFFF | _parts(p.partner)[1] << 20)


def _riscv_low_store(view: memoryview, p: Place) -> None:
    low = _parts(p.partner)[1]
    struct.pack_into("<I", view, 0, _word32(view) & 0x1FFF07F | (low >> 5) << 25 | (low & 31) << 7)


def _riscv_branch(view: memoryview, p: Place) -> None:
    d = _fits(p.symbol - p.at, 13, "a branch")
    bits = (d >> 12 & 1) << 31 | (d >> 5 & 0x3F) << 25 | (d >> 1 & 0xF) << 8 | (d >> 11 & 1) << 7
    struct.pack_into("<I", view, 0, _word32(view) & 0x1FFF07F | bits)


def _riscv_jal(view: memoryview, p: Place) -> None:
    d = _fits(p.symbol - p.at, 21, "a jump")
    bits = (d >> 20 & 1) << 31 | (d >> 1 & 0x3FF) << 21 | (d >> 11 & 1) << 20 | (d >> 12 & 0xFF) << 12
    struct.pack_into("<I", view, 0, _word32(view) & 0xFFF | bits)


def _riscv_stub(at: int, slot: int) -> bytes:
    high, low = _parts(slot - at)
    auipc = 0x00000E17 | high << 12  # auipc t3, slot
    load = 0x000E3E03 | low << 20  # ld t3, slot(t3)
    return struct.pack("<IIII", auipc, load, 0x000E0067, 0x00000013)  # jr t3; nop


# -- 32-bit Arm, its own instructions (A32) -------------------------------------------------------------------------
_ARM_ABS32, _ARM_REL32, _ARM_CALL, _ARM_JUMP24, _ARM_GOT_PREL = 2, 3, 28, 29, 96


def _arm_addend(kind: int, word: int) -> int:
    bits = 26 if kind in (_ARM_CALL, _ARM_JUMP24) else 32
    value = (word & 0xFFFFFF) << 2 if bits == 26 else word
    return value - (1 << bits) if value >> (bits - 1) else value


def _arm_branch(view: memoryview, p: Place) -> None:
    offset = _fits(p.symbol - p.at, 26, "a branch")
    struct.pack_into("<I", view, 0, _word32(view) & 0xFF000000 | offset >> 2 & 0xFFFFFF)


def _arm_stub(at: int, slot: int) -> bytes:
    # ldr ip, [pc, #4]; add ip, pc, ip; ldr pc, [ip] (which also enters Thumb code); the offset from the second one's pc
    return struct.pack("<IIIi", 0xE59FC004, 0xE08FC00C, 0xE59CF000, slot - (at + 12))


MACHINES: dict[str, Machine] = {
    "x86_64": Machine(
        number=62,
        page=0x1000,
        word=1,  # R_X86_64_64
        relative=8,
        glob_dat=6,
        patches={2: _pc32, 4: _pc32, 24: _pc64, 9: _gotpcrel, 41: _gotpcrel, 42: _gotpcrel},
        slots=frozenset({9, 41, 42}),
        calls=frozenset({4}),
        stub=_x86_stub,
        start=_x86_start,
    ),
    "aarch64": Machine(
        number=183,
        page=0x10000,
        word=257,  # R_AARCH64_ABS64
        relative=1027,
        glob_dat=1025,
        patches={
            260: _pc64, 261: _pc32, 275: _adrp, 277: _low12(0), 278: _low12(0), 284: _low12(1), 285: _low12(2),
            286: _low12(3), 299: _low12(4), 282: _branch26, 283: _branch26, 311: _adrp_slot, 312: _low12_slot,
        },
        slots=frozenset({311, 312}),
        calls=frozenset({282, 283}),
        stub=_aarch64_stub,
        start=_aarch64_start,
    ),
    "riscv64": Machine(
        number=243,
        page=0x1000,
        word=2,  # R_RISCV_64
        relative=3,
        glob_dat=2,  # R_RISCV_64 serves as the symbol's address
        patches={
            16: _riscv_branch, 17: _riscv_jal, 18: _riscv_call, 19: _riscv_call, 20: _riscv_high_slot, 23: _riscv_high,
            24: _riscv_low_load, 25: _riscv_low_store, 57: _pc32,
        },
        slots=frozenset({20}),
        calls=frozenset({18, 19}),
        stub=_riscv_stub,
        ignored=frozenset({51}),  # R_RISCV_RELAX: may be shortened
        high=frozenset({20, 23}),
        low=frozenset({24, 25}),
    ),
    "armv7": Machine(
        number=40,
        page=0x1000,
        word=_ARM_ABS32,
        relative=23,
        glob_dat=21,
        patches={
            _ARM_REL32: _pc32, _ARM_CALL: _arm_branch, _ARM_JUMP24: _arm_branch, _ARM_GOT_PREL: _gotpcrel,
        },
        slots=frozenset({_ARM_GOT_PREL}),
        calls=frozenset({_ARM_CALL, _ARM_JUMP24}),
        stub=_arm_stub,
        addend=_arm_addend,
        flags=0x400,  # EF_ARM_ABI_FLOAT_HARD: floats in registers
    ),
}  # fmt: skip
