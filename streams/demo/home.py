"""A home of its own for each demo: own folder, other ports where the usual ones are taken; it never meets another's records."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Final

from contracts.errors import SettingsError
from contracts.settings import Settings
from streams.datasets.dataset import Dataset
from streams.embedded.programs import free_port, is_free
from streams.embedded.supervision import Running

MARK: Final = "made-by-reki-demo"
_N_METRICS: Final = 8  # ports in a row for the processes' /metrics


def prepare(base: Settings, home: Path | None, dataset: Dataset, *, fresh: bool) -> Settings:
    """The settings of one demo run; its folder exists and is empty but for our mark.

    Args:
        base: The settings in force: all but folder, ports, scenario and the page's label stay.
        home: The folder; None: a new one beside the usual home.
        dataset: What is played: its scenario, and what the page says of it.
        fresh: Empty the folder first, if an earlier demo made it.

    Raises:
        SettingsError: Something runs in the folder, or it holds something and is not ours or not to be emptied.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    folder = home if home is not None else base.home / f"demo-{stamp}"
    if running := Running.read(folder):
        todo = "stop it (Ctrl-C, or `reki down`), or choose another --home"
        raise SettingsError(f"{folder}, where pid {running.pid} runs", wanted="a folder where nothing runs", todo=todo)
    if folder.exists() and any(folder.iterdir()):
        if not (fresh and (folder / MARK).is_file()):
            todo = "choose another --home" if not (folder / MARK).is_file() else "add --fresh to empty it"
            raise SettingsError(f"{folder}, which is not empty", wanted="an empty folder", todo=todo)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).touch()
    settings = _with_ports(base, stamp)
    return settings.model_copy(
        update={
            "home": folder.resolve(),
            "extract": settings.extract.model_copy(update={"scenario": dataset.scenario}),
            "rank": settings.rank.model_copy(update={"dataset": dataset.name, "simulated": dataset.simulated, "clock": "stream"}),
        }
    )


def _with_ports(base: Settings, stamp: str) -> Settings:
    kafka, milvus, rank = base.kafka, base.milvus, base.rank
    if kafka.bootstrap_servers:  # a broker of others: topics of our own
        kafka = kafka.model_copy(update={"prefix": f"{kafka.prefix}demo-{stamp}."})
    elif not all(map(is_free, (kafka.embedded_port, kafka.embedded_port + 1))):
        kafka = kafka.model_copy(update={"embedded_port": free_port(2)})
    if milvus.uri:
        milvus = milvus.model_copy(update={"prefix": f"{milvus.prefix}demo_{stamp.replace('-', '_')}_"})
    elif not is_free(milvus.embedded_port):
        milvus = milvus.model_copy(update={"embedded_port": free_port()})
    if not is_free(rank.port):
        rank = rank.model_copy(update={"port": free_port()})
    metrics_port = base.metrics_port
    if not all(map(is_free, range(metrics_port, metrics_port + _N_METRICS))):
        metrics_port = free_port(_N_METRICS)
    return base.model_copy(update={"kafka": kafka, "milvus": milvus, "rank": rank, "metrics_port": metrics_port})
