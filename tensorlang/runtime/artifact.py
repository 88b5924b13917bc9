"""A compiled model as one file: a zip archive, uncompressed, that needs neither compiler nor unpacking.

    manifest.json   names, types, sizes, the steps of the program (see `runtime.executable`)
    program.py      the emitted Python, for people and debuggers
    model.so pool.so machine code
    1/manifest.json 1/program.py 1/model.so 2/...   programs for particular sizes (see `runtime.buckets`)
    weights.bin     begins at a multiple of 4096 bytes in the file, so that it is mapped and not read
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tensorlang.errors import ArtifactError

FORMAT = 2
PAGE = 4096
_LOCAL_HEADER = 30  # bytes of a zip entry's header before its name
_PADDING_FIELD = 0xD935  # the tag that zipalign uses
_BIG = 1 << 30  # entries above this get zip64 headers, 20 bytes longer
_ZIP64_FIELD = 20


@dataclass
class Artifact:
    """A compiled model.

    Attributes:
        manifest: JSON-able description.
        source: the emitted module.
        libraries: shared libraries by name: "model" and "pool"; empty where the program runs as plain Python.
        weights: all constants in one block of bytes, 64-byte aligned.
        report: CPU seconds per phase of the build; empty when it was loaded.
        file: an exported library that holds both "model" and "pool", in the place of `libraries`.
        parts: the same model compiled for particular sizes, with the same block of weights and the same "pool".
    """

    manifest: dict[str, Any]
    source: str
    libraries: dict[str, bytes]
    weights: np.ndarray
    report: dict[str, float] = field(default_factory=dict)
    file: Path | None = None
    parts: tuple[Artifact, ...] = ()

    @property
    def is_native(self) -> bool:
        """Whether it holds machine code."""
        return bool(self.libraries) or self.file is not None


def write_artifact(artifact: Artifact, path: Path) -> None:
    """Write one file; it appears whole, by rename.

    Raises:
        ArtifactError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(_entry("manifest.json"), json.dumps(artifact.manifest))
                archive.writestr(_entry("program.py"), artifact.source)
                whole = None if artifact.file is None else artifact.file.read_bytes()
                libraries = artifact.libraries if whole is None else {"model": whole, "pool": whole}
                for name, code in sorted(libraries.items()):
                    archive.writestr(_entry(f"{name}.so"), code)
                for number, part in enumerate(artifact.parts, 1):
                    archive.writestr(_entry(f"{number}/manifest.json"), json.dumps(part.manifest))
                    archive.writestr(_entry(f"{number}/program.py"), part.source)
                    if "model" in part.libraries:
                        archive.writestr(_entry(f"{number}/model.so"), part.libraries["model"])
                entry = _entry("weights.bin")
                big = artifact.weights.nbytes >= _BIG
                header = _LOCAL_HEADER + len(entry.filename) + (_ZIP64_FIELD if big else 0)
                padding = -(file.tell() + header + 4) % PAGE
                entry.extra = struct.pack("<HH", _PADDING_FIELD, padding) + bytes(padding)
                entry.file_size = artifact.weights.nbytes
                with archive.open(entry, "w", force_zip64=big) as stream:
                    stream.write(artifact.weights.data)
                entry.extra = b""  # the directory at the end needs no padding
            os.chmod(temporary, 0o644)  # to be handed on, unlike what `mkstemp` makes
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written: {error}") from error


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # same input, same bytes


def read_artifact(path: Path) -> Artifact:
    """Read a file that `write_artifact` wrote; the weights are mapped, not copied.

    Raises:
        ArtifactError: there is no such file, or it is damaged or of another version.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
                raise ArtifactError(f"{path} has another format than this version of tensorlang reads; compile it again")
            names = archive.namelist()
            libraries = {n[:-3]: archive.read(n) for n in names if n.endswith(".so") and "/" not in n}
            weights = _map(file, archive.getinfo("weights.bin"))
            parts = []
            for number in range(1, 1 + sum(n.endswith("/manifest.json") for n in names)):
                described, source = (archive.read(f"{number}/{name}") for name in ("manifest.json", "program.py"))
                model = {"model": archive.read(f"{number}/model.so")} if f"{number}/model.so" in names else {}
                parts.append(Artifact(json.loads(described), source.decode(), {**libraries, **model}, weights))
            return Artifact(manifest, archive.read("program.py").decode(), libraries, weights, parts=tuple(parts))
    except ArtifactError:
        raise
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (OSError, zipfile.BadZipFile, zlib.error, KeyError, ValueError, struct.error) as error:
        raise ArtifactError(f"{path} is not a compiled model, or is damaged: {error}") from error


def _map(file: Any, entry: zipfile.ZipInfo) -> np.ndarray:
    if entry.file_size == 0:
        return np.zeros(0, np.uint8)
    file.seek(entry.header_offset + 26)
    name_length, extra_length = struct.unpack("<HH", file.read(4))
    start = entry.header_offset + _LOCAL_HEADER + name_length + extra_length
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    weights = np.frombuffer(mapped, np.uint8, entry.file_size, start)
    if zlib.crc32(weights.data) != entry.CRC:
        raise ValueError("the weights' checksum does not match")
    return weights if weights.ctypes.data % 64 == 0 else aligned_copy(weights)


def is_archive(content: bytes) -> bool:
    """Whether bytes begin as a file of `write_artifact` does."""
    return content[:4] == b"PK\3\4"


def aligned_bytes(nbytes: int) -> np.ndarray:
    """Uninitialised memory of `nbytes` bytes that begins at a multiple of 64."""
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes]


def aligned_copy(data: np.ndarray) -> np.ndarray:
    """A copy of flat bytes at a multiple of 64."""
    copy = aligned_bytes(data.nbytes)
    copy[:] = data
    return copy
