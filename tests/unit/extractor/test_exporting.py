"""Open questions: who is asked about, in which order, with which date, and that memory has a bound."""

import subprocess
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.records import ItemEvent, Knowledge, KnowledgeRequest, Member
from extractor.exporting import OpenQuestions, side_of
from extractor.planning import content_hash
from extractor.scenario import load_scenario

KINDS = ("item", "user")


@pytest.fixture
def questions(news):
    made = OpenQuestions(news)
    yield made
    made.close()


def item(ident="n1", title="Harbour opens", published_ms=1_000, **fields):
    return ItemEvent(item=ident, published_ms=published_ms, title=title, **fields)


def known(subject="item:n1", tier="individual", as_of_ms=1_000, source_hash="", **fields):
    return Knowledge(
        subject=subject, factors={"topic": "t"}, summary="s", tier=tier, backend="b", scenario="news", prompt_version="1",
        model="m", as_of_ms=as_of_ms, source_hash=source_hash, **fields,
    )  # fmt: skip


@pytest.fixture
def collective(news):
    made = OpenQuestions(news, tier="collective")
    yield made
    made.close()


def of_cluster(ident="item-3", as_of_ms=1_000, source_hash="h", **fields):
    side = ident.partition("-")[0]
    members = tuple(Member(subject=f"{side}:n{n}", text=f"Report {n} about harbours.") for n in range(3))
    wanted = {"members": members, "common": {"topic": ("harbours",)}, "cluster_size": 12} | fields
    return KnowledgeRequest(
        subject=f"cluster:{ident}", mode="collective", reason="new_cluster", priority=1.0, as_of_ms=as_of_ms, trigger_ms=2_000,
        source_hash=source_hash, **wanted,
    )  # fmt: skip


def asked(questions, kinds=KINDS, **options):
    return [(request.subject, why) for why, request, _ in questions.questions(kinds, **options)]


def test_what_nothing_is_known_of_is_asked_in_the_order_of_subjects(questions, user_request):
    for ident in ("n9", "n10", "\u00e9", "a|b", "Z"):
        questions.item(item(ident), 5_000)
    questions.request(user_request(("A", True, {}), ident="u2"))
    questions.request(user_request(("A", True, {}), ident="u1"))
    everyone = ["item:Z", "item:a|b", "item:n10", "item:n9", "item:\u00e9", "user:u1", "user:u2"]
    assert asked(questions) == [(subject, "no knowledge") for subject in everyone]
    assert asked(questions) == [(subject, "no knowledge") for subject in everyone]
    assert [subject for subject, _ in asked(questions, ["user"])] == everyone[5:]
    assert [subject for subject, _ in asked(questions, ["item"])] == everyone[:5]


@pytest.mark.parametrize(
    ("made", "why"),
    [
        ({"tier": "attributes"}, "lower tier"),
        ({"tier": "collective"}, "lower tier"),
        ({"source_hash": "of other content"}, "outdated"),
        ({"as_of_ms": 999}, "outdated"),
        ({}, None),
        ({"source_hash": content_hash(item())}, None),
        ({"source_hash": content_hash(item()), "as_of_ms": 9}, None),
    ],
)
def test_an_item_is_asked_about_where_an_answer_would_change_anything(questions, made, why):
    questions.item(item(), 5_000)
    questions.knowledge(known(**made))
    assert asked(questions) == ([("item:n1", why)] if why else [])
    assert dict(questions.left_out) == ({} if why else {"up to date": 1})
    assert asked(questions, everything=True) == [("item:n1", why or "asked anyway")]


@pytest.mark.parametrize(
    ("made", "as_of_ms"),
    [
        (None, 1_000),
        ({}, 1_000),
        ({"source_hash": "other"}, 5_000),
        ({"source_hash": content_hash(item()), "as_of_ms": 3_000}, 3_000),
    ],
)
def test_an_items_date_is_the_one_that_planning_gives_it(questions, made, as_of_ms):
    questions.item(item(), 5_000)
    if made is not None:
        questions.knowledge(known(tier="attributes", **made))
    ((_, request, _),) = questions.questions(KINDS)
    assert (request.as_of_ms, request.source_hash) == (as_of_ms, content_hash(item()))


@pytest.mark.parametrize(
    ("tier", "as_of_ms", "why"),
    [("individual", 4_999, "outdated"), ("individual", 5_000, None), ("attributes", 5_000, "lower tier")],
)
def test_a_user_is_asked_about_when_their_history_went_on(questions, user_request, tier, as_of_ms, why):
    questions.request(user_request(("A", True, {})))
    questions.knowledge(known("user:u1", tier, as_of_ms, "def"))
    assert asked(questions) == ([("user:u1", why)] if why else [])


def test_the_last_request_of_a_user_counts_and_requests_of_others_do_not(questions, user_request, item_request):
    questions.request(user_request(("Old", True, {}), as_of_ms=1))
    questions.request(user_request(("Old", True, {}), ("New", True, {}), as_of_ms=2))
    questions.request(item_request())
    questions.request(item_request(mode="collective"))
    ((_, request, prompt),) = questions.questions(KINDS)
    assert (request.subject, request.as_of_ms) == ("user:u1", 2)
    assert "New" in prompt.user


def test_the_last_version_of_an_item_counts_and_a_removed_one_is_forgotten(questions):
    questions.item(item(title="First"), 1)
    questions.item(item(title="Second"), 2)
    questions.item(item("n2"), 3)
    questions.item(item("n2", removed=True), 4)
    questions.item(item("n3"), 5)
    questions.no_item("n3")
    ((_, _, prompt),) = questions.questions(KINDS)
    assert "Second" in prompt.user


def test_of_several_pieces_of_knowledge_the_one_that_supersedes_stands(questions):
    questions.item(item(), 5_000)
    questions.knowledge(known())
    questions.knowledge(known(tier="attributes"))
    assert asked(questions) == []
    questions.no_knowledge("item:n1")
    assert asked(questions) == [("item:n1", "no knowledge")]


def test_an_answer_that_waits_is_not_asked_for_again_until_it_is_taken_back(questions, user_request):
    questions.item(item(), 5_000)
    questions.request(user_request(("A", True, {})))
    for subject, as_of_ms in (("item:n1", 1_000), ("user:u1", 5_000)):
        questions.answer(known(subject, as_of_ms=as_of_ms))
    assert asked(questions) == []
    assert dict(questions.left_out) == {"answer waiting": 2}
    questions.no_answer("item:n1")
    assert asked(questions) == [("item:n1", "no knowledge")]


@pytest.mark.parametrize("unfit", [("item:n1", "individual", 9_000, "other"), ("user:u1", "individual", 5_001, "")])
def test_an_answer_that_cannot_be_used_does_not_hold_a_question_back(questions, user_request, unfit):
    questions.item(item(), 5_000)
    questions.request(user_request(("A", True, {})))
    questions.answer(known(*unfit))
    assert len(asked(questions)) == 2


def test_users_whose_request_is_gone_and_subjects_without_text_are_counted(questions, user_request):
    questions.knowledge(known("user:gone", "attributes"))
    questions.knowledge(known("user:fine"))
    questions.knowledge(known("item:gone", "attributes"))
    questions.item(item(title="<b></b>"), 1)
    questions.request(user_request(("", True, {})))
    assert asked(questions) == []
    assert dict(questions.left_out) == {"nothing to ask about": 2, "request no longer kept": 1}


def test_what_a_model_said_of_a_user_before_goes_into_the_question_as_extraction_asks_it(questions, user_request):
    questions.request(user_request(("A", True, {}), ("B", False, {})))
    questions.knowledge(known("user:u1", as_of_ms=3_000))
    ((why, request, _),) = questions.questions(["user"])
    assert (why, request.previous, request.previous_as_of_ms) == ("outdated", "s", 3_000)
    questions.knowledge(known("user:u1", as_of_ms=5_000))
    ((why, request, _),) = questions.questions(["user"], everything=True)  # nothing is new: from the start
    assert (why, request.previous) == ("asked anyway", "")


def test_the_words_of_attributes_are_no_former_answer(questions, user_request):
    questions.request(user_request(("A", True, {})))
    questions.knowledge(known("user:u1", "attributes", 3_000))
    ((_, request, _),) = questions.questions(["user"])
    assert request.previous == ""


def test_clusters_are_asked_about_as_their_last_request_has_them_side_by_side(collective):
    for ident in ("user-1", "item-10", "item-3"):
        collective.request(of_cluster(ident, cluster_size=1))
        collective.request(of_cluster(ident, as_of_ms=2_000))
    clusters = ["cluster:item-10", "cluster:item-3", "cluster:user-1"]
    assert asked(collective) == [(subject, "no knowledge") for subject in clusters]
    assert [subject for subject, _ in asked(collective, ["item"])] == clusters[:2]
    assert [subject for subject, _ in asked(collective, ["user"])] == clusters[2:]
    assert {(request.as_of_ms, request.cluster_size) for _, request, _ in collective.questions(KINDS)} == {(2_000, 12)}


@pytest.mark.parametrize(
    ("stands", "why"),
    [((999, "other"), "outdated"), ((1_000, "h"), None), ((1_000, "other"), None), ((2_000, "h"), None)],
)
def test_a_cluster_is_asked_about_when_its_request_is_newer_than_what_stands(collective, stands, why):
    collective.request(of_cluster())
    collective.knowledge(known("cluster:item-3", "collective", *stands))
    assert asked(collective) == ([("cluster:item-3", why)] if why else [])
    assert dict(collective.left_out) == ({} if why else {"up to date": 1})
    assert asked(collective, everything=True) == [("cluster:item-3", why or "asked anyway")]


@pytest.mark.parametrize(("source_hash", "n_asked"), [("h", 0), ("other", 1)])
def test_an_answer_about_a_cluster_that_waits_counts_when_it_is_about_these_members(collective, source_hash, n_asked):
    collective.request(of_cluster())
    collective.answer(known("cluster:item-3", "collective", 1_000, source_hash))
    assert len(asked(collective)) == n_asked


def test_a_cluster_that_is_gone_is_not_asked_about(collective):
    collective.request(of_cluster())
    collective.no_request("cluster:item-3")
    assert asked(collective) == []


def test_each_tier_leaves_the_requests_of_the_other_out(questions, collective, user_request):
    for made in (questions, collective):
        made.request(user_request(("A", True, {})))
        made.request(of_cluster())
    assert asked(questions) == [("user:u1", "no knowledge")]
    assert asked(collective) == [("cluster:item-3", "no knowledge")]


@pytest.mark.parametrize(
    ("subject", "side"), [("item:user-1", "item"), ("user:u", "user"), ("cluster:user-1", "user"), ("cluster:item-10", "item")]
)
def test_the_side_of_a_subject(subject, side):
    assert side_of(subject) == side


@pytest.mark.parametrize("subject", ["cluster:3", "cluster:site-1", "nobody"])
def test_a_subject_of_no_side_is_refused(subject):
    with pytest.raises(ValueError, match="wanted item:ID"):
        side_of(subject)


@given(st.permutations(range(8)), st.lists(st.integers(0, 7), max_size=8))
def test_order_of_arrival_and_repetition_change_nothing(order, again):
    """Records of different subjects may come in any order, and each more than once."""
    asked_of = []
    for sequence in (range(8), [*order, *again]):
        made = OpenQuestions(load_scenario("news"))
        for number in sequence:
            made.item(item(f"n{number}", title=f"Title {number}"), 5_000)
            if number % 2:
                made.knowledge(known(f"item:n{number}", "attributes" if number % 3 else "individual"))
        asked_of.append([(why, msgspec.json.encode(request)) for why, request, _ in made.questions(KINDS)])
        made.close()
    assert asked_of[0] == asked_of[1]


def test_memory_does_not_grow_with_the_subjects():
    code = """
import psutil
from contracts.records import ItemEvent
from extractor.exporting import OpenQuestions
from extractor.scenario import load_scenario

made = OpenQuestions(load_scenario("news"), cache_kib=1024)
def fill(start, n):
    for number in range(start, start + n):
        made.item(ItemEvent(item=f"n{number}", published_ms=1, title="Title", text=f"{number} " * 2500), 1)
fill(0, 200)
list(made.questions(["item"]))
before = psutil.Process().memory_info().rss
fill(200, 2000)  # 25 MB of text
n = sum(1 for _ in made.questions(["item"]))
print(n, (psutil.Process().memory_info().rss - before) // 2**20)
"""
    n, grown_mib = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert int(n) == 2_200
    assert int(grown_mib) < 8  # in memory it would be 25
