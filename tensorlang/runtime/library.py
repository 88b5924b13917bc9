"""An exported shared library as an artifact: what it carries about itself is read from its file, its weights are mapped.

The library offers, after its prefix: `__manifest` and `__source` (data), `_weights`, and the functions `__main`, `__pool_...`.
Addresses in it are offsets in the file, for our own linker wrote it.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from pathlib import Path

import numpy as np

from tensorlang.errors import ArtifactError
from tensorlang.runtime.artifact import FORMAT, Artifact

MAGIC = b"\x7fELF\x02\x01"
WEIGHTS_SUFFIX = ".weights"
_DYNSYM = 11
_MANIFEST = "__manifest"


def is_library(path: Path) -> bool:
    """Whether a file begins as a 64-bit little-endian ELF file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_library(path: Path) -> Artifact:
    """Read a file that `Executable.export_library` wrote.

    Raises:
        ArtifactError: it is no such library, or it is damaged or of another version.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        symbols = _symbols(content)
        found = [name for name in symbols if name.endswith(_MANIFEST)]
        if len(found) != 1:
            raise ArtifactError(f"{path} is not a library that tensorlang exported")
        prefix = found[0][: -len(_MANIFEST)]
        manifest = json.loads(_bytes(content, symbols[found[0]]))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ArtifactError(f"{path} has another format than this version of tensorlang reads; export it again")
        source = _bytes(content, symbols[prefix + "__source"])
        if (place := symbols.get(prefix + "_weights")) is not None:
            weights = np.frombuffer(content, np.uint8, place[1], place[0])
        else:
            weights = _beside(path.with_suffix(WEIGHTS_SUFFIX))
        if zlib.crc32(weights.data) != manifest["weights_crc"] or zlib.crc32(source) != manifest["source_crc"]:
            raise ArtifactError(f"{path} is damaged: a checksum does not match")
        return Artifact(manifest, source.decode(), {}, weights, file=path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (OSError, KeyError, ValueError, IndexError, struct.error) as error:
        raise ArtifactError(f"{path} is not a library that tensorlang exported, or is damaged: {error}") from error


def _beside(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; it holds the weights of the library beside it") from None


def _symbols(content: mmap.mmap) -> dict[str, tuple[int, int]]:
    """Address and size of each dynamic symbol that is defined."""
    table = struct.unpack_from("<Q", content, 40)[0]
    size, count = struct.unpack_from("<HH", content, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", content, table + n * size) for n in range(count)]
    dynamic = next((s for s in sections if s[1] == _DYNSYM), None)
    if dynamic is None:
        raise ValueError("it has no symbols")
    names = sections[dynamic[6]]
    found = {}
    for name, _, _, section, at, nbytes in struct.iter_unpack("<IBBHQQ", _bytes(content, (dynamic[4], dynamic[5]))):
        if section:
            start = names[4] + name
            found[content[start : content.find(b"\0", start)].decode()] = (at, nbytes)
    return found


def _bytes(content: mmap.mmap, place: tuple[int, int]) -> bytes:
    at, size = place
    if at + size > len(content):
        raise ValueError("it is cut short")
    return content[at : at + size]
