# ruff: noqa: INP001 - a script, no package
"""Makes `examples/news` anew: `python scripts/make_news_sample.py` from the checkout.

Run it after a change of the prompts' wording or of a record: an answer's ``custom_id`` holds the hash of the article and of the
prompt that it answers, and both are computed here. Article texts and answers stay as they are. With ``--from FILE...`` it starts
from written articles (JSON lines: section, title, text, tags, factors, summary) and gives them ids and times; without, it takes
articles and answers that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from contracts.codec import encode
from contracts.records import ItemEvent
from contracts.topics import ITEMS
from extractor.batch_file import answer_line
from extractor.planning import ItemPlanner
from extractor.prompts import build_prompt
from extractor.scenario import load_scenario
from streams.datasets.news import SAMPLE, read_items

MODEL: Final = "assistant (written for this sample)"
FIRST_MS: Final = 1_780_272_000_000  # 2026-06-01T00:00:00Z
N_DAYS: Final = 7
SEED: Final = 2026
# share of a day's articles by hour, UTC: offices write in the morning, little appears at night
RHYTHM: Final = (1, 1, 1, 1, 2, 4, 7, 9, 9, 8, 7, 6, 6, 6, 6, 5, 5, 5, 4, 3, 2, 2, 1, 1)


def main(arguments: Sequence[str]) -> int:
    """Write `articles.jsonl` and `answers.jsonl`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--from", dest="written", nargs="+", type=Path, help="written articles, JSON lines, each section in order"
    )
    parser.add_argument("--folder", type=Path, default=SAMPLE, help="where the sample is")
    chosen = parser.parse_args(arguments)
    folder: Path = chosen.folder
    pairs = list(_first_time(chosen.written)) if chosen.written else list(_as_it_is(folder))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "articles.jsonl").write_bytes(b"".join(encode(ITEMS, item) + b"\n" for item, _ in pairs))
    (folder / "answers.jsonl").write_bytes(b"".join(answer_to(item, content) for item, content in pairs))
    print(f"{len(pairs)} articles and answers in {folder}")  # noqa: T201 - a script's output
    return 0


def answer_to(item: ItemEvent, content: str) -> bytes:
    """The line of `answers.jsonl` for an article: its ``custom_id`` says which prompt it answers."""
    scenario = load_scenario("news")
    request = ItemPlanner(scenario).plan(item, None, item.published_ms)
    if request is None:
        raise ValueError(f"no request for {item.item}")
    return answer_line(request, build_prompt(scenario, request), model=MODEL, content=content)


def _as_it_is(folder: Path) -> Iterator[tuple[ItemEvent, str]]:
    lines = (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    contents = [json.loads(line)["response"]["body"]["choices"][0]["message"]["content"] for line in lines]
    yield from zip(read_items(folder / "articles.jsonl"), contents, strict=True)


def _first_time(files: Sequence[Path]) -> Iterator[tuple[ItemEvent, str]]:
    """Articles in the order of publication: round after round over the sections, so that a follow-up comes after its original."""
    sections: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            article = json.loads(line)
            sections.setdefault(article["section"], []).append(article)
    rng = np.random.default_rng(SEED)
    names = sorted(sections)
    in_order = [
        sections[names[i]][turn]
        for turn in range(max(map(len, sections.values())))
        for i in rng.permutation(len(names))
        if turn < len(sections[names[i]])
    ]
    for number, (article, at_ms) in enumerate(zip(in_order, _times(len(in_order), rng), strict=True), 1):
        item = ItemEvent(
            item=f"n{number:03d}",
            published_ms=at_ms,
            title=article["title"],
            text=article["text"],
            attributes={"section": (article["section"],), "tags": tuple(article["tags"])},
        )
        content = json.dumps({"factors": article["factors"], "summary": article["summary"]}, ensure_ascii=False)
        yield item, content


def _times(n: int, rng: np.random.Generator) -> list[int]:
    """Ascending times over the days, spread by the daily rhythm, to the minute."""
    hours = np.asarray(RHYTHM) / sum(RHYTHM)
    days = np.arange(n) * N_DAYS // n
    minutes = days * 24 * 60 + rng.choice(24, n, p=hours) * 60 + rng.integers(0, 60, n)
    return [FIRST_MS + int(minute) * 60_000 for minute in np.sort(minutes)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
