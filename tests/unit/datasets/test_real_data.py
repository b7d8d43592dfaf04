"""On the real data beside the checkout, where it is there (REKI_DATA; default ../shared/data)."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from streams.datasets.registry import open_dataset
from streams.replay import event_time_ms

DATA = Path(os.environ.get("REKI_DATA", Path(__file__).parents[4] / "shared" / "data"))


@pytest.mark.parametrize(("name", "folder"), [("ml-1m", "ml-1m"), ("mind", "mind-sample"), ("ebnerd", "ebnerd-demo")])
def test_times_never_go_back_and_items_come_first(name, folder):
    if not (DATA / folder).is_dir():
        pytest.skip(f"no {DATA / folder}; set REKI_DATA to the folder that holds {folder}")
    dataset = open_dataset(name, DATA / folder)
    events = list(dataset.events(20_000))
    assert dataset.count(20_000) == len(events)
    assert all(event_time_ms(a) <= event_time_ms(b) for a, b in pairwise(events))
    seen = set()
    for event in events:
        if hasattr(event, "action"):
            assert event.item in seen
        seen.add(event.item)


def test_ml_1m_knowledge_is_that_of_every_user_and_no_refusal():
    if not (DATA / "ml-1m").is_dir():
        pytest.skip(f"no {DATA / 'ml-1m'}; set REKI_DATA to the folder that holds ml-1m")
    imported = list(open_dataset("ml-1m", DATA / "ml-1m").imported())
    assert sum(k.subject.startswith("user:") for k in imported) == 6040
    assert not any("I'm sorry" in k.summary[:20] for k in imported)
