"""JSON by key on disk, bounded: the only importer of `diskcache`. What goes wrong on the disk costs a warning, never an answer.

Nothing here is the only copy of anything: a value that cannot be read is as good as one that was never written. Several processes
may share a folder (SQLite's locks). No pickle goes in, and none is read out, whatever somebody else put into the folder.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import zlib
from typing import TYPE_CHECKING, Any, Final

import diskcache
from diskcache.core import MODE_PICKLE

if TYPE_CHECKING:
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_MIB: Final = 1024 * 1024
_LOCKED_S: Final = 1.0  # another process writes; longer is not waited for, since the event loop waits too
# ValueError: what stands there is no JSON; AttributeError: its settings table lacks what diskcache reads
_DISK_ERRORS: Final = (sqlite3.Error, OSError, diskcache.Timeout, ValueError, zlib.error, AttributeError)


class _JsonOnly(diskcache.JSONDisk):  # type: ignore[misc]  # diskcache ships no types
    """`diskcache.JSONDisk` writes JSON alone, but would read a pickle that somebody else wrote."""

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode == MODE_PICKLE:
            raise ValueError("a pickle where only JSON is written")
        return super().fetch(mode, filename, value, read)


class JsonOnDisk:
    """A bounded table of JSON values; the least recently used go first. Used from one thread.

    ``n_failures`` counts reads and writes that the disk did not do.

    Args:
        folder: Its own folder, made when it is first used.
        mib: About how much it may hold.
    """

    def __init__(self, folder: Path, mib: int) -> None:
        self.n_failures = 0
        self._folder = folder
        self._mib = mib
        self._cache: diskcache.Cache | None = None
        self._broken = False
        self._ailing = False

    def get(self, key: str) -> Any:
        """The value; None where there is none, or it cannot be read."""
        try:
            found = self._open().get(key) if not self._broken else None
        except _DISK_ERRORS as error:
            self._warn(error)
            return None
        self._ailing = False
        return found

    def put(self, key: str, value: Any) -> None:
        """Keep a value, if the disk lets us."""
        try:
            if not self._broken:
                self._open().set(key, value)
        except _DISK_ERRORS as error:
            self._warn(error)

    def close(self) -> None:
        """Let go of the file."""
        if self._cache is not None:
            with contextlib.suppress(*_DISK_ERRORS):
                self._cache.close()
            self._cache = None

    def _open(self) -> diskcache.Cache:
        if self._cache is None:
            try:
                self._cache = diskcache.Cache(
                    self._folder,
                    timeout=_LOCKED_S,
                    disk=_JsonOnly,
                    size_limit=self._mib * _MIB,
                    eviction_policy="least-recently-used",
                )
            except _DISK_ERRORS:
                self._broken = True  # what cannot be opened now is not tried again with every request
                raise
        return self._cache

    def _warn(self, error: Exception) -> None:
        """Say it once, until it has worked again."""
        self.n_failures += 1
        if not self._ailing:
            self._ailing = True
            then = "works without it until the next start" if self._broken else "goes on"
            _LOG.warning("%s cannot be used (%s: %s); reki %s; delete the folder if it is damaged",
                         self._folder, type(error).__name__, error, then)  # fmt: skip
