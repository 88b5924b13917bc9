"""A content-addressed store of bytes on disk, safe for many processes.

A value appears by rename, so readers see all of it or nothing; each file carries a checksum, and one that does not
match is a miss. The store is bounded: the least recently used files go first.
"""

from __future__ import annotations

import contextlib
import os
import time
import warnings
from pathlib import Path

from tensorlang.config import Settings

_MAGIC = b"TLC1"
_HEADER = len(_MAGIC) + 32
DEFAULT_LIMIT_BYTES = 2 << 30
DEBRIS_SECONDS = 3600  # a file half written that long ago was left by a process that died
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
        if not is_whole(data):
            self.discard(key)
            return None
        self.touch(key)
        return data[_HEADER:]

    def touch(self, key: str) -> None:
        """Note that `key` was used now."""
        path = self.path(key)
        if path is not None:
            with contextlib.suppress(OSError):  # a read-only store keeps its own order
                os.utime(path)

    def discard(self, key: str) -> None:
        """Remove `key`; a store that cannot be written keeps it."""
        path = self.path(key)
        if path is not None:
            _discard(path)

    def put(self, key: str, value: bytes) -> None:
        """Keep `value`; a directory that cannot be written is warned of once and otherwise ignored."""
        path = self.path(key)
        if path is None:
            return
        import hashlib  # here, for loading a model has no use for these two, which take 8 ms
        import tempfile

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
            self.warn(error)
            return
        self._written += len(value)
        if self._written > self.limit_bytes // 16:  # look at the whole directory seldom
            self._written = 0
            self.evict()

    def evict(self) -> None:
        """Remove what killed writers left and, above the limit, the least recently used files, down to 3/4 of it."""
        if self.directory is None:
            return
        files = []
        for path in self.directory.glob("*/*"):
            try:
                status = path.stat()
            except OSError:
                continue  # removed by another process
            if path.suffix == ".tmp" and time.time() - status.st_mtime > DEBRIS_SECONDS:
                _discard(path)
                continue
            files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        if total <= self.limit_bytes:
            return
        for _, size, path in sorted(files):
            _discard(path)
            total -= size
            if total <= self.limit_bytes * 3 // 4:
                return

    def warn(self, error: OSError) -> None:
        """Say, once per process, that this store cannot be written."""
        if self.directory is not None and self.directory not in _warned:
            _warned.add(self.directory)
            warnings.warn(f"build cache {self.directory} cannot be written ({error}); continuing without", stacklevel=3)


def is_whole(content: bytes) -> bool:
    """Whether the bytes of a file of a `ContentCache` are what was put there."""
    import hashlib

    return content[:_HEADER] == _MAGIC + hashlib.sha256(content[_HEADER:]).digest()


def _discard(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass  # gone already, or not ours to remove: either way it will not be used
