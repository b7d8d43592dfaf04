"""What this machine's processor can do, read at start: it decides how int8 is computed and belongs beside every figure."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_CPUINFO: Final = Path("/proc/cpuinfo")
_TELLING: Final = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """Name and the flags that matter for matrix products, in a fixed order."""

    model: str
    flags: tuple[str, ...]

    @property
    def has_int8_dot(self) -> bool:
        """Whether int8 products are summed in 32 bits by one instruction. Without it they saturate at 16 bits."""
        return any("vnni" in flag or flag == "amx_int8" for flag in self.flags)


def read_processor(cpuinfo: Path = _CPUINFO) -> Processor:
    """This machine's processor; without ``/proc/cpuinfo`` only its name, with no flags."""
    fields: dict[str, str] = {}
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    has = set(fields.get("flags", "").split())
    model = fields.get("model name") or platform.processor() or platform.machine()
    return Processor(model=model, flags=tuple(flag for flag in _TELLING if flag in has))
