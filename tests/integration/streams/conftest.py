"""Roles on the session's broker and vector store."""

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.settings import Settings
from integration.streams.running import Reki


@pytest.fixture(scope="module")
def make_reki(services: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Reki]]:
    """Makes a `Reki` with sections of settings changed; all its processes end with the module."""
    made: list[Reki] = []

    def make(**sections: dict[str, Any]) -> Reki:
        home: Path = tmp_path_factory.mktemp("reki")
        made.append(Reki(services, home, **sections))
        return made[-1]

    yield make
    for one in made:
        one.close()
    with warnings.catch_warnings():  # kafka-python forgets sockets of connections that were refused while the broker was away
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
