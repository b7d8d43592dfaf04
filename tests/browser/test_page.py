from __future__ import annotations

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=\"document.title='owned'\">"


def keep(page, name):
    """A picture for the eye, where ``REKI_SCREENSHOTS`` names a folder."""
    if folder := os.environ.get("REKI_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def test_pick_a_reader_and_see_the_ranking_and_why(page):
    assert page.locator("li.item").count() == 20
    assert page.locator("#simulated").is_visible()
    assert page.locator("#dataset").inner_text() == "news"
    assert page.locator("#model").inner_text() == "din · version 1 · step 7"
    page.select_option("#users", "reader-1")
    page.get_by_text("for reader-1.").wait_for()
    first = page.locator("li.item").first
    first.get_by_text("Why", exact=True).click()
    why = first.locator("details").inner_text()
    for words in (
        "topic of user:reader-1",
        "topic of item:",
        "What of the history counted most",
        "weight",
        "individual, by a-model, 2 hours old",
    ):
        assert words in why
    assert "knowledge" in first.locator(".facts").inner_text()
    assert page.locator("#history li").count() == 6
    keep(page, "wide")


def test_hostile_text_is_shown_as_text_and_never_run(page):
    item = page.locator("li[data-item=n19]")
    assert item.locator(".title").inner_text() == HOSTILE
    assert "default vector" in item.locator(".facts").inner_text()
    page.locator("li.item").first.get_by_text("Why", exact=True).click()
    assert HOSTILE in page.locator("li.item").first.locator("details").inner_text()
    assert page.locator("img").count() == 0
    assert page.title() != "owned"


def test_next_and_previous_work_from_the_keyboard_and_a_reader_without_knowledge_is_told_so(page):
    page.locator("#previous").focus()
    page.keyboard.press("Enter")
    page.get_by_text("for reader-2.").wait_for()
    page.locator("#next").focus()
    page.keyboard.press("Space")
    page.get_by_text("for reader-0.").wait_for()
    assert page.locator("#users").input_value() == "reader-0"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_in_light_and_dark(page, scheme):
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    page.locator("li.item").first.get_by_text("Why", exact=True).click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    keep(page, f"phone-{scheme}")


def test_it_says_so_when_the_ranker_refuses_and_when_there_is_nothing_to_rank(page):
    refusal = '{"error": {"got": "no model version", "wanted": "one", "todo": "wait for the first version"}}'
    page.route("**/v1/explain", lambda route: route.fulfill(status=503, content_type="application/json", body=refusal))
    page.locator("#again").click()
    page.get_by_text("wait for the first version").wait_for()
    page.route("**/v1/items*", lambda route: route.fulfill(status=200, content_type="application/json", body='{"items": []}'))
    page.locator("#again").click()
    page.get_by_text("No item is known yet").wait_for()
    assert page.locator("li.item").count() == 0
