"""Targets by name. Whatever the kind, code is made for this machine's CPU; GPU kinds also show their device module."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tensorlang.errors import InputError
from tensorlang.ir.expr import user_location

CPU_KINDS = ("llvm", "c", "stackvm")
DEVICE_KINDS = ("cuda", "nvptx", "opencl", "rocm", "vulkan", "metal", "webgpu")


@dataclass(frozen=True)
class TargetKind:
    """What a target is called."""

    name: str

    def __str__(self) -> str:
        return self.name


_CURRENT: list[Target] = []


@dataclass(frozen=True, init=False)
class Target:
    """A target by classic TVM's text, such as `"llvm -mcpu=core-avx2"`; a context manager that makes it current.

    Options are kept in `attrs` and change nothing: code is made for the features of the machine that compiles.

    Attributes:
        kind: its name.
        attrs: the options, by name without dashes.
        host: the target of the code around the kernels, if it was given.
    """

    kind: TargetKind
    attrs: dict[str, str] = field(hash=False)
    host: Target | None
    text: str

    def __init__(self, target: str | Target | dict[str, Any] = "llvm", host: str | Target | dict[str, Any] | None = None):
        if isinstance(target, Target):
            kind, attrs, text = target.kind, dict(target.attrs), target.text
            host = host or target.host
        elif isinstance(target, dict):
            kind = TargetKind(str(target.get("kind", "llvm")))
            attrs = {k: str(v) for k, v in target.items() if k not in ("kind", "host")}
            text = " ".join([kind.name, *(f"-{k}={v}" for k, v in attrs.items())])
            host = host or target.get("host")
        else:
            words = target.split()
            kind = TargetKind(words[0] if words else "")
            attrs = {w.lstrip("-").partition("=")[0]: w.partition("=")[2] for w in words[1:]}
            text = target
        if kind.name not in (*CPU_KINDS, *DEVICE_KINDS):
            known = ", ".join((*CPU_KINDS, *DEVICE_KINDS))
            raise InputError(f"{user_location()}: no kind of target {kind.name!r}; there are: {known}")
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "attrs", attrs)
        object.__setattr__(self, "host", Target(host) if host is not None else None)
        object.__setattr__(self, "text", text)

    @property
    def keys(self) -> list[str]:
        """The groups it belongs to: `["cpu"]`, or its kind and `"gpu"`."""
        return [self.kind.name, "gpu"] if self.is_device else ["cpu"]

    @property
    def is_device(self) -> bool:
        """Whether its code would run apart from the host's."""
        return self.kind.name in DEVICE_KINDS

    @property
    def mcpu(self) -> str:
        return self.attrs.get("mcpu", "")

    def __str__(self) -> str:
        return self.text

    def __enter__(self) -> Target:
        _CURRENT.append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _CURRENT.pop()

    @staticmethod
    def current(allow_none: bool = True) -> Target | None:
        """The target of the innermost `with`.

        Raises:
            InputError: there is none and `allow_none` is False.
        """
        if not _CURRENT and not allow_none:
            raise InputError(f"{user_location()}: no target is current; use `with Target(...)`")
        return _CURRENT[-1] if _CURRENT else None


def create(target: str | Target | dict[str, Any]) -> Target:
    """The target that `target` names."""
    return Target(target)


def cuda(model: str = "unknown", arch: str | None = None) -> Target:
    """A CUDA target."""
    return Target(f"cuda -model={model}" + (f" -arch={arch}" if arch else ""))


def opencl(model: str = "unknown") -> Target:
    """An OpenCL target."""
    return Target(f"opencl -model={model}")


def rocm(model: str = "unknown") -> Target:
    """A ROCm target."""
    return Target(f"rocm -model={model}")


def arm_cpu(model: str = "unknown") -> Target:
    """A CPU target; code is made for this machine."""
    return Target(f"llvm -device=arm_cpu -model={model}")
