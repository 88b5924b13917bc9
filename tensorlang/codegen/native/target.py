"""The machine that code is compiled for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

_TRIPLE = re.compile(r"(x86_64|aarch64|armv7\w*|riscv64|wasm32)(-\w+){1,3}")


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
    def of(cls, triple: str, cpu: str = "", features: str = "") -> CpuTarget:
        """A target by triple and features, its vector width inferred from them."""
        return cls(triple, cpu, features, _vector_bits(triple, set(features.split(","))))

    @classmethod
    def parse(cls, text: str) -> CpuTarget | None:
        """The CPU that `text` names, a triple such as `aarch64-linux-gnu`; None where it names none."""
        return cls.of(text) if _TRIPLE.fullmatch(text) else None

    @property
    def architecture(self) -> str:
        """The triple's first part."""
        return self.triple.split("-", 1)[0]

    def has(self, feature: str) -> bool:
        """Whether an LLVM feature is on."""
        return f"+{feature}" in self.features.split(",")

    @property
    def llvm_features(self) -> str:
        """Features as given to LLVM: 512-bit vectors are off by default on many CPUs that have them."""
        return self.features + (",-prefer-256-bit" if self.vector_bits >= 512 else "")


def _vector_bits(triple: str, features: set[str]) -> int:
    if {"+avx512f", "+avx512vl", "+avx512dq", "+avx512bw"} <= features:
        return 512
    return 256 if "+avx" in features else 128


@cache
def _host() -> CpuTarget:
    features = llvm.get_host_cpu_features()
    text = ",".join(f"{'+' if on else '-'}{name}" for name, on in sorted(features.items()))
    triple = llvm.get_process_triple()
    return CpuTarget(triple, llvm.get_host_cpu_name(), text, _vector_bits(triple, set(text.split(","))))


@cache
def initialize_llvm() -> None:
    """Register LLVM's targets once (all of them, so that code can be made for other machines)."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def target_machine(target: CpuTarget) -> llvm.TargetMachine:
    """LLVM's target machine, position-independent."""
    initialize_llvm()
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.llvm_features, opt=2, reloc="pic", codemodel="default"
    )
