"""Where a run comes from: the commit, the libraries and the machine. Found once per process and written into every result."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from hein.processor import read_processor

_PACKAGES: Final = ("reki", "torch", "numpy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What stands in `RunResult` beside the figures."""

    commit: str
    versions: dict[str, str]
    machine: dict[str, str | int]


def find_origin(threads: int, device: str) -> Origin:
    """Of this process.

    Args:
        threads: Of torch, in each run.
        device: On which the runs train.
    """
    processor = read_processor()
    versions = {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}
    machine: dict[str, str | int] = {
        "processor": processor.model,
        "flags": " ".join(processor.flags),
        "cores": os.cpu_count() or 1,
        "threads": threads,
        "device": device,
    }
    return Origin(commit=_commit(), versions=versions, machine=machine)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _commit() -> str:
    """Hash of the commit that this file belongs to; ``+changes`` where Python files differ from it, `unknown` outside git."""
    found = _git("rev-parse", "--short=12", "HEAD")
    if not found:
        return "unknown"
    return f"{found}+changes" if _git("status", "--porcelain", "--", "*.py", "constraints.txt") else found


def _git(*arguments: str) -> str:
    here = Path(__file__).resolve().parents[2]
    try:
        ran = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=False)  # noqa: S603,S607 - fixed
    except OSError:
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""
