"""The extract stage: imports first, the tier below while somebody waits, nothing said that is no better than what stands."""

import msgspec
import pytest

from contracts.errors import RecordError
from contracts.records import EncodedKnowledge
from contracts.settings import Extract
from contracts.subjects import split_subject
from extractor.answers import RejectedAnswerError
from extractor.asking import Answer
from extractor.backends.attributes import AttributesBackend
from extractor.extraction import Extraction, ExtractionFailure, Removal
from extractor.subject_state import Subject, usable_import


class FakeStates(dict):
    def put(self, subject, state):
        if state is None:
            self.pop(subject, None)
        else:
            self[subject] = msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=Subject)


class FakeQueue:
    def __init__(self):
        self.waiting = {}

    def ask(self, request):
        self.waiting[request.subject] = request

    def forget(self, subject):
        self.waiting.pop(subject, None)


class FakeClusters:
    """``places`` gives a subject's cluster, ``texts`` what is known of a cluster; ``known``: whether there are any."""

    def __init__(self):
        self.known = True
        self.places = {}
        self.texts = {}

    def nearest(self, encoded):
        return self.places.get(encoded.subject, "") if self.known else None

    def member_knowledge(self, own, cluster):
        text = self.texts.get(cluster)
        if text is None:
            return None
        made = msgspec.structs.replace(own, tier="collective", cluster=cluster, summary=f"{text} {own.summary}")
        return msgspec.structs.replace(made, as_of_ms=own.as_of_ms + len(text))


class Stage:
    """The stage with all that is around it; ``said`` gathers everything."""

    def __init__(self, scenario, *, model=True, clusters=False, **settings):
        self.states = FakeStates()
        self.queue = FakeQueue() if model else None
        self.clusters = FakeClusters() if clusters else None
        self.attributes = AttributesBackend(scenario)
        self.settings = Extract(**settings)
        self.stage = Extraction(self.settings, scenario, self.states, self.queue, self.clusters)
        self.now_s = 0.0

    def ask(self, request, offset=0):
        return self.stage.requested(request, offset, self.now_s)

    def wait(self, seconds):
        self.now_s += seconds
        return self.stage.stand_ins(self.now_s)

    def model_says(self, subject, result=None):
        request = self.queue.waiting.pop(subject)
        return self.stage.answered(Answer(request, self.made(request) if result is None else result))

    def made(self, request, **changed):
        made = msgspec.structs.replace(
            self.attributes.described(request), tier="individual", backend="fake", summary="From a model."
        )
        return msgspec.structs.replace(made, **changed)

    def encoded(self, subject, tier="attributes"):
        return self.stage.encoded(
            EncodedKnowledge(subject=subject, vector=b"1234", encoder="e", tier=tier, as_of_ms=1, trigger_ms=1, text_hash="t")
        )


@pytest.fixture
def stage(news):
    return Stage(news)


@pytest.fixture
def without_a_model(news):
    return Stage(news, model=False)


@pytest.fixture
def in_clusters(news):
    return Stage(news, clusters=True)


def tiers(said):
    return [(one.subject, one.tier) for one in said]


def test_a_request_waits_for_the_model_and_its_answer_is_said(stage, item_request):
    assert stage.ask(item_request()) == []
    assert stage.states["item:n1"].waiting
    assert tiers(stage.model_says("item:n1")) == [("item:n1", "individual")]
    state = stage.states["item:n1"]
    assert (state.waiting, state.said, state.stands) == (False, "From a model.", ("individual", 1_000, "abc"))
    assert stage.stage.counts == {"made": 1}


def test_the_text_of_a_request_is_kept_only_until_it_is_answered(stage, item_request):
    stage.ask(item_request(text="long text"))
    assert stage.states["item:n1"].asked.item.text == "long text"
    stage.model_says("item:n1")
    assert stage.states["item:n1"].asked.item is None


def test_without_a_model_attributes_answer_at_once(without_a_model, item_request):
    assert tiers(without_a_model.ask(item_request())) == [("item:n1", "attributes")]
    assert without_a_model.states["item:n1"].asked.item is None
    assert without_a_model.ask(item_request()) == []
    assert without_a_model.stage.counts == {"made": 1, "kept": 1}


def test_without_a_model_a_request_without_text_is_a_bad_record(without_a_model, user_request):
    with pytest.raises(RecordError, match="without any text"):
        without_a_model.ask(user_request(("", True, {})))


def test_the_tier_below_stands_in_once_for_who_waits_too_long_and_is_upgraded(stage, item_request):
    stage.ask(item_request("First", ident="n1"))
    stage.now_s += 1
    stage.ask(item_request("Second", ident="n2"))
    assert stage.wait(0.5) == []
    assert tiers(stage.wait(0.6)) == [("item:n1", "attributes")]
    assert tiers(stage.wait(60)) == [("item:n2", "attributes")]
    assert stage.wait(60) == []
    assert tiers(stage.model_says("item:n1")) == [("item:n1", "individual")]


def test_no_stand_in_replaces_something_better(stage, user_request):
    stage.ask(user_request(("Harbour", True, {}), as_of_ms=100))
    stage.model_says("user:u1")
    stage.ask(user_request(("Harbour", True, {}), ("Rail", True, {}), as_of_ms=300))
    assert stage.wait(60) == []
    assert tiers(stage.model_says("user:u1")) == [("user:u1", "individual")]


def test_a_stand_in_for_changed_content_replaces_what_is_about_the_old_one(stage, item_request):
    stage.ask(item_request(source_hash="old"))
    stage.model_says("item:n1")
    stage.ask(item_request(title="Changed", source_hash="new", as_of_ms=2_000))
    assert tiers(stage.wait(60)) == [("item:n1", "attributes")]


def test_an_update_carries_what_was_said_before(stage, user_request):
    stage.ask(user_request(("Harbour", True, {}), as_of_ms=100))
    stage.model_says("user:u1")
    stage.ask(user_request(("Harbour", True, {}), ("Rail", True, {}), as_of_ms=300))
    asked = stage.queue.waiting["user:u1"]
    assert (asked.previous, asked.previous_as_of_ms) == ("From a model.", 100)


def test_an_answer_that_cannot_be_used_leaves_the_tier_below_and_is_counted(stage, item_request):
    stage.ask(item_request())
    assert tiers(stage.model_says("item:n1", RejectedAnswerError("refusal", "I'm sorry"))) == [("item:n1", "attributes")]
    assert not stage.states["item:n1"].waiting
    assert stage.stage.counts == {"stood in: refusal": 1}


def test_a_request_that_cannot_be_asked_fails_with_where_it_came_from(stage, user_request):
    stage.ask(user_request(("", True, {})), offset=17)
    (failure,) = stage.model_says("user:u1", RecordError("no text", wanted="text", todo="send some"))
    assert isinstance(failure, ExtractionFailure)
    assert (failure.request.subject, failure.offset) == ("user:u1", 17)
    assert "no text" in failure.reason
    (unforeseen,) = [stage.ask(user_request(("", True, {}))), stage.model_says("user:u1", TypeError("None"))][1]
    assert unforeseen.reason == "TypeError: None"


def test_of_two_requests_under_way_the_newer_counts_whatever_comes_first(stage, user_request):
    old, new = (user_request(("Harbour", True, {}), as_of_ms=ms) for ms in (100, 300))
    stage.ask(old)
    stage.queue.waiting.clear()  # it is under way
    stage.ask(new)
    assert stage.model_says("user:u1")[0].as_of_ms == 300
    assert stage.stage.answered(Answer(old, stage.made(old))) == []
    assert not stage.states["user:u1"].waiting


def test_an_old_answer_is_better_than_none_and_the_newer_request_still_waits(stage, user_request):
    old, new = (user_request(("Harbour", True, {}), as_of_ms=ms) for ms in (100, 300))
    stage.ask(old)
    stage.ask(new)
    assert stage.stage.answered(Answer(old, stage.made(old)))[0].as_of_ms == 100
    assert stage.states["user:u1"].waiting
    assert stage.stage.answered(Answer(old, RejectedAnswerError("refusal", "no"))) == []
    assert stage.states["user:u1"].waiting


def test_what_was_asked_before_a_restart_is_asked_again(stage, news, item_request):
    stage.ask(item_request())
    again = Stage(news)
    again.states.update(stage.states)
    again.stage.arrived("item:n1", again.states["item:n1"], 0.0)
    assert tiers(again.wait(60)) == [("item:n1", "attributes")]
    assert tiers(again.model_says("item:n1")) == [("item:n1", "individual")]


def test_a_removed_subject_is_asked_about_no_more_and_a_late_answer_is_not_said(stage, item_request):
    request = item_request()
    stage.ask(request)
    assert stage.stage.removed("item:n1") == [Removal("item:n1")]
    assert stage.queue.waiting == {}
    assert stage.states == {}
    assert stage.stage.answered(Answer(request, stage.made(request))) == []
    assert stage.wait(60) == []


def test_an_answer_from_before_a_removal_is_not_said_of_the_item_that_came_after_it(stage, item_request):
    old, new = item_request(source_hash="old"), item_request(source_hash="new")
    stage.ask(old, 1)
    stage.stage.removed("item:n1")
    stage.ask(new, 3)
    assert stage.stage.answered(Answer(old, stage.made(old))) == []
    assert [one.source_hash for one in stage.model_says("item:n1")] == ["new"]


def test_a_newer_request_that_need_not_be_asked_ends_the_waiting_of_the_older_one(stage, item_request):
    stage.ask(item_request(source_hash="old"), 1)
    new = item_request(source_hash="new", as_of_ms=2_000)
    stage.stage.imported("item:n1", stage.made(new), 7)
    assert tiers(stage.ask(new, 2)) == [("item:n1", "individual")]
    assert stage.queue.waiting == {}
    assert not stage.states["item:n1"].waiting


# imports


def test_what_was_imported_before_answers_without_asking(stage, item_request):
    request = item_request()
    assert stage.stage.imported("item:n1", stage.made(request, backend="batch", trigger_ms=0), 7) == []
    (made,) = stage.ask(request)
    assert (made.backend, made.trigger_ms) == ("batch", request.trigger_ms)
    assert stage.queue.waiting == {}


def test_what_is_imported_after_a_request_is_used_at_once_and_ends_the_waiting(stage, item_request):
    request = item_request()
    stage.ask(request)
    (made,) = stage.stage.imported("item:n1", stage.made(request, backend="batch"), 77)
    assert (made.backend, made.trigger_ms) == ("batch", 77)
    assert stage.queue.waiting == {}
    assert not stage.states["item:n1"].waiting


def test_an_import_older_than_the_request_is_used_and_the_model_is_still_asked(stage, user_request):
    request = user_request(("Harbour", True, {}), as_of_ms=300)
    stage.ask(request)
    (made,) = stage.stage.imported("user:u1", stage.made(request, backend="batch", as_of_ms=100), 77)
    assert made.as_of_ms == 100
    assert "user:u1" in stage.queue.waiting


def test_an_import_answers_once_and_newer_requests_are_asked(stage, user_request):
    request = user_request(("Harbour", True, {}), as_of_ms=150)
    stage.stage.imported("user:u1", stage.made(request, backend="batch", as_of_ms=100), 1)
    assert stage.ask(request)[0].backend == "batch"
    assert stage.ask(user_request(("Harbour", True, {}), as_of_ms=200)) == []
    assert stage.model_says("user:u1")[0].as_of_ms == 200


@pytest.mark.parametrize("unfit", [{"source_hash": "other"}, {"subject": "item:n2"}], ids=["content", "subject"])
def test_an_import_about_something_else_is_kept_but_not_used(stage, item_request, unfit):
    request = item_request()
    stage.stage.imported("item:n1", stage.made(request, **unfit), 1)
    assert stage.ask(request) == []
    assert stage.states["item:n1"].imported is not None


@pytest.mark.parametrize(("as_of_ms", "usable"), [(4_999, True), (5_000, True), (5_001, False)])
def test_imported_knowledge_of_a_user_must_not_know_the_future(stage, user_request, as_of_ms, usable):
    request = user_request(("Harbour", True, {}))
    assert usable_import(request, stage.made(request, as_of_ms=as_of_ms)) is usable


def test_an_import_that_is_taken_back_answers_no_longer_and_outlives_a_removal_before(stage, item_request):
    request = item_request()
    stage.stage.imported("item:n1", stage.made(request), 1)
    stage.stage.removed("item:n1")
    assert stage.states["item:n1"] == Subject(imported=stage.made(request))
    stage.stage.imported("item:n1", None, 2)
    assert stage.states == {}
    assert stage.ask(request) == []


# clusters


def test_a_member_gets_its_clusters_text_once_its_place_is_known_and_individual_knowledge_later(in_clusters, item_request):
    in_clusters.clusters.places["item:n1"] = "cluster:item-3"
    in_clusters.clusters.texts["cluster:item-3"] = "Ports."
    in_clusters.ask(item_request())
    assert tiers(in_clusters.wait(60)) == [("item:n1", "attributes")]
    (made,) = in_clusters.encoded("item:n1")
    assert (made.tier, made.cluster, made.summary) == ("collective", "cluster:item-3", "Ports. Harbour opens")
    assert in_clusters.encoded("item:n1") == []
    assert tiers(in_clusters.model_says("item:n1")) == [("item:n1", "individual")]
    assert in_clusters.stage.counts == {"attributes first": 1, "collective": 1, "made": 1}


def test_members_hear_what_is_said_of_their_cluster_later(in_clusters, item_request):
    in_clusters.clusters.places["item:n1"] = "cluster:item-3"
    in_clusters.ask(item_request())
    in_clusters.wait(60)
    assert in_clusters.encoded("item:n1") == []  # nothing is known of the cluster yet
    in_clusters.clusters.texts["cluster:item-3"] = "Ports."
    assert tiers(in_clusters.stage.cluster_said("cluster:item-3")) == [("item:n1", "collective")]
    in_clusters.clusters.texts["cluster:item-3"] = "Ports and rails."
    assert tiers(in_clusters.stage.cluster_said("cluster:item-3")) == [("item:n1", "collective")]
    in_clusters.model_says("item:n1")
    assert in_clusters.stage.cluster_said("cluster:item-3") == []


def test_where_single_subjects_are_not_asked_about_the_tier_below_answers_at_once(news, item_request):
    stage = Stage(news, clusters=True, individual=False)
    stage.clusters.places["item:n1"] = "cluster:item-3"
    stage.clusters.texts["cluster:item-3"] = "Ports."
    assert tiers(stage.ask(item_request())) == [("item:n1", "attributes")]
    assert tiers(stage.encoded("item:n1")) == [("item:n1", "collective")]
    assert stage.queue.waiting == {}


def test_a_cluster_is_asked_about_like_everybody_else(news, item_request):
    stage = Stage(news, clusters=True, individual=False)
    request = msgspec.structs.replace(item_request(), subject="cluster:item-3", item=None, mode="collective")
    assert split_subject(request.subject)[0] == "cluster"
    stage.ask(request)
    assert stage.wait(60) == []  # nothing stands in for a cluster
    made = stage.made(item_request(), subject="cluster:item-3", tier="collective")
    assert tiers(stage.model_says("cluster:item-3", made)) == [("cluster:item-3", "collective")]


def test_without_a_model_a_cluster_waits_for_an_import(without_a_model, item_request):
    request = msgspec.structs.replace(item_request(), subject="cluster:item-3", item=None, mode="collective")
    assert without_a_model.ask(request) == []
    made = without_a_model.made(item_request(), subject="cluster:item-3", tier="collective")
    assert tiers(without_a_model.stage.imported("cluster:item-3", made, 5)) == [("cluster:item-3", "collective")]


def test_who_was_encoded_before_there_were_clusters_is_placed_when_there_are(in_clusters, item_request):
    in_clusters.clusters.known = False
    in_clusters.clusters.places["item:n1"] = "cluster:item-3"
    in_clusters.clusters.texts["cluster:item-3"] = "Ports."
    in_clusters.ask(item_request())
    in_clusters.wait(60)
    assert in_clusters.encoded("item:n1") == []
    assert in_clusters.stage.n_unplaced == 1
    assert in_clusters.stage.clusters_moved() == []
    in_clusters.clusters.known = True
    assert tiers(in_clusters.stage.clusters_moved()) == [("item:n1", "collective")]
    assert in_clusters.stage.n_unplaced == 0


def test_who_waits_for_clusters_and_is_removed_waits_no_longer(in_clusters, item_request):
    in_clusters.clusters.known = False
    in_clusters.ask(item_request())
    in_clusters.encoded("item:n1")
    in_clusters.stage.removed("item:n1")
    assert in_clusters.stage.n_unplaced == 0


def test_a_change_of_the_encoder_takes_nobody_out_of_a_cluster_before_the_new_ones_are_known(in_clusters, item_request):
    in_clusters.clusters.places["item:n1"] = "cluster:item-3"
    in_clusters.ask(item_request())
    in_clusters.wait(60)
    in_clusters.encoded("item:n1")
    in_clusters.clusters.known = False
    in_clusters.encoded("item:n1")
    assert in_clusters.states["item:n1"].cluster == "cluster:item-3"


def test_what_was_said_of_a_cluster_while_its_members_worker_was_away_reaches_them(news, in_clusters, item_request):
    in_clusters.clusters.places["item:n1"] = "cluster:item-3"
    in_clusters.ask(item_request())
    in_clusters.wait(60)
    in_clusters.encoded("item:n1")
    again = Stage(news, clusters=True)
    again.states.update(in_clusters.states)
    again.clusters.texts["cluster:item-3"] = "Ports."
    assert tiers(again.stage.arrived("item:n1", again.states["item:n1"], 0.0)) == [("item:n1", "collective")]
    assert again.stage.arrived("item:n1", again.states["item:n1"], 0.0) == []


def test_changed_content_replaces_a_clusters_text_that_is_dated_after_the_change(in_clusters, item_request):
    in_clusters.clusters.places["item:n1"] = "cluster:item-3"
    in_clusters.clusters.texts["cluster:item-3"] = "Ports."  # the fake dates it by its length
    in_clusters.ask(item_request(source_hash="old"), 1)
    in_clusters.wait(60)
    in_clusters.encoded("item:n1")
    in_clusters.ask(item_request(source_hash="new", as_of_ms=1_003), 2)
    in_clusters.ask(item_request(source_hash="new", as_of_ms=1_003), 2)  # delivered again
    (made,) = in_clusters.model_says("item:n1")
    assert (made.source_hash, made.as_of_ms) == ("new", 1_007)


def test_a_request_that_comes_again_is_not_taken_for_a_change(in_clusters, item_request):
    in_clusters.clusters.places["item:n1"] = "cluster:item-3"
    in_clusters.clusters.texts["cluster:item-3"] = "Ports."
    in_clusters.ask(item_request(source_hash="new"), 2)
    in_clusters.wait(60)
    in_clusters.encoded("item:n1")
    in_clusters.ask(item_request(source_hash="old"), 1)
    assert in_clusters.states["item:n1"].asked.as_of_ms == 1_000


def test_without_text_and_without_asking_a_request_is_a_bad_record(news, user_request):
    stage = Stage(news, clusters=True, individual=False)
    with pytest.raises(RecordError, match="without any text"):
        stage.ask(user_request(("", True, {})))
