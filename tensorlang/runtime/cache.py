"""A content-addressed store of bytes on disk, safe for many processes.

A value appears by rename, so readers see all of it or nothing; each file carries a checksum, and one that does not
match is a miss. The store is bounded: the least recently used files go first.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path

from tensorlang.config import Settings

_MAGIC = b"TLC1"
_HEADER = len(_MAGIC) + 32
DEFAULT_LIMIT_BYTES = 2 << 30
_warned: set[Path] = set()


class ContentCache:
    """Bytes by key (any hex string that hashes what they were made from).

    Args:
        directory: where the files live; None caches nothing.
        limit_bytes: total size above which the least recently used files are removed, down to 3/4 of it.
    """

    def __init__(self, directory: Path | None, limit_bytes: int = DEFAULT_LIMIT_BYTES):
        self.directory = directory
        self.limit_bytes = limit_bytes
        self._written = 0

    @classmethod
    def of(cls, settings: Settings, kind: str) -> ContentCache:
        """The store for one kind of content under the settings' cache directory."""
        return cls(settings.cache_dir / kind if settings.cache else None)

    def path(self, key: str) -> Path | None:
        """Where `key` is or would be kept."""
        return None if self.directory is None else self.directory / key[:2] / key

    def get(self, key: str) -> bytes | None:
        """The value of `key`; None where there is none, or none that is whole."""
        path = self.path(key)
        if path is None:
            return None
        try:
            data = path.read_bytes()
        except OSError:
            return None
        value = data[_HEADER:]
        if data[:_HEADER] != _MAGIC + hashlib.sha256(value).digest():
            _discard(path)
            return None
        try:
            os.utime(path)  # recently used
        except OSError:
            pass  # a read-only store keeps its own order
        return value

    def put(self, key: str, value: bytes) -> None:
        """Keep `value`; a directory that cannot be written is warned of once and otherwise ignored."""
        path = self.path(key)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(_MAGIC + hashlib.sha256(value).digest() + value)
                os.replace(temporary, path)
            except BaseException:
                _discard(Path(temporary))
                raise
        except OSError as error:
            self._warn(error)
            return
        self._written += len(value)
        if self._written > self.limit_bytes // 16:  # look at the whole directory seldom
            self._written = 0
            self.evict()

    def evict(self) -> None:
        """Remove the least recently used files, if the store is above its limit, down to 3/4 of it."""
        if self.directory is None:
            return
        files = []
        for path in self.directory.glob("*/*"):
            try:
                status = path.stat()
            except OSError:
                continue  # removed by another process
            files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= self.limit_bytes:
            return
        for _, size, path in sorted(files):
            _discard(path)
            total -= size
            if total <= self.limit_bytes * 3 // 4:
                return

    def _warn(self, error: OSError) -> None:
        if self.directory is not None and self.directory not in _warned:
            _warned.add(self.directory)
            warnings.warn(f"build cache {self.directory} cannot be written ({error}); continuing without", stacklevel=3)


def _discard(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass  # gone already, or not ours to remove: either way it will not be used
