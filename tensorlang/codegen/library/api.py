"""The C functions of a library, as LLVM text around the emitted functions: they check pointers, keep the order of a run,
clean up after a failure, and talk to libc. An instance is the context that compiled code receives, and what follows it:

    bytes 0      the context's slots (`abi.Slot`); among them the pool, which is the instance's own
    64           status of the last failure
    72           address of the weights
    80, 88       mapping of a weights file: address, length
    128          the pool's state (`abi.PoolWord`)
    33664        handles of the workers

Nothing else is writable: two instances, and two libraries, share no memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

from tensorlang.codegen.intrinsics.abi import ABI_VERSION, MAX_THREADS, POOL_WORDS, WORKER_STRIDE, PoolWord, Slot
from tensorlang.codegen.library.descriptions import descriptions, tables
from tensorlang.codegen.library.functions_text import C_FUNCTIONS, WIDTHS
from tensorlang.codegen.library.interface import Interface, Status
from tensorlang.codegen.library.planning import Frame
from tensorlang.codegen.native.target import CpuTarget

_LAST_ERROR, _WEIGHTS, _MAPPED, _MAPPED_BYTES, _STATE = 64, 72, 80, 88, 128
_HANDLES = _STATE + POOL_WORDS * 8
_INSTANCE_BYTES = _HANDLES + MAX_THREADS * 8
_SPIN_NS = 5_000_000  # how long an idle worker spins before it sleeps
_NPROCESSORS = 84  # _SC_NPROCESSORS_ONLN of Linux


def api_names(interface: Interface) -> list[str]:
    """The C functions that a library exports."""
    names = (
        "create", "create_from_memory", "create_from_file", "destroy", "set_threads", "threads", "output_shapes",
        "workspace_bytes", "run", "free", "last_error", "status_text", "input_name", "input_dtype", "input_rank", "input_size",
        "input_dimension", "output_name", "output_dtype", "output_rank", "output_size", "output_dimension",
    )  # fmt: skip
    return [f"{interface.prefix}_{name}" for name in names]


def api_text(interface: Interface, target: CpuTarget, messages: Sequence[str], *, weights: bool) -> str:
    """LLVM text of the C functions.

    Args:
        messages: of the statuses that follow the model's own checks.
        weights: whether the weights are part of the library, as symbol <prefix>_weights.
    """
    bits = target.pointer_bits
    frame = Frame.of(interface)
    words = {
        "p": interface.prefix, "w": f"i{bits}", "frame_words": frame.words, "outputs_at": frame.outputs * 8,
        "dims_at": frame.dims * 8, "arena_at": frame.arena * 8, "instance": _INSTANCE_BYTES, "last_error": _LAST_ERROR,
        "weights_at": _WEIGHTS, "mapped_at": _MAPPED, "mapped_bytes_at": _MAPPED_BYTES, "state": _STATE, "handles": _HANDLES,
        "handle": bits // 8, "abi": ABI_VERSION, "workers": PoolWord.WORKERS * 8, "stride": WORKER_STRIDE * 8,
        "threads_at": _STATE + PoolWord.THREADS * 8, "spin_at": _STATE + PoolWord.SPIN * 8, "spin_ns": _SPIN_NS * 1000,
        "nprocessors": _NPROCESSORS, "max_threads": MAX_THREADS, "num_threads_slot": Slot.NUM_THREADS * 8,
        "parallel_slot": Slot.PARALLEL_FOR * 8, "allocate_slot": Slot.ALLOCATE * 8, "release_slot": Slot.RELEASE * 8,
        "pool_slot": Slot.POOL * 8, "weights_bytes": interface.weights_bytes, "weights_words": interface.weights_bytes // 8,
        "weights_sum": interface.weights_sum, "builtin": f"@{interface.prefix}_weights" if weights else "null",
        "is_open": int(not interface.is_static),
        **{status.name.lower(): int(status) for status in Status},
    }  # fmt: skip
    parts = [C_FUNCTIONS, WIDTHS[bits], _machine_check(target)]
    if weights:
        parts.append(f"@{interface.prefix}_weights = external hidden constant [{interface.weights_bytes} x i8], align 4096")
    text = Template("\n".join(parts)).substitute(words)
    return "\n".join([text, *tables(interface, messages), *descriptions(interface)]) + "\n"


# -- the processor -------------------------------------------------------------------------------------------------
# feature -> leaf (the low half: cpuid's function; the high: its sub-function), register, bit
_CPUID = {
    "sse3": (1, "c", 0), "pclmul": (1, "c", 1), "ssse3": (1, "c", 9), "fma": (1, "c", 12), "sse4.1": (1, "c", 19),
    "sse4.2": (1, "c", 20), "movbe": (1, "c", 22), "popcnt": (1, "c", 23), "aes": (1, "c", 25), "avx": (1, "c", 28),
    "f16c": (1, "c", 29), "bmi": (7, "b", 3), "avx2": (7, "b", 5), "bmi2": (7, "b", 8), "avx512f": (7, "b", 16),
    "avx512dq": (7, "b", 17), "avx512ifma": (7, "b", 21), "avx512cd": (7, "b", 28), "sha": (7, "b", 29),
    "avx512bw": (7, "b", 30), "avx512vl": (7, "b", 31), "avx512vbmi": (7, "c", 1), "avx512vbmi2": (7, "c", 6),
    "gfni": (7, "c", 8), "vaes": (7, "c", 9), "vpclmulqdq": (7, "c", 10), "avx512vnni": (7, "c", 11),
    "avx512bitalg": (7, "c", 12), "avx512vpopcntdq": (7, "c", 14), "amx-bf16": (7, "d", 22), "avx512fp16": (7, "d", 23),
    "amx-tile": (7, "d", 24), "amx-int8": (7, "d", 25), "avx512bf16": (7 | 1 << 32, "a", 5), "avxvnni": (7 | 1 << 32, "a", 4),
}  # fmt: skip
_REGISTERS = "abcd"


def _machine_check(target: CpuTarget) -> str:
    """`machine()`: 0, or the status of one that lacks what the code needs. Only x86-64 has an instruction that tells."""
    wanted: dict[int, dict[str, int]] = {}
    if target.architecture == CpuTarget.host().architecture == "x86_64":  # LLVM's wheel parses the host's assembly alone
        for feature, (leaf, register, bit) in _CPUID.items():
            if target.has(feature):
                registers = wanted.setdefault(leaf, {})
                registers[register] = registers.get(register, 0) | 1 << bit
    lines = ["define internal i32 @machine() {"]
    fits = []
    for n, (leaf, registers) in enumerate(wanted.items()):
        lines.append(
            f'  %r{n} = call {{ i32, i32, i32, i32 }} asm "cpuid", "={{ax}},={{bx}},={{cx}},={{dx}},{{ax}},{{cx}},'
            f'~{{dirflag}},~{{fpsr}},~{{flags}}"(i32 {leaf & 0xFFFFFFFF}, i32 {leaf >> 32})'
        )
        for register, mask in registers.items():
            signed = mask - (1 << 32) if mask >> 31 else mask
            name = f"{n}{register}"
            lines += [
                f"  %v{name} = extractvalue {{ i32, i32, i32, i32 }} %r{n}, {_REGISTERS.index(register)}",
                f"  %m{name} = and i32 %v{name}, {signed}",
                f"  %f{name} = icmp eq i32 %m{name}, {signed}",
            ]
            fits.append(f"%f{name}")
    all_fit = "true"
    for n, fit in enumerate(fits):
        lines.append(f"  %all{n} = and i1 {all_fit}, {fit}")
        all_fit = f"%all{n}"
    lines += [f"  %status = select i1 {all_fit}, i32 0, i32 $machine", "  ret i32 %status", "}"]
    return "\n".join(lines)
