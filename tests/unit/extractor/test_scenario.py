"""A wrong scenario file is refused with every mistake; the shipped ones hold what they should."""

import pytest

from contracts.errors import SettingsError
from extractor.scenario import load_scenario

NEWS = [
    "topic",
    "people_and_organisations",
    "place",
    "event_and_cause",
    "stakes_and_impact",
    "tone_and_angle",
    "background",
    "audience",
]
MOVIES = [
    "genre", "director_and_cast", "period_and_country", "character", "plot_and_theme", "mood_and_tone", "acclaim_and_awards",
    "production_quality", "soundtrack",
]  # fmt: skip
BOOKS = [
    "genre", "author", "writing_style", "theme", "setting", "length_and_complexity", "period", "literary_quality", "acclaim",
]  # fmt: skip


@pytest.mark.parametrize(("name", "factors"), [("news", NEWS), ("movies", MOVIES), ("books", BOOKS)])
def test_shipped_scenarios_have_their_factors_in_order(name, factors):
    assert list(load_scenario(name).factors) == factors


def test_a_path_works_like_a_name(tmp_path):
    from extractor.scenario import FOLDER

    copy = tmp_path / "mine.toml"
    copy.write_text((FOLDER / "news.toml").read_text().replace('name = "news"', 'name = "mine"'))
    assert load_scenario(str(copy)).name == "mine"


def test_all_mistakes_come_at_once(tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text('name = "Not A Name"\nversion = "1"\nitem_word = 3\nextra = 1\nattributes = ["a"]\n[factors]\nx = "y"\n')
    with pytest.raises(SettingsError) as caught:
        load_scenario(str(file))
    for where in ("name", "item_word", "user_word", "extra", "factors"):
        assert f"  {where}: got" in str(caught.value)


def test_sources_of_unknown_names_are_refused(tmp_path):
    from extractor.scenario import FOLDER

    file = tmp_path / "wrong.toml"
    extra = '[from_attributes]\nweather = ["section"]\nbackground = ["colour"]\n'
    file.write_text((FOLDER / "news.toml").read_text().replace("[from_attributes]\n", extra))
    with pytest.raises(SettingsError, match=r"'weather'.*'colour'"):
        load_scenario(str(file))


def test_an_attribute_named_twice_and_unknown_names_in_examples_are_refused(tmp_path):
    from extractor.scenario import FOLDER

    file = tmp_path / "wrong.toml"
    text = (FOLDER / "news.toml").read_text()
    file.write_text(text.replace('"section", "category",', '"section", "section",') + 'colour = ["red"]\n')
    with pytest.raises(SettingsError, match="2 mistakes") as caught:
        load_scenario(str(file))
    assert "attributes: got" in str(caught.value)
    assert "named more than once: 'section'" in str(caught.value)

    file.write_text(text.replace('place = ["Oldtown"]', 'colour = ["red"]'))
    with pytest.raises(SettingsError, match="not in `attributes`: 'colour'"):
        load_scenario(str(file))


@pytest.mark.parametrize("content", [None, b"name = ", b"\xff\xfe"])
def test_missing_or_unreadable_files_name_what_would_do(tmp_path, content):
    file = tmp_path / "s.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match="one of books, movies, music, news, products, or"):
        load_scenario(str(file))
