"""A task's columns in three Arrow IPC files with their checksums. Memory-mapped: processes share the pages.

A flipped bit in an Arrow file is other data or a crash of the process, and no error of the reader: so the checksums are compared
before anything is read (ml-1m, 147 MB: an eighth of a second).

Shapes: S samples, U users, M items, H history.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
import pyarrow as pa

from contracts.errors import DatasetError
from ranker.evaluation.task import EvaluationTask

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

FILES: Final = ("samples.arrow", "users.arrow", "items.arrow")
CHECKSUMS: Final = "checksums.json"  # {name of the file: its checksum}

_TODO: Final = "delete the folder: it will be made again"
_TEXT: Final = ("name", "licence", "data_hash")
_SAMPLE: Final = ("user", "item", "history", "history_liked", "label", "event_ms", "position")
_USER: Final = ("part_of_user", "n_prefix", "prefix", "prefix_liked")
_DEMOGRAPHICS: Final = pa.map_(pa.string(), pa.string())
_ATTRIBUTES: Final = pa.map_(pa.string(), pa.list_(pa.string()))


def write_task(task: EvaluationTask, folder: Path) -> None:
    """Write `FILES`, and their checksums last.

    Args:
        task: What to write.
        folder: An empty folder.
    """
    samples = pa.table({name: _column(getattr(task, name)) for name in _SAMPLE})
    _write(samples.replace_schema_metadata({name: getattr(task, name) for name in _TEXT}), folder / "samples.arrow")
    users = {name: _column(getattr(task, name)) for name in _USER}
    users["users"] = pa.array(task.users, pa.string())
    users["demographics"] = pa.array(task.demographics, _DEMOGRAPHICS)
    _write(pa.table(users), folder / "users.arrow")
    items = {
        "items": pa.array(task.items, pa.string()),
        "titles": pa.array(task.titles, pa.string()),
        "attributes": pa.array([list(attributes.items()) for attributes in task.attributes], _ATTRIBUTES),
    }
    _write(pa.table(items), folder / "items.arrow")
    write_checksums(folder)


def read_task(folder: Path) -> EvaluationTask:
    """What `write_task` wrote; the arrays are read-only views of the files.

    Raises:
        DatasetError: A file or its checksum is missing, or the file is damaged.
    """
    try:
        _check(folder)
        samples, users, items = (_read(folder / name) for name in FILES)
        metadata = samples.schema.metadata
        columns: dict[str, Any] = {name: metadata[name.encode()].decode() for name in _TEXT}
        columns |= {name: _array(samples[name]) for name in _SAMPLE}
        columns |= {name: _array(users[name]) for name in _USER}
        return EvaluationTask(
            **columns,
            users=_strings(users["users"]),
            demographics=tuple(map(tuple, users["demographics"].to_pylist())),
            items=_strings(items["items"]),
            titles=_strings(items["titles"]),
            attributes=tuple({name: tuple(values) for name, values in row} for row in items["attributes"].to_pylist()),
        )
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise DatasetError(f"{folder}: {type(error).__name__}: {error}", wanted="prepared data", todo=_TODO) from error


def write_checksums(folder: Path) -> None:
    """Write the checksums of the `FILES` of a folder as they are now."""
    with (folder / CHECKSUMS).open("wb") as out:
        out.write(msgspec.json.encode({name: checksum(folder / name) for name in FILES}))
        out.flush()
        os.fsync(out.fileno())
    sync_folder(folder)


def checksum(file: Path) -> str:
    """Of the whole content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, partial(hashlib.blake2b, digest_size=16)).hexdigest()


def sync_folder(folder: Path) -> None:
    """Names in the folder, too, are on the disk when this returns."""
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _check(folder: Path) -> None:
    file = folder / CHECKSUMS
    if not file.is_file():
        raise DatasetError(f"no {file}", wanted=f"the checksums of {', '.join(FILES)}", todo=_TODO)
    try:
        wanted = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except ValueError as error:
        raise DatasetError(f"{file}: {error}", wanted=f"the checksums of {', '.join(FILES)}", todo=_TODO) from error
    for name in FILES:
        got = checksum(folder / name)
        if got != wanted.get(name):
            raise DatasetError(f"{folder / name} with checksum {got}", wanted=wanted.get(name, "one that is listed"), todo=_TODO)


def _column(values: NDArray[Any]) -> Any:
    """(S,) as a plain column, (S, H) as lists of a fixed size."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _array(column: Any) -> NDArray[Any]:
    (chunk,) = column.chunks  # one record batch was written, so nothing is copied
    if not pa.types.is_fixed_size_list(chunk.type):
        return chunk.to_numpy(zero_copy_only=True)  # type: ignore[no-any-return]  # pyarrow has no types
    flat = chunk.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(chunk), chunk.type.list_size)  # type: ignore[no-any-return]  # as above


def _strings(column: Iterable[Any]) -> tuple[str, ...]:
    return tuple(value.as_py() for value in column)


def _write(table: Any, file: Path) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks(), max_chunksize=max(len(table), 1))
    with file.open("rb+") as written:
        os.fsync(written.fileno())


def _read(file: Path) -> Any:
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_file(source).read_all()
