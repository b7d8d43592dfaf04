"""A task's columns in three Arrow IPC files. Memory-mapped: only the pages in use are read, and processes share them.

Shapes: S samples, U users, M items, H history.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from contracts.errors import DatasetError
from ranker.evaluation.task import EvaluationTask

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

_TEXT: Final = ("name", "licence", "data_hash")
_SAMPLE: Final = ("user", "item", "history", "history_liked", "label", "event_ms", "position")
_USER: Final = ("part_of_user", "n_prefix", "prefix", "prefix_liked")
_DEMOGRAPHICS: Final = pa.map_(pa.string(), pa.string())
_ATTRIBUTES: Final = pa.map_(pa.string(), pa.list_(pa.string()))


def write_task(task: EvaluationTask, folder: Path) -> None:
    """Write `samples.arrow`, `users.arrow` and `items.arrow`.

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


def read_task(folder: Path) -> EvaluationTask:
    """What `write_task` wrote; the arrays are read-only views of the files.

    Raises:
        DatasetError: A file is missing or damaged.
    """
    try:
        samples, users, items = (_read(folder / f"{name}.arrow") for name in ("samples", "users", "items"))
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
    except (OSError, KeyError, TypeError, pa.ArrowException) as error:
        raise DatasetError(
            f"{folder}: {error!r}", wanted="prepared data", todo="delete the folder: it will be made again"
        ) from error


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


def _read(file: Path) -> Any:
    with pa.memory_map(str(file)) as source:
        return pa.ipc.open_file(source).read_all()
