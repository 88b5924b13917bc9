"""The machine that code is compiled for: its name, triple, instruction sets, and what follows from them.

    name                     machine                                    vectors
    x86-64, x86-64-v2        any x86-64; from 2009 on                   SSE, 128 bits
    x86-64-v3                from 2013 on                               AVX2 and FMA, 256 bits
    x86-64-v4                with AVX-512                               512 bits
    aarch64-linux-gnu        any 64-bit Arm                             NEON, 128 bits
    arm-linux-gnueabihf      Armv7-A with VFPv4 (Cortex-A7 and later)   NEON, 128 bits
    riscv64-linux-gnu        RV64GC                                     none; with `+v` RVV, 128 bits and more
    wasm32                   WebAssembly 2                              SIMD128

Instruction sets beyond these follow the name: `aarch64-linux-gnu+dotprod`, `riscv64-linux-gnu+v+zvl256b`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

from tensorlang.errors import BuildError


@dataclass(frozen=True)
class _Family:
    """Machines that differ only in instruction sets.

    Attributes:
        triple: LLVM's.
        features: what every such machine has, by LLVM's names.
        optional: what some have besides; others are refused, because LLVM ignores names that it does not know.
    """

    triple: str
    features: tuple[str, ...]
    optional: tuple[str, ...] = ()


_V1 = ("64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2")
_V2 = (*_V1, "crc32", "cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
_X86_MORE = (
    "aes", "amx-bf16", "amx-int8", "amx-tile", "avx512bf16", "avx512bitalg", "avx512fp16", "avx512ifma", "avx512vbmi",
    "avx512vbmi2", "avx512vnni", "avx512vpopcntdq", "avxvnni", "gfni", "pclmul", "sha", "vaes", "vpclmulqdq",
)  # fmt: skip
_LINUX = "-unknown-linux-gnu"

_FAMILIES = {
    "x86-64": _Family("x86_64" + _LINUX, _V1, (*_V4, *_X86_MORE)),
    "x86-64-v2": _Family("x86_64" + _LINUX, _V2, (*_V4, *_X86_MORE)),
    "x86-64-v3": _Family("x86_64" + _LINUX, _V3, (*_V4, *_X86_MORE)),
    "x86-64-v4": _Family("x86_64" + _LINUX, _V4, _X86_MORE),
    "aarch64-linux-gnu": _Family(
        "aarch64" + _LINUX, ("fp-armv8", "neon"),
        ("bf16", "crc", "dotprod", "fp16fml", "fullfp16", "i8mm", "lse", "rcpc", "rdm")
    ),
    "arm-linux-gnueabihf": _Family(
        "armv7" + _LINUX + "eabihf", ("fp16", "neon", "vfp3", "vfp4"), ("dotprod", "fp-armv8", "hwdiv", "hwdiv-arm")
    ),
    "riscv64-linux-gnu": _Family(
        "riscv64" + _LINUX, ("a", "c", "d", "f", "m"),
        ("v", "zba", "zbb", "zbs", "zfh", "zfhmin", "zvfh", "zvfhmin", "zvl256b", "zvl512b"),
    ),
    "wasm32": _Family(
        "wasm32-unknown-unknown",
        ("bulk-memory", "mutable-globals", "nontrapping-fptoint", "sign-ext", "simd128"), ("relaxed-simd",),
    ),
}  # fmt: skip
# Other spellings: regular expression -> name above.
_SPELLINGS = {
    r"x86[_-]64(-(unknown|pc))?-linux-gnu": "x86-64",
    r"(aarch64|arm64)((-unknown)?-linux-gnu)?": "aarch64-linux-gnu",
    r"armv7|armv7l?(-unknown)?-linux-gnueabihf": "arm-linux-gnueabihf",
    r"riscv64((-unknown)?-linux-gnu)?": "riscv64-linux-gnu",
    r"wasm32-unknown-unknown": "wasm32",
}


@dataclass(frozen=True)
class CpuTarget:
    """An LLVM target. Widths are chosen by feature flags, never by CPU name: names mislead on cloud machines.

    Attributes:
        triple: LLVM's, such as `x86_64-unknown-linux-gnu`.
        cpu: the scheduling model's name, "" for generic.
        features: LLVM feature string, `+avx2,+fma,...`.
        vector_bits: widest vector register to use.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int

    @classmethod
    def host(cls) -> CpuTarget:
        """This process's machine."""
        return _host()

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names that `parse` knows, one for each machine."""
        return tuple(_FAMILIES)

    @classmethod
    def of(cls, triple: str, cpu: str = "", features: str = "") -> CpuTarget:
        """A target by triple and features, its vector width inferred from them."""
        return cls(triple, cpu, features, _vector_bits(set(features.split(","))))

    @classmethod
    def parse(cls, text: str) -> CpuTarget | None:
        """The CPU that `text` names, as in the table above, with instruction sets after `+`; None where it names none.

        Raises:
            BuildError: the machine is known and has no such instruction set.
        """
        name, *more = text.split("+")
        known = next((n for pattern, n in _SPELLINGS.items() if re.fullmatch(pattern, name)), name)
        family = _FAMILIES.get(known)
        if family is None:
            return None
        if unknown := sorted(set(more) - {*family.features, *family.optional}):
            may = ", ".join(sorted({*family.optional} - {*family.features}))
            raise BuildError(f"target {text!r}: {name} has no feature {', '.join(unknown)}; there is: {may}")
        features = ",".join(f"+{f}" for f in sorted({*family.features, *more}))
        return cls.of(family.triple, "", features)

    @property
    def architecture(self) -> str:
        """The triple's first part."""
        return self.triple.split("-", 1)[0]

    @property
    def abi(self) -> str:
        """The name of the calling convention, where the triple does not tell: RISC-V with floats in registers."""
        return "lp64d" if self.architecture == "riscv64" and self.has("d") else ""

    @property
    def pointer_bits(self) -> int:
        """Width of an address. Emitted code computes with addresses of 64 bits on every machine."""
        return 32 if self.architecture.startswith(("arm", "wasm32", "i386", "i686")) else 64

    @property
    def has_threads(self) -> bool:
        """Whether programs can start threads, and so whether there is a pool."""
        return self.architecture != "wasm32"

    @property
    def vector_registers(self) -> int:
        """How many vectors of `vector_bits` fit into registers."""
        if self.architecture == "riscv64" and not self.has("v"):
            return 8  # 32 scalar registers: a vector of four takes as many
        wide = self.vector_bits >= 512 or self.architecture in ("aarch64", "riscv64")
        return 32 if wide else 16

    def has(self, feature: str) -> bool:
        """Whether an LLVM feature is on."""
        return f"+{feature}" in self.features.split(",")

    @property
    def llvm_features(self) -> str:
        """Features as given to LLVM, with what is no instruction set: 512-bit vectors are off by default on many CPUs that
        have them, and on 32-bit Arm the default scheduler hoists all loads of an unrolled reduction, which spills them."""
        tuning = ",-prefer-256-bit" if self.vector_bits >= 512 else ",+use-misched" if self.architecture == "armv7" else ""
        return self.features + tuning


def target_names() -> list[str]:
    """The names of the machines that `CpuTarget.parse` knows."""
    return list(_FAMILIES)


def _vector_bits(features: set[str]) -> int:
    if {"+avx512f", "+avx512vl", "+avx512dq", "+avx512bw"} <= features:
        return 512
    if "+v" in features:
        return 512 if "+zvl512b" in features else 256 if "+zvl256b" in features else 128
    return 256 if "+avx" in features else 128


@cache
def _host() -> CpuTarget:
    features, triple = llvm.get_host_cpu_features(), llvm.get_process_triple()
    alike = [f for f in _FAMILIES.values() if f.triple.split("-")[0] == triple.split("-")[0]]
    named = {name for f in alike for name in (*f.features, *f.optional)}
    # What a newer processor has besides is off: our code gains nothing by it, and the loader has no way to look for it.
    use = {name: on and (name in named or not alike) for name, on in sorted(features.items())}
    text = ",".join(f"{'+' if on else '-'}{name}" for name, on in use.items())
    return CpuTarget(triple, llvm.get_host_cpu_name(), text, _vector_bits(set(text.split(","))))


@cache
def initialize_llvm() -> None:
    """Register LLVM's targets once (all of them, so that code can be made for other machines)."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def target_machine(target: CpuTarget) -> llvm.TargetMachine:
    """LLVM's target machine, position-independent (but for WebAssembly, whose modules are placed as a whole)."""
    initialize_llvm()
    reloc = "static" if target.architecture == "wasm32" else "pic"
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.llvm_features, opt=2, reloc=reloc, codemodel="default", abiname=target.abi
    )
