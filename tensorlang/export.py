"""Compiled models as libraries for programs without Python (layer 8): `Executable.export_library`.

    libm.so   kernels, thread pool, allocator, weights; imports nothing but libc
    libm.h    its C functions                    libm.json     the same for programs
    libm_main.c  an example                      libm.a        in place of libm.so: to be linked into a program
    m         (form "exe") a program of its own, which reads and writes .npy files

No compiler and no linker is used; the bytes depend on the model, the target and our own version alone.
"""

from __future__ import annotations

import json
import os
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tensorlang.build import Cpu
from tensorlang.codegen.elf import link_shared
from tensorlang.codegen.library import (
    Interface,
    data_object,
    describe_json,
    example_text,
    header_text,
    library_object,
    static_library,
    weights_object,
)
from tensorlang.codegen.library.header import signature
from tensorlang.codegen.library.interface import identifier, padded
from tensorlang.codegen.native import CpuTarget
from tensorlang.codegen.native.arm_support import support_objects
from tensorlang.codegen.target import find_target
from tensorlang.codegen.wasm import link_module, loader_text
from tensorlang.config import Settings
from tensorlang.errors import ArtifactError, BuildError
from tensorlang.runtime import sizes
from tensorlang.runtime.artifact import FORMAT, Artifact, checksum
from tensorlang.runtime.cache import ContentCache
from tensorlang.runtime.library import WEIGHTS_SUFFIX, signed

FORMS = {".so": "so", ".a": "a", "": "exe"}
# loaders of programs, by architecture (glibc's)
INTERPRETERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
WEIGHTS_PLACES = ("inside", "beside")
_TRIED = (1, 2, 3, 4, 5, 8, 16, 32, 64, 128, 224)  # sizes of open dimensions for the example


def export_artifact(
    artifact: Artifact, target: str | None, path: Path, form: str | None, weights_place: str, settings: Settings
) -> list[Path]:
    """Write a library and what stands beside it.

    Args:
        artifact: a build for the CPU `target`; None is what its manifest says.
        path: of the library, after which the other files are named, or the folder for a library named after the model.
        form: "so", "a" or "exe"; by the path's suffix where it is None.
        weights_place: "inside" the library or "beside" it, in `libm.weights`.

    Returns:
        The files, the library first.

    Raises:
        ArtifactError: the form is unknown, the program is not native code, or a file cannot be written.
        BuildError: something has no code for the target.
    """
    if "main" not in artifact.manifest["signatures"]:
        raise ArtifactError(f"{path}: the model is no native program")
    cpu = _cpu_of(artifact, target)
    store = ContentCache.of(settings, "native")
    if not cpu.has_threads:
        return _export_module(artifact, path, form, cpu, store)
    if path.is_dir() and form is None:
        path = path / f"lib{identifier(artifact.manifest['model'])}.so"
    form = form or FORMS.get(path.suffix)
    if form not in FORMS.values():
        raise ArtifactError(
            f"{path}: a library's form is told by its suffix ({', '.join(FORMS)}) or by form= ({', '.join(FORMS.values())})"
        )
    if weights_place not in WEIGHTS_PLACES:
        raise ArtifactError(f"weights={weights_place!r}: they can be {' or '.join(WEIGHTS_PLACES)}")
    inside = weights_place == "inside"
    manifest = {k: v for k, v in artifact.manifest.items() if k not in ("steps", "certificate")}
    weights = padded(artifact.weights)
    interface = Interface.of(manifest, weights, path.stem)
    if form == "exe":
        write_whole(path, _program(artifact.source, interface, cpu, weights, inside, store), mode=0o755)
        return [path]
    code, exports = library_object(artifact.source, interface, cpu, weights=inside, store=store)
    prefix = interface.prefix
    if form == "so":
        described = {**artifact.manifest, "format": FORMAT, "prefix": f"{prefix}__", "steps": []}
        described["signatures"] = {"main": manifest["signatures"]["main"]}  # kernels are not reached one by one
        described |= {"weights_crc": zlib.crc32(weights.data), "weights_sum": checksum(weights)}
        described["file_crc"] = "--------"
        payloads: dict[str, bytes | memoryview] = {
            **({f"{prefix}_weights": weights.data} if inside else {}),
            f"{prefix}__manifest": json.dumps(described, sort_keys=True).encode(),
            f"{prefix}__source": artifact.source.encode(),
        }
        library = link_shared([code, *support_objects(cpu)], [*exports, *payloads], payloads=payloads, soname=path.name)
        if cpu.pointer_bits == 64:  # Python loads no others
            library = signed(library)
    else:
        members, offered = {"model.o": code}, {"model.o": exports}
        if inside:
            if cpu.pointer_bits == 64:
                members["weights.o"] = weights_object(f"{prefix}_weights", weights.data, code)
            else:
                members["weights.o"] = data_object(f"{prefix}_weights", weights.tobytes(), cpu)
            offered["weights.o"] = [f"{prefix}_weights"]
        library = static_library(members, offered)
    name = path.stem
    texts = {
        path: library,
        path.with_name(f"{name}.h"): header_text(interface, cpu.triple).encode(),
        path.with_name(f"{name}.json"): describe_json(interface, manifest).encode(),
        path.with_name(f"{name}_main.c"): example_text(
            interface, f"{name}.h", _example_shapes(interface), "" if inside else f"{name}{WEIGHTS_SUFFIX}"
        ).encode(),
    }
    if not inside:
        texts[path.with_suffix(WEIGHTS_SUFFIX)] = weights.tobytes()
    for file, content in texts.items():
        write_whole(file, content)
    return list(texts)


def _export_module(artifact: Artifact, path: Path, form: str | None, cpu: CpuTarget, store: ContentCache) -> list[Path]:
    """A WebAssembly module with the functions of the C interface, its weights beside it, the header, a description, and the
    JavaScript that loads it (see docs/machines.md).

    Raises:
        ArtifactError: another form was asked for, or a file cannot be written.
    """
    if path.suffix != ".wasm" or form not in (None, "wasm"):
        raise ArtifactError(f"{path}: for WebAssembly a model is exported as a module; name it {path.stem}.wasm")
    weights = padded(artifact.weights)
    interface = Interface.of(artifact.manifest, weights, path.stem)
    code, exports = library_object(artifact.source, interface, cpu, weights=False, store=store)
    texts = {
        path: link_module(code, exports),
        path.with_suffix(WEIGHTS_SUFFIX): weights.tobytes(),
        path.with_suffix(".h"): header_text(interface, cpu.triple).encode(),
        path.with_suffix(".json"): describe_json(interface, artifact.manifest).encode(),
        path.with_suffix(".mjs"): loader_text(interface.prefix, path.stem, signature(interface)).encode(),
    }
    for file, content in texts.items():
        write_whole(file, content)
    return list(texts)


def _cpu_of(artifact: Artifact, target: str | None) -> CpuTarget:
    if target is not None:
        found = find_target(target)
        if not isinstance(found, Cpu):
            raise BuildError(f"target {target!r} is no CPU")
        return found.cpu
    manifest = artifact.manifest
    return CpuTarget.of(manifest["triple"], "", ",".join(f"+{f}" for f in manifest["cpu_features"]))


def _program(
    source: str, interface: Interface, cpu: CpuTarget, weights: np.ndarray, inside: bool, store: ContentCache
) -> bytes:
    if cpu.architecture not in INTERPRETERS or "linux" not in cpu.triple:
        raise BuildError(f"executables are made for Linux on {', '.join(INTERPRETERS)}, not for {cpu.triple}; export a library")
    if not inside:
        raise ArtifactError("an executable has its weights inside")
    code, exports = library_object(source, interface, cpu, program=True, store=store)
    payloads = {f"{interface.prefix}_weights": weights.data}
    loader = INTERPRETERS[cpu.architecture]
    return link_shared([code], exports, payloads=payloads, needed=["libc.so.6"], interpreter=loader)


def _example_shapes(interface: Interface) -> list[list[int]]:
    """Input shapes that the model takes: one size for all open dimensions, the first that fits."""
    for size in _TRIED:
        values: Mapping[str, int] = dict.fromkeys(interface.dims, size)
        if all(sizes.evaluate(a, values) == sizes.evaluate(b, values) for a, b, _ in interface.constraints):
            break
    else:
        values = dict.fromkeys(interface.dims, 1)
    return [[sizes.evaluate(d, values) for d in t.shape] for t in interface.inputs]


def write_whole(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file, which appears whole, by rename.

    Raises:
        ArtifactError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, mode)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error}") from error

