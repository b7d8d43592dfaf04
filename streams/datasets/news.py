"""The sample in `examples/news`: articles written for this project, a language model's answers about them, simulated readers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from contracts.codec import decode
from contracts.errors import RecordError
from contracts.records import InteractionEvent, ItemEvent, Knowledge
from contracts.subjects import split_subject
from contracts.topics import ITEMS
from streams.datasets.dataset import Event, damaged, need_file
from streams.simulation.openloop import open_loop
from streams.simulation.readers import Readers
from streams.simulation.tastes import Article

SAMPLE: Final = Path(__file__).parents[2] / "examples" / "news"
N_READERS: Final = 150
VISITS_PER_DAY: Final = 3.0
SEED: Final = 7
_FAR_MS: Final = 253_402_300_799_999 - 24 * 3600 * 1000  # the sample's times are its own: no check against the clock


class NewsSample:
    """The sample, with readers that react to a front page of popular and new articles.

    Args:
        folder: Where `articles.jsonl` and `answers.jsonl` are.
        n_readers: How many simulated readers.
        seed: Of the readers.

    Raises:
        DatasetError: A file is missing or damaged.
    """

    name = "news"
    scenario = "news"
    simulated = True
    licence = "Apache-2.0: articles, answers and readers are made for this project; the readers are simulated"

    def __init__(self, folder: Path = SAMPLE, *, n_readers: int = N_READERS, seed: int = SEED) -> None:
        self.items = read_items(need_file(folder, "articles.jsonl"))
        self._answers = need_file(folder, "answers.jsonl")
        self._n_readers = n_readers
        self._seed = seed

    def imported(self) -> Iterator[Knowledge]:
        """The answers of a language model about the articles."""
        from extractor.batch_file import BadAnswer, read_answers
        from extractor.scenario import load_scenario

        for answer in read_answers(self._answers, load_scenario(self.scenario)):
            if isinstance(answer, BadAnswer):
                raise damaged(self._answers, f"line {answer.line} ({answer.reason})", "an answer to one of the item prompts")
            yield answer

    def readers(self) -> Readers:
        """New readers of these articles: equal arguments give equal readers."""
        factors = {split_subject(k.subject)[1]: k.factors for k in self.imported()}
        articles = [Article(item, factors.get(item.item, {})) for item in self.items]
        return Readers(self._seed, self._n_readers, articles, visits_per_day=VISITS_PER_DAY)

    def events(self, limit: int | None = None) -> Iterator[Event]:
        """Articles as they appear and what simulated readers do with the front page."""
        left = limit
        for event in open_loop(self.readers(), self.items, seed=self._seed):
            if isinstance(event, InteractionEvent) and left is not None:
                if left == 0:
                    return
                left -= 1
            yield event
            if left == 0:
                return

    def count(self, limit: int | None = None) -> int:
        """Events, counted by going through them."""
        return sum(1 for _ in self.events(limit))


def read_items(file: Path) -> list[ItemEvent]:
    """The item events of a JSONL file.

    Raises:
        DatasetError: A line is not an item event.
    """
    items: list[ItemEvent] = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            items.append(decode(ITEMS, line, as_type=ItemEvent, now_ms=_FAR_MS))
        except RecordError as error:
            raise damaged(file, f"line {number} ({error.got})", error.wanted) from error
    return items
