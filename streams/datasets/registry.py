"""Which data sets there are, by the name used on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from contracts.errors import DatasetError
from streams.datasets.dataset import Dataset
from streams.datasets.ebnerd import Ebnerd
from streams.datasets.mind import Mind
from streams.datasets.movielens import MovieLens
from streams.datasets.news import SAMPLE, NewsSample

READERS: Final[dict[str, Callable[[Path], Dataset]]] = {
    "news": NewsSample,
    "ml-1m": MovieLens,
    "mind": Mind,
    "ebnerd": Ebnerd,
}


def open_dataset(name: str, path: Path | None) -> Dataset:
    """The reader of a data set.

    Args:
        name: One of `READERS`.
        path: Folder of its files; needed for all but the sample `news`.

    Raises:
        DatasetError: An unknown name, no folder, or files missing or damaged.
    """
    if name not in READERS:
        raise DatasetError(f"data set {name!r}", wanted=f"one of {', '.join(READERS)}", todo="choose one of these")
    folder = path if path is not None else default_folder(name)
    return READERS[name](folder)


def default_folder(name: str) -> Path:
    """The folder of a data set that comes with the project.

    Raises:
        DatasetError: It does not come with it.
    """
    if name != "news":
        raise DatasetError(f"data set {name} without a folder", wanted="the folder of its files", todo="give it with --path")
    return SAMPLE
