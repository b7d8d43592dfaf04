import pytest

from contracts.errors import DatasetError
from streams.datasets.mind import Mind

NEWS = 'N1\tsports\tsoccer\tA title\tAn abstract\turl\t[{"Label": "Berlin"}]\t[{"Label": "Berlin"}]\n'
BEHAVIORS = (
    "2\tU1\t11/10/2019 10:00:00 AM\tN1\tN2-1 N1-0\n"
    "1\tU1\t11/9/2019 9:00:00 PM\tN3 N4\tN1-1 N2-0\n"
    "3\tU2\t11/9/2019 9:00:00 PM\tN5\tN1-0\n"
)
AT_MS = 1_573_333_200_000  # 2019-11-09 21:00 UTC


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "news.tsv").write_text(NEWS)
    (tmp_path / "behaviors.tsv").write_text(BEHAVIORS)
    return tmp_path


def test_shown_articles_are_clicks_and_skips_and_history_comes_before(folder):
    interactions = [e for e in Mind(folder).events() if hasattr(e, "action")]
    assert [(e.user, e.item, e.action, e.event_ms - AT_MS) for e in interactions[:6]] == [
        ("U1", "N3", "click", -2),
        ("U1", "N4", "click", -1),
        ("U2", "N5", "click", -1),
        ("U1", "N1", "click", 0),
        ("U1", "N2", "skip", 0),
        ("U2", "N1", "skip", 0),
    ]
    assert [(e.item, e.action) for e in interactions[6:]] == [("N2", "click"), ("N1", "skip")]  # a history is sent once


def test_an_article_comes_before_its_first_interaction_with_its_text_or_none(folder):
    items = {e.item: e for e in Mind(folder).events() if not hasattr(e, "action")}
    assert items["N1"].title == "A title"
    assert items["N1"].attributes == {"category": ("sports",), "subcategory": ("soccer",), "entities": ("Berlin",)}
    assert (items["N2"].title, items["N2"].attributes) == ("N2", {"text": ("missing",)})


def test_limit_counts_interactions(folder):
    dataset = Mind(folder)
    assert sum(hasattr(e, "action") for e in dataset.events(4)) == 4
    assert dataset.count(4) == len(list(dataset.events(4)))


@pytest.mark.parametrize(
    "line", ["1\tU1\tyesterday\t\tN1-0\n", "1\tU1\t11/9/2019 9:00:00 PM\tN1-0\n", "1\tU\t11/9/2019 9:00:00 PM\t\tN1\n"]
)
def test_a_damaged_line_is_named(folder, line):
    (folder / "behaviors.tsv").write_text(BEHAVIORS + line)
    with pytest.raises(DatasetError, match="line 4"):
        Mind(folder)
