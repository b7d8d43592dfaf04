"""Texts per second of reki's text encoder against plain sentence-transformers: the same texts, one thread each, in the same run.

``python benchmarks/bench_encode.py --n 300`` prints one JSON line. Each side runs in a process of its own, so that start-up and
memory are its own; the export to ONNX is done before and is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import time
from typing import Any, Final

from machine import commit, machine
from platformdirs import user_cache_path

_SEED: Final = 7
_WORDS_PER_TEXT: Final = 98  # each is one token of MiniLM's; with the two special ones, 100 tokens
_WORDS: Final = (  # noqa: SIM905 - a hundred quoted words would be harder to read
    "film story family city river winter council market engine music humour critic season award festival painter "
    "harbour teacher budget election storm garden quiet slow careful modern ancient warm sharp honest bitter gentle "
    "broken public private the a of in with about after before between under and but not while where who made found "
    "lost built wrote played sang grew"
).split()
_CACHE: Final = user_cache_path("reki") / "onnx"


def texts(n: int) -> list[str]:
    """``n`` texts of about 100 tokens, the same in every process."""
    rng = random.Random(_SEED)
    return [" ".join(rng.choices(_WORDS, k=_WORDS_PER_TEXT)) for _ in range(n)]


def ours(n: int, precision: str) -> dict[str, Any]:
    """Start-up, texts/s and memory of `hein.encoder` in this process."""
    started = time.perf_counter()
    from contracts.settings import Encoder
    from hein.encoder import load_encoder

    settings = Encoder.model_validate({"precision": precision, "threads": 1})
    encoder = load_encoder(settings, _CACHE)
    encoder.encode(["warm"])
    return _timed(encoder.name, started, lambda: encoder.encode(texts(n)), n)


def theirs(n: int) -> dict[str, Any]:
    """The same of sentence-transformers."""
    started = time.perf_counter()
    import torch
    from sentence_transformers import SentenceTransformer

    from hein.folder import read_folder

    torch.set_num_threads(1)
    model = SentenceTransformer(str(read_folder("").path), device="cpu", local_files_only=True)
    model.encode(["warm"])
    return _timed("sentence-transformers fp32", started, lambda: model.encode(texts(n), batch_size=16), n)


def _timed(name: str, started: float, encode: Any, n: int) -> dict[str, Any]:
    ready = time.perf_counter()
    encode()
    took_s = time.perf_counter() - ready
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "name": name,
        "texts_per_s": round(n / took_s, 1),
        "start_s": round(ready - started, 2),
        "rss_mb": round(peak_kib / 1024),
    }


def _in_own_process(side: str, n: int) -> dict[str, Any]:
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-W", "ignore", __file__, "--n", str(n), "--side", side]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=300, help="texts")
    parser.add_argument("--side", choices=["fp32", "int8", "theirs"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(theirs(arguments.n) if arguments.side == "theirs" else ours(arguments.n, arguments.side)))
        return
    for precision in ("fp32", "int8"):
        _in_own_process(precision, 1)  # the export, if this is the first time
    sides = {side: _in_own_process(side, arguments.n) for side in ("fp32", "theirs", "int8")}
    line = {
        "bench": "encode",
        "n": arguments.n,
        "tokens_per_text": 100,
        "threads": 1,
        "ours": sides["fp32"],
        "ours_int8": sides["int8"],
        "sentence_transformers": sides["theirs"],
        "ratio": round(sides["fp32"]["texts_per_s"] / sides["theirs"]["texts_per_s"], 2),
        "machine": machine(),
        "commit": commit(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
