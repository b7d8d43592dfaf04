"""The roles: stages with a name, each started by `reki run ROLE...`."""

from __future__ import annotations

from typing import Final

ROLES: Final = ("plan", "extract", "cluster", "encode", "augment", "join", "train", "rank")
