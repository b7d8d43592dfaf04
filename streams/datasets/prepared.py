"""Prepared data on disk: a task's columns as Arrow files, memory-mapped, and the vectors of each text source as one `.npy`.

    <cache>/<name>-<data hash>/samples.arrow, users.arrow, items.arrow, checksums.json
    <cache>/<name>-<data hash>/<encoder>/<source>.npy            once all its parts are there
    <cache>/<name>-<data hash>/<encoder>/<source>.part-<n>.npy   while it is being encoded
    <cache>/<name>-<data hash>/<encoder>/*.blake2b               the checksum of each .npy, there before it

Everything appears under its name by one rename, so a kill leaves whole files only, and what was encoded is not encoded again. A
file that is not what its checksum says is refused. One process at a time writes; the next finds what the first has made. The data
hash is of the raw files and of the version of the code that reads them; the encoder's name says model, precision and cut.

Shapes: n texts, d_text encoder vector.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from filelock import FileLock, Timeout

from contracts.errors import DatasetError, VectorError
from hein.text import text_hash
from streams.datasets.arrow_task import read_task, sync_folder, write_task

if TYPE_CHECKING:
    from contracts.ports import Matrix, TextEncoder
    from ranker.evaluation.task import EvaluationTask
    from streams.datasets.paper_texts import SourceTexts

log = logging.getLogger(__name__)

CHUNK: Final = 512  # texts encoded between two files: about six seconds of work that a kill can cost
_UNFINISHED: Final = ".unfinished-"

Progress = Callable[[str, int, int], None]  # source, texts encoded, texts to encode


class RawData(Protocol):
    """A data set under an evaluation's protocol."""

    @property
    def name(self) -> str:
        """Of the data set."""
        ...

    @property
    def data_hash(self) -> str:
        """Of the raw files in use and of the code that reads them."""
        ...

    def task(self) -> EvaluationTask:
        """The columns, from the raw files."""
        ...

    def texts(self, source: str, task: EvaluationTask) -> SourceTexts:
        """The texts of a source."""
        ...


class Prepared:
    """A data set's columns and vectors: made once, then read in a fraction of a second.

    Args:
        raw: The data set.
        cache: Folder in which prepared data is kept; made if it is not there.
    """

    def __init__(self, raw: RawData, cache: Path) -> None:
        self._raw = raw
        self._cache = cache
        self._folder = cache / f"{raw.name}-{raw.data_hash}"

    def task(self) -> EvaluationTask:
        """The columns.

        Raises:
            DatasetError: A raw file is missing or damaged, or the cache is.
        """
        if not self._folder.is_dir():
            with self._writing():
                if not self._folder.is_dir():
                    made = Path(tempfile.mkdtemp(prefix=f"{_UNFINISHED}{self._folder.name}-", dir=self._cache))
                    write_task(self._raw.task(), made)
                    made.rename(self._folder)
                    sync_folder(self._cache)
        return read_task(self._folder)

    def vectors(self, sources: Sequence[str], encoder: TextEncoder, progress: Progress | None = None) -> dict[str, Matrix]:
        """The vectors of text sources: (items, d_text) or (users, d_text) in the task's order, zero where there is no text.

        Args:
            sources: Keys of `ranker.evaluation.arms.SOURCES`; twice is once.
            encoder: The text encoder.
            progress: Told after every chunk of a source that is being encoded.

        Raises:
            SettingsError: There is no such source.
            DatasetError: A raw file of a source is missing or damaged, or the cache is.
            VectorError: The encoder gave NaN, infinity or vectors of the wrong size.
        """
        name = f"{re.sub(r'[^A-Za-z0-9._-]+', '-', encoder.name)}-{text_hash(encoder.name)[:8]}"
        folder = self._folder / name
        vectors = {}
        for source in dict.fromkeys(sources):
            file = folder / f"{source}.npy"
            if not file.is_file():
                task = self.task()
                with self._writing():
                    if not file.is_file():
                        folder.mkdir(exist_ok=True)
                        _encode(self._raw.texts(source, task), encoder, file, progress or _silent)
            vectors[source] = _read(file)
        return vectors

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer of this data at a time; what a killed one left unfinished goes."""
        self._cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._folder.with_name(f"{self._folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that prepares %s", self._raw.name)
            lock.acquire()
        try:
            for left in self._cache.glob(f"{_UNFINISHED}{self._folder.name}-*"):
                shutil.rmtree(left)
            yield
        finally:
            lock.release()


def _encode(said: SourceTexts, encoder: TextEncoder, file: Path, progress: Progress) -> None:
    """Write the vectors of a source; parts that are there already are not encoded again."""
    there = [row for row, text in enumerate(said.texts) if text]
    order = sorted(there, key=lambda row: len(said.texts[row]))  # texts of a length together: less padding
    vectors = np.zeros((len(said.texts), encoder.dim), np.float32)  # (n, d_text)
    parts = []
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        part = file.with_suffix(f".part-{start}.npy")
        if not part.is_file():
            _write(part, _checked(encoder.encode([said.texts[row] for row in rows]), len(rows), encoder, said.source))
        vectors[rows] = _read(part)
        parts.append(part)
        progress(said.source, start + len(rows), len(order))
    _write(file, vectors)
    for part in parts:
        part.unlink()
        _checksum_file(part).unlink()


def _checked(vectors: Matrix, n_texts: int, encoder: TextEncoder, source: str) -> Matrix:
    if vectors.shape != (n_texts, encoder.dim):
        raise VectorError(
            f"vectors of shape {vectors.shape} for {n_texts} texts of {source}",
            wanted=f"({n_texts}, {encoder.dim})",
            todo=f"mend the encoder {encoder.name}",
        )
    if not np.isfinite(vectors).all():
        raise VectorError(
            f"NaN or infinity in a vector of {source}", wanted="finite numbers", todo=f"mend the encoder {encoder.name}"
        )
    return vectors.astype(np.float32)


def _write(file: Path, vectors: Matrix) -> None:
    for left in file.parent.glob(f"{_UNFINISHED}*"):  # by a process that was killed: this one holds the lock
        left.unlink()
    memory = io.BytesIO()
    np.save(memory, vectors)
    content = memory.getvalue()
    _appear(_checksum_file(file), _checksum(content).encode())
    _appear(file, content)


def _appear(file: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=_UNFINISHED, delete=False) as made:
        made.write(content)
        made.flush()
        os.fsync(made.fileno())
    Path(made.name).replace(file)
    sync_folder(file.parent)


def _read(file: Path) -> Matrix:
    todo = "delete the file: it will be made again"
    try:
        content, wanted = file.read_bytes(), _checksum_file(file).read_bytes()
    except OSError as error:
        raise DatasetError(f"{file}: {error}", wanted="vectors and their checksum", todo=todo) from error
    got = _checksum(content).encode()
    if got != wanted:
        raise DatasetError(f"{file} with checksum {got!r}", wanted=f"{wanted!r}", todo=todo)
    vectors: Matrix = np.load(io.BytesIO(content), allow_pickle=False)
    return vectors


def _checksum_file(file: Path) -> Path:
    return file.with_suffix(".blake2b")


def _checksum(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def _silent(source: str, n_done: int, n_texts: int) -> None:
    """Nobody watches."""
