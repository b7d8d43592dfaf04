"""What a figure was measured on: it stands in every benchmark's line."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

SPEED_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd")


def machine() -> dict[str, Any]:
    """Processor, its flags that matter to our runtimes, cores, load before the measurement, memory, Python."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    values = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = set(values.get("flags", values.get("Features", "")).split())
    return {
        "cpu": values.get("model name", platform.processor() or platform.machine()),
        "flags": [flag for flag in SPEED_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit measured, with "-dirty" where the tree differs; empty outside a repository."""
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()
