"""The backend without a language model: labelled as such, short, and counted over the history."""

import asyncio
import subprocess
import sys

import pytest

from contracts.errors import RecordError
from extractor.backends.attributes import AttributesBackend


def _extract(scenario, request):
    return asyncio.run(AttributesBackend(scenario).extract(request))


def _n_words(knowledge):
    return sum(len(text.split()) for text in (*knowledge.factors.values(), knowledge.summary))


def test_every_record_says_that_no_model_was_asked(news, item_request):
    made = _extract(news, item_request())
    assert (made.tier, made.backend, made.model) == ("attributes", "attributes", "none (attributes)")
    assert (made.tokens_in, made.tokens_out) == (None, None)
    assert (made.as_of_ms, made.trigger_ms, made.source_hash) == (1_000, 2_000, "abc")


def test_an_items_factors_come_from_its_fields(movies, item_request):
    made = _extract(movies, item_request(title="Heat (1995)", text="", attributes={"genres": ("Crime", "Drama", "Crime")}))
    assert made.factors == {"genre": "Crime, Drama", "period_and_country": "1990s"}
    assert made.summary == "Heat (1995)"


def test_an_item_with_nothing_but_a_title_still_has_a_factor(news, item_request):
    assert _extract(news, item_request(text="")).factors == {"event_and_cause": "Harbour opens"}


def test_a_users_factors_are_counted_liked_against_disliked(movies, user_request):
    crime, both, horror = {"genres": ("Crime",)}, {"genres": ("Crime", "Drama")}, {"genres": ("Horror",)}
    made = _extract(
        movies, user_request(("Heat", True, both), ("Casino", True, crime), ("It", False, horror), ("Seen", None, horror))
    )
    assert made.factors["genre"] == "Crime, Drama; not Horror"
    assert made.summary == "liked Casino; Heat. disliked It"


def test_without_likes_what_was_looked_at_stands_in(movies, user_request):
    assert _extract(movies, user_request(("Heat", None, {"genres": ("Crime",)}))).factors["genre"] == "Crime"


def test_texts_stay_short_however_long_the_input(news, item_request, user_request):
    long = {name: tuple(f"{name} long value {n}" for n in range(60)) for name in news.attributes}
    item = _extract(news, item_request(title="word " * 200, text="word " * 3_000, attributes=long))
    user = _extract(news, user_request(*((f"title {n} " * 30, n % 2 == 0, long) for n in range(30))))
    assert _n_words(item) <= 60
    assert _n_words(user) <= 60


def test_nothing_known_is_refused(news, user_request):
    with pytest.raises(RecordError, match="topic `items`"):
        _extract(news, user_request(("", True, {})))


def test_this_backend_never_imports_openai():
    code = "import sys, extractor.extraction, extractor.planning, extractor.batch_file; sys.exit('openai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
