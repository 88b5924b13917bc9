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
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tensorlang.errors import ArtifactError

FORMAT = 3
PAGE = 4096
_BLOCK = 1 << 24  # bytes that are summed at a time: a multiple of PAGE
_LOCAL_MAGIC = b"PK\3\4"
_DIRECTORY_MAGIC = b"PK\1\2"
_END_MAGIC = b"PK\5\6"
_END = 22  # bytes of an archive's last record
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
    import tempfile  # here, for reading has no use for these two, which take 5 ms
    import zipfile

    try:
        texts = _texts(artifact)
        held = {"entries": ["manifest.json", *texts, "weights.bin"], "weights_sum": checksum(artifact.weights)}
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

                def entry_of(name: str) -> zipfile.ZipInfo:
                    return zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))  # same input, same bytes

                archive.writestr(entry_of("manifest.json"), json.dumps({**artifact.manifest, "held": held}))
                for name, content in texts.items():
                    archive.writestr(entry_of(name), content)
                entry = entry_of("weights.bin")
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


def _texts(artifact: Artifact) -> dict[str, str | bytes]:
    """What stands between manifest and weights, by name."""
    whole = None if artifact.file is None else artifact.file.read_bytes()
    libraries = artifact.libraries if whole is None else {"model": whole, "pool": whole}
    texts: dict[str, str | bytes] = {"program.py": artifact.source}
    texts |= {f"{name}.so": code for name, code in sorted(libraries.items())}
    for number, part in enumerate(artifact.parts, 1):
        texts |= {f"{number}/manifest.json": json.dumps(part.manifest), f"{number}/program.py": part.source}
        if "model" in part.libraries:
            texts[f"{number}/model.so"] = part.libraries["model"]
    return texts


def read_artifact(path: Path, verify: bool = False) -> Artifact:
    """Read a file that `write_artifact` wrote; the weights are mapped, not copied.

    Entries are found by the headers before them, one after the other, and have to be those that the manifest lists. All but
    the weights are compared with their CRC; the weights with `checksum`, which runs at the speed of memory.

    Args:
        verify: compare the weights with their CRC too, for which each byte takes ten times as long.

    Raises:
        ArtifactError: there is no such file, or it is damaged or of another version.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if content[-_END:][:4] != _END_MAGIC:
            raise ValueError("its end is missing")
        entries = _entries(content)
        manifest = json.loads(_checked(content, entries, "manifest.json"))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ArtifactError(f"{path} has another format than this version of tensorlang reads; compile it again")
        held = manifest.pop("held")
        if list(entries) != held["entries"]:
            raise ValueError("it does not hold what its manifest lists")
        read = {name: _checked(content, entries, name) for name in entries if name not in ("manifest.json", "weights.bin")}
        libraries = {name[:-3]: code for name, code in read.items() if name.endswith(".so") and "/" not in name}
        weights = _mapped(content, entries["weights.bin"])
        if verify and zlib.crc32(weights.data) != entries["weights.bin"].crc:
            raise ValueError("the weights' CRC does not match")
        if checksum(weights, content) != held["weights_sum"]:
            raise ValueError("the weights' checksum does not match")
        if weights.ctypes.data % 64:
            weights = aligned_copy(weights)
        parts = []
        for number in range(1, 1 + sum(name.endswith("/manifest.json") for name in read)):
            described, source = (read[f"{number}/{name}"] for name in ("manifest.json", "program.py"))
            model = {"model": read[f"{number}/model.so"]} if f"{number}/model.so" in read else {}
            parts.append(Artifact(json.loads(described), source.decode(), {**libraries, **model}, weights))
        return Artifact(manifest, read["program.py"].decode(), libraries, weights, parts=tuple(parts))
    except ArtifactError:
        raise
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (OSError, KeyError, TypeError, ValueError, struct.error) as error:
        raise ArtifactError(f"{path} is not a compiled model, or is damaged: {error}") from error


@dataclass(frozen=True)
class _Entry:
    start: int
    nbytes: int
    crc: int


def _entries(content: mmap.mmap) -> dict[str, _Entry]:
    """The archive's entries by name, in the file's order (PKWARE's APPNOTE, 4.3.7 and 4.5.3)."""
    found: dict[str, _Entry] = {}
    at = 0
    while content[at : at + 4] == _LOCAL_MAGIC:
        crc, nbytes, whole, name_length, extra_length = struct.unpack_from("<IIIHH", content, at + 14)
        names, start = at + _LOCAL_HEADER, at + _LOCAL_HEADER + name_length + extra_length
        if whole == 0xFFFFFFFF:  # zip64: the size stands in the last field
            nbytes = struct.unpack_from("<Q", content, start - 8)[0]
        if start + nbytes > len(content):
            raise ValueError("it is cut short")
        found[content[names : names + name_length].decode()] = _Entry(start, nbytes, crc)
        at = start + nbytes
    if content[at : at + 4] != _DIRECTORY_MAGIC:
        raise ValueError("what follows its entries is no directory")
    return found


def _checked(content: mmap.mmap, entries: dict[str, _Entry], name: str) -> bytes:
    if (entry := entries.get(name)) is None:
        raise ValueError(f"it holds no {name}")
    data = content[entry.start : entry.start + entry.nbytes]
    if zlib.crc32(data) != entry.crc:
        raise ValueError(f"the checksum of {name} does not match")
    return data


def _mapped(content: mmap.mmap, entry: _Entry) -> np.ndarray:
    if entry.start % PAGE:
        raise ValueError("the weights do not begin on a page")
    return np.frombuffer(content, np.uint8, entry.nbytes, entry.start) if entry.nbytes else np.zeros(0, np.uint8)


def checksum(data: np.ndarray, mapped: mmap.mmap | None = None) -> int:
    """CRC-32 of the sums of 64-bit words, modulo 2^64, of every 4096 bytes (zeros follow at the end): any changed byte and any
    page that is lost or elsewhere shows.

    Args:
        data: flat bytes.
        mapped: the file that they are a view of. Its pages leave this process again once they are summed: of tables from which
            a run gathers some rows, the others shall take no memory.
    """
    crc = 0
    for start in range(0, data.nbytes, _BLOCK):
        block = data[start : start + _BLOCK]
        if block.nbytes % PAGE:
            block = np.concatenate([block, np.zeros(-block.nbytes % PAGE, np.uint8)])
        if block.ctypes.data % 8:
            block = block.copy()
        crc = zlib.crc32(np.add.reduce(block.view("<u8").reshape(-1, PAGE // 8), axis=1), crc)
        if mapped is not None and hasattr(mapped, "madvise"):
            mapped.madvise(mmap.MADV_DONTNEED)
    return crc


def is_archive(content: bytes) -> bool:
    """Whether bytes begin as a file of `write_artifact` does."""
    return content[:4] == _LOCAL_MAGIC


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
