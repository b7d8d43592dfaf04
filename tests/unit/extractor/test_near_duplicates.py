"""The same story is recognised when it comes again with small changes; what is only alike is not."""

import random

import pytest

from contracts.records import ItemEvent
from extractor.near_duplicates import MIN_WORDS, Fingerprint, NearDuplicates

WORDS = [f"word{n}" for n in range(5_000)]


def _story(rng, n_words=200):
    return rng.choices(WORDS, k=n_words)


def _print(words, title="Harbour opens", **attributes):
    return Fingerprint.of(ItemEvent(item="x", published_ms=0, title=title, text=" ".join(words), attributes=attributes))


@pytest.fixture
def rng():
    return random.Random(5)


def test_a_story_with_a_few_other_words_is_found_among_many(rng):
    index, stories = NearDuplicates(0.9), [_story(rng) for _ in range(300)]
    for n, story in enumerate(stories):
        index.add(f"item:{n}", _print(story), str(n).encode())
    found = 0
    for n, story in enumerate(stories):
        changed = story.copy()
        changed[rng.randrange(200)] = "corrected"  # 3 of 200 shingles, on both sides
        hit = index.find("item:new", _print(changed))
        assert hit in {None, (f"item:{n}", str(n).encode())}
        found += hit is not None
    assert found >= 290


@pytest.mark.parametrize("n_changed", [0, 1, 2, 3, 4, 6, 9])
def test_the_similarity_itself_decides_not_its_estimate(rng, n_changed):
    story = _story(rng, 120)
    changed = story.copy()
    for place in rng.sample(range(0, 120, 4), n_changed):
        changed[place] = "corrected"
    one, other = _print(story), _print(changed)
    shared = len(set(one.shingles) & set(other.shingles)) / len(set(one.shingles) | set(other.shingles))
    assert one.jaccard(other) == pytest.approx(shared)
    index = NearDuplicates(0.9)
    index.add("item:a", one, b"answer")
    assert (index.find("item:b", other) is not None) == (shared >= 0.9)


def test_case_punctuation_and_markup_do_not_matter(rng):
    story = _story(rng)
    index = NearDuplicates(1.0)
    index.add("item:a", _print(story), b"answer")
    loud = Fingerprint.of(
        ItemEvent(item="x", published_ms=0, title="HARBOUR opens!", text="<p>" + ", ".join(story).upper() + ".</p>")
    )
    assert index.find("item:b", loud) == ("item:a", b"answer")


def test_a_few_words_in_common_are_not_enough_for_short_items():
    index = NearDuplicates(0.3)
    index.add("item:a", _print([], "Toy Story", year=("1995",)), b"answer")
    for title, year in (("Toy Story 2", "1995"), ("Story", "1995"), ("Toy Story", "1999")):
        assert index.find("item:b", _print([], title, year=(year,))) is None
    assert index.find("item:b", _print([], "toy  STORY!", year=("1995",))) == ("item:a", b"answer")


def test_a_short_item_never_meets_a_long_one(rng):
    words = _story(rng, MIN_WORDS)
    index = NearDuplicates(0.1)
    index.add("item:short", _print(words[: MIN_WORDS - 3]), b"answer")
    assert index.find("item:long", _print(words)) is None
    index.add("item:long", _print(words), b"other")
    assert index.find("item:b", _print(words[: MIN_WORDS - 3])) == ("item:short", b"answer")


def test_an_item_is_not_found_by_its_own_old_content(rng):
    story = _story(rng)
    index = NearDuplicates(0.9)
    index.add("item:a", _print(story), b"old")
    assert index.find("item:a", _print([*story, "more"])) is None
    index.add("item:a", _print([*story, "more"]), b"new")
    assert index.find("item:b", _print(story)) == ("item:a", b"new")
    assert len(index) == 1


def test_the_most_similar_wins(rng):
    story = _story(rng, 300)
    index = NearDuplicates(0.5)
    index.add("item:far", _print([*story[:220], *_story(rng, 20)]), b"far")
    index.add("item:near", _print(story[:295]), b"near")
    assert index.find("item:b", _print(story)) == ("item:near", b"near")


def test_memory_is_bounded_and_the_oldest_goes_first(rng):
    index, stories = NearDuplicates(0.9, most=10), [_story(rng) for _ in range(30)]
    for n, story in enumerate(stories):
        index.add(f"item:{n}", _print(story), b"answer")
        index.add(f"item:short{n}", _print([], f"title {n}"), b"answer")
    assert len(index) == 10
    assert len(index._lsh.keys) == len(index._exact) == 5
    assert index.find("item:b", _print(stories[0])) is None
    assert index.find("item:b", _print(stories[-1])) is not None
