"""What machine code says of itself: vector registers and stack traffic in its innermost loops.

    .LBB2_3:
        vbroadcastss  -12288(%rbx,%r14), %zmm17        an innermost loop: from a label to a jump back to it,
        vfmadd231ps   %zmm17, %zmm18, %zmm16           with no such loop inside
        vmovups       %zmm16, 64(%rsp)                 a spill: a store to the stack
        jne .LBB2_3

A register tile that was not promoted to registers is stack traffic too, so it counts: what is told is what the code does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = re.compile(r"^([.\w$]+):")
_TARGET = re.compile(r"([.\w$]+)\s*$")
_X86_STACK = re.compile(r"\(%[re]sp\b")
_ARM_STACK = re.compile(r"\[sp\b")
_RISCV_STACK = re.compile(r"\(sp\)")
_X86_VECTOR = {"zmm": 512, "ymm": 256, "xmm": 128}
_ARM_VECTOR = re.compile(r"\b(?:v\d+\.|q\d+\b)")
_RISCV_VECTOR = re.compile(r"^v\w+\.(?:v|vv|vf|vx|v\.v)\b")
_BRANCHES = frozenset(
    ["b", "cbz", "cbnz", "tbz", "tbnz", *"beq bne blt bge bltu bgeu beqz bnez bltz bgez blez bgtz bgt ble bgtu bleu".split(),
     *"bhs blo bhi bls bpl bmi bcs bcc".split()]
)  # fmt: skip


@dataclass(frozen=True)
class HotLoops:
    """The innermost loops of a piece of machine code.

    Attributes:
        loops: how many there are.
        spills: instructions in them that store to the stack.
        reloads: instructions in them that read the stack.
        vector_bits: of the widest register that they name; 0 if they name no vector register.
    """

    loops: int
    spills: int
    reloads: int
    vector_bits: int


def hot_loops(asm: str) -> HotLoops:
    """Read assembly text as LLVM writes it for x86-64 (AT&T syntax), Arm of 64 or 32 bits, or RISC-V.

    RISC-V's instructions do not tell the width of its vectors: 128 bits stand for "at least that".
    """
    lines = [line.split("#")[0].split("@ ")[0].strip() for line in asm.splitlines()]
    labels: dict[str, int] = {}
    spans: list[tuple[int, int]] = []
    for n, line in enumerate(lines):
        if match := _LABEL.match(line):
            labels[match[1]] = n
        elif _is_branch(line) and (match := _TARGET.search(line)) and match[1] in labels:
            spans.append((labels[match[1]], n))
    inner = [a for a in spans if not any(b != a and a[0] <= b[0] and b[1] <= a[1] for b in spans)]
    code = [line for start, end in dict.fromkeys(inner) for line in lines[start : end + 1]]
    traffic = [_stack(line) for line in code]
    return HotLoops(
        len(set(inner)), sum(t == "store" for t in traffic), sum(t == "load" for t in traffic), max(map(_bits, code), default=0)
    )


def _is_branch(line: str) -> bool:
    name = line.split(None, 1)[0] if line else ""
    return name.startswith(("j", "b.")) or name in _BRANCHES


def _stack(line: str) -> str:
    """"store", "load", or "" of an instruction."""
    if _X86_STACK.search(line):
        if line.startswith("lea"):
            return ""
        return "store" if line.endswith(")") and not line.startswith(("cmp", "test", "vucomi", "vcomi", "call")) else "load"
    if _ARM_STACK.search(line):
        return "store" if line.startswith(("st", "vst")) else "load" if line.startswith(("ld", "vld")) else ""
    if _RISCV_STACK.search(line):
        return "store" if line.startswith(("s", "fs")) else "load"
    return ""


def _bits(line: str) -> int:
    wide = [bits for name, bits in _X86_VECTOR.items() if f"%{name}" in line]
    return max(wide, default=128 if _ARM_VECTOR.search(line) or _RISCV_VECTOR.match(line) else 0)
