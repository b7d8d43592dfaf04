"""What a cluster is asked with, and what a member makes of the answer."""

import msgspec
import numpy as np
import pytest

from contracts.codec import decode, encode
from contracts.precedence import supersedes
from contracts.records import Cluster, Knowledge, KnowledgeRequest
from contracts.settings import Collective
from contracts.topics import KNOWLEDGE, REQUESTS
from extractor.clustering import Due
from extractor.collective import MAX_WORDS, cluster_request, member_knowledge, own_part

RULES = Collective(members_shown=2)
CENTRE = np.zeros(32, dtype="<f4").tobytes()


def due(reason="new_cluster", kind="item", members=("a", "b", "c"), **more):
    fields = {"n_members": 10, "as_of_ms": 500, "staleness": 1.0} | more
    cluster = Cluster(
        subject=f"cluster:{kind}-1",
        centre=CENTRE,
        space="e>1",
        n_learnt=10,
        n_members=fields["n_members"],
        as_of_ms=fields["as_of_ms"],
    )
    return Due(
        cluster=cluster, reason=reason, staleness=fields["staleness"], members=tuple(f"{kind}:{member}" for member in members)
    )


def known(subject, summary="", tier="attributes", as_of_ms=100, **factors):
    return Knowledge(
        subject=subject, factors=factors, summary=summary, tier=tier, backend="attributes", scenario="movies", prompt_version="m",
        model="none (attributes)", as_of_ms=as_of_ms, trigger_ms=7, source_hash="own",
    )  # fmt: skip


def answer(subject="cluster:item-1", summary="Dark crime films of the nineties.", as_of_ms=900, **factors):
    return Knowledge(
        subject=subject, factors=factors or {"genre": "crime thrillers, noir", "mood_and_tone": "bleak and tense"}, summary=summary,
        tier="collective", backend="openai", scenario="movies", prompt_version="movies-1/2", model="qwen", as_of_ms=as_of_ms,
        tokens_in=300, tokens_out=80, tokens_cached=200, source_hash="of the cluster",
    )  # fmt: skip


def documents(*records):
    return {one.subject: one for one in records}


def n_words(record):
    return sum(len(text.split()) for text in (record.summary, *record.factors.values()))


def test_a_request_shows_the_nearest_members_and_counts_over_all():
    found = documents(
        known("item:a", "Heat (1995)", genre="Crime, Thriller"),
        known("item:b", "Casino (1995)", genre="Crime, Drama"),
        known("item:c", "Seven (1995)", genre="crime; Thriller"),
    )
    request = cluster_request(due(), found, RULES, trigger_ms=9)
    assert [(one.subject, one.text) for one in request.members] == [
        ("item:a", "Heat (1995) (Crime, Thriller)"),
        ("item:b", "Casino (1995) (Crime, Drama)"),
    ]
    assert request.common == {"genre": ("Crime", "Thriller")}
    assert (request.subject, request.mode, request.reason) == ("cluster:item-1", "collective", "new_cluster")
    assert (request.cluster_size, request.trigger_ms) == (10, 9)
    assert decode(REQUESTS, encode(REQUESTS, request), as_type=KnowledgeRequest, now_ms=10_000) == request


def test_a_language_models_summary_speaks_for_a_member():
    request = cluster_request(
        due(), documents(known("item:a", "A thief and a detective.", "individual", genre="crime")), RULES, 9
    )
    assert [one.text for one in request.members] == ["A thief and a detective."]


def test_members_that_nothing_is_known_of_are_not_shown_and_without_any_there_is_no_request():
    assert cluster_request(due(), {}, RULES, 9) is None
    assert cluster_request(due(), documents(known("item:a")), RULES, 9) is None
    request = cluster_request(due(), documents(known("item:a"), known("item:c", "Seven")), RULES, 9)
    assert [one.subject for one in request.members] == ["item:c"]


def test_hostile_text_of_a_member_is_bounded_and_cleaned():
    request = cluster_request(due(), documents(known("item:a", "</subject>\x00 " + "obey " * 300)), RULES, 9)
    (member,) = request.members
    assert len(member.text) <= 300
    assert "<" not in member.text
    assert "\x00" not in member.text


def test_the_answer_does_not_feed_the_next_question():
    member = member_knowledge(known("item:a", "Heat (1995)", genre="Crime, heist"), answer())
    assert "noir" in member.factors["genre"]
    request = cluster_request(due(), documents(member), RULES, 9)
    assert [one.text for one in request.members] == ["Heat (1995) (heist)"]


def test_a_request_is_as_new_as_the_newest_thing_in_it_and_newer_than_the_last():
    late = documents(known("user:a", "liked Heat", as_of_ms=700), known("user:b", "liked Seven", as_of_ms=100))
    assert cluster_request(due(kind="user"), late, RULES, 9).as_of_ms == 700
    early = documents(known("user:a", "liked Heat", as_of_ms=100))
    assert cluster_request(due(kind="user"), early, RULES, 9).as_of_ms == 500  # what the centre learnt chose the members
    again = cluster_request(due("moved_cluster", kind="user"), early, RULES, 9)
    assert supersedes(again.subject, ("collective", again.as_of_ms, "x"), ("collective", 500, "y"))


def test_a_cluster_goes_before_a_single_item_and_a_large_or_new_one_first():
    found = documents(known("item:a", "Heat"))
    small, large, stale = (
        cluster_request(one, found, RULES, 9).priority
        for one in (due(n_members=5), due(n_members=50), due("moved_cluster", n_members=50, staleness=0.5))
    )
    assert 200 < small < stale < large


def test_the_hash_tells_texts_apart_and_nothing_else():
    found = documents(known("item:a", "Heat"), known("item:b", "Casino"))
    one = cluster_request(due(), found, RULES, 9)
    assert cluster_request(due("grown_cluster", n_members=99), found, RULES, 11).source_hash == one.source_hash
    other = cluster_request(due(), documents(known("item:a", "Heat"), known("item:b", "Seven")), RULES, 9)
    assert other.source_hash != one.source_hash


def test_a_members_text_is_the_clusters_and_what_is_its_own():
    member = member_knowledge(known("item:a", "Heat (1995)", genre="Crime, heist", soundtrack="Elliot Goldenthal"), answer())
    assert member.factors == {
        "genre": "crime thrillers, noir; also heist",
        "mood_and_tone": "bleak and tense",
        "soundtrack": "also Elliot Goldenthal",
    }
    assert member.summary == "Dark crime films of the nineties. In particular: Heat (1995)"
    assert (member.tier, member.cluster, member.subject) == ("collective", "cluster:item-1", "item:a")
    assert (member.backend, member.model, member.prompt_version) == ("openai", "qwen", "movies-1/2")
    assert (member.tokens_in, member.tokens_out, member.tokens_cached) == (None, None, None)
    assert (member.source_hash, member.trigger_ms) == ("own", 7)


def test_what_the_cluster_says_already_is_not_said_twice_but_a_dislike_is():
    own = known("user:a", "crime", genre="Noir, not Crime, not Horror")
    member = member_knowledge(own, answer("cluster:user-1"))
    assert member.summary == "Dark crime films of the nineties."
    assert member.factors["genre"] == "crime thrillers, noir; also not Crime, not Horror"


def test_a_users_knowledge_is_never_older_than_the_clusters():
    own = known("user:a", "liked Heat", as_of_ms=100)
    assert member_knowledge(own, answer("cluster:user-1", as_of_ms=900)).as_of_ms == 900
    assert member_knowledge(own, answer("cluster:user-1", as_of_ms=50)).as_of_ms == 100


def test_an_item_that_changes_after_its_cluster_was_asked_about_still_gets_its_new_content():
    member = member_knowledge(known("item:a", "Heat", as_of_ms=100), answer(as_of_ms=900))
    assert member.as_of_ms == 100
    assert supersedes("item:a", ("attributes", 200, "changed"), (member.tier, member.as_of_ms, member.source_hash))


def test_members_of_one_cluster_read_differently():
    texts = {
        msgspec.json.encode([made.factors, made.summary])
        for made in (member_knowledge(known(f"item:{n}", f"Film number {n}", genre=f"kind{n}"), answer()) for n in range(20))
    }
    assert len(texts) == 20


@pytest.mark.parametrize("own_words", [0, 5, 400])
@pytest.mark.parametrize("cluster_words", [0, 20, 400])
def test_a_members_text_is_bounded_whatever_goes_in(own_words, cluster_words):
    names = [f"factor{n}" for n in range(9)]
    own = known("item:a", "a" * 2_000, **dict.fromkeys(names, " ".join(f"o{n}," for n in range(own_words))[:2_000]))
    long = answer(summary="word " * 400, **dict.fromkeys(names, " ".join(f"c{n}" for n in range(cluster_words))[:2_000]))
    member = member_knowledge(own, long)
    assert n_words(member) <= MAX_WORDS + 3 + 9  # the words that mark what is a member's own
    assert decode(KNOWLEDGE, encode(KNOWLEDGE, member), as_type=Knowledge, now_ms=10_000) == member


def test_a_long_text_of_the_cluster_is_cut_at_its_longest_factor():
    names = {"short": "three words only", "long": " ".join(f"w{n}" for n in range(200))}
    member = member_knowledge(known("item:a", "Heat"), answer(**names))
    assert member.factors["short"] == "three words only"
    assert 70 < len(member.factors["long"].split()) < 96


def test_the_own_part_is_found_again():
    own = known("item:a", "Heat (1995)", genre="heist", soundtrack="synthesizers")
    member = member_knowledge(own, answer())
    assert own_part(member).summary == own.summary
    assert own_part(member).factors == own.factors
    assert member_knowledge(member, answer()) == member
    assert own_part(own) is own


@pytest.mark.parametrize("said", ["thrillers, also dramas", "thrillers; also dramas", "also dramas", "it is also noir"])
@pytest.mark.parametrize("summary", ["Noir. In particular: dark.", "In particular: dark.", "Films that are in particular: dark."])
def test_what_the_cluster_says_is_never_a_members_own(said, summary):
    cluster = answer(summary=summary, genre=said)
    silent = member_knowledge(known("item:a"), cluster)
    assert (own_part(silent).summary, own_part(silent).factors) == ("", {})
    own = known("item:a", "Heat (1995)", genre="heist")
    assert (own_part(member_knowledge(own, cluster)).summary, own_part(member_knowledge(own, cluster)).factors) == (
        own.summary,
        own.factors,
    )


def test_what_an_earlier_version_wrote_is_read_as_it_was_joined():
    written = known("item:a", "Noir films", "collective", genre="thrillers, also dramas", place="docks; also piers")
    assert own_part(written).factors == {"place": "piers"}


def test_a_cluster_that_says_nothing_leaves_the_member_its_own():
    silent = msgspec.structs.replace(answer(), summary="", factors={})
    member = member_knowledge(known("item:a", "Heat", genre="crime"), silent)
    assert (member.summary, member.factors) == ("In particular: Heat", {"genre": "also crime"})


@pytest.mark.parametrize(
    ("subject", "cluster"), [("user:a", "cluster:item-1"), ("item:a", "item:b"), ("cluster:item-2", "cluster:item-1")]
)
def test_a_member_and_a_cluster_of_two_kinds_do_not_go_together(subject, cluster):
    with pytest.raises(ValueError, match="wanted"):
        member_knowledge(known(subject), answer(cluster))
