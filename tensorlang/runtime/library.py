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
from tensorlang.runtime.artifact import FORMAT, Artifact, checksum

MAGIC = b"\x7fELF\x02\x01"
WEIGHTS_SUFFIX = ".weights"
UNSIGNED = b'"file_crc": "--------"'  # stands in the manifest while its file's checksum is made
_DYNSYM = 11
_MANIFEST = "__manifest"


def is_library(path: Path) -> bool:
    """Whether a file begins as a 64-bit little-endian ELF file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def read_library(path: Path, verify: bool = False) -> Artifact:
    """Read a file that `Executable.export_library` wrote.

    Args:
        verify: compare the weights with their CRC too (see `runtime.artifact.read_artifact`).

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
        place = symbols.get(prefix + "_weights")
        manifest = json.loads(_bytes(content, symbols[found[0]]))
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ArtifactError(f"{path} has another format than this version of tensorlang reads; export it again")
        source = _bytes(content, symbols[prefix + "__source"])
        if place is not None:
            held = content
            weights = np.frombuffer(content, np.uint8, place[1], place[0])
        else:
            held = _beside(path.with_suffix(WEIGHTS_SUFFIX))
            weights = np.frombuffer(held, np.uint8)
        if manifest["file_crc"] != file_crc(content, place):
            raise ArtifactError(f"{path} is damaged: its checksum does not match")
        whole = checksum(weights, held) == manifest["weights_sum"]
        if not whole or (verify and zlib.crc32(weights.data) != manifest["weights_crc"]):
            raise ArtifactError(f"{path} is damaged: its weights' checksum does not match")
        return Artifact(manifest, source.decode(), {}, weights, file=path)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file") from None
    except (IndexError, struct.error):
        raise ArtifactError(f"{path} is not a library that tensorlang exported, or is damaged: it is cut short") from None
    except (OSError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is not a library that tensorlang exported, or is damaged: {error}") from error


def file_crc(content: bytes | mmap.mmap, weights: tuple[int, int] | None) -> str:
    """CRC-32 of a library without its weights, which have their own, and with `UNSIGNED` where this stands in its manifest.

    Args:
        weights: where they begin, and their length.
    """
    at, size = weights or (len(content), 0)
    rest = content[:at] + content[at + size :]
    begun = rest.find(UNSIGNED[:-9]) + len(UNSIGNED) - 9
    return f"{zlib.crc32(rest[:begun] + UNSIGNED[-9:-1] + rest[begun + 8 :]):08x}"


def signed(library: bytes) -> bytes:
    """A library as the linker made it, with its checksum in the place of `UNSIGNED`."""
    weights = [place for name, place in _symbols(library).items() if name.endswith("_weights")]
    crc = file_crc(library, weights[0] if weights else None)
    return library.replace(UNSIGNED, UNSIGNED.replace(b"--------", crc.encode()), 1)


def _beside(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; it holds the weights of the library beside it") from None


def _symbols(content: bytes | mmap.mmap) -> dict[str, tuple[int, int]]:
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


def _bytes(content: bytes | mmap.mmap, place: tuple[int, int]) -> bytes:
    at, size = place
    if at + size > len(content):
        raise ValueError("it is cut short")
    return content[at : at + size]
