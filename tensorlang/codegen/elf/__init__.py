"""Object files to a shared library, with no linker on the machine.

LLVM gives relocatable ELF objects; `link_shared` lays them out, resolves what they ask of one another, and writes a library
that any dynamic loader maps: 64-bit little-endian ELF for x86-64, AArch64 and RISC-V. What stays undefined is imported
from libc (and libm). Sources: System V ABI, chapters 4 and 5, and the processor supplements for the relocations.
"""

from __future__ import annotations

from tensorlang.codegen.elf.link import link_shared
from tensorlang.codegen.elf.reader import ObjectFile, read_object

__all__ = ["ObjectFile", "link_shared", "read_object"]
