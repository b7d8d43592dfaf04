"""Clusters that are learnt from a stream: who moves what, who counts where, and when a cluster is asked about."""

import numpy as np
import pytest
from river.cluster import KMeans

from contracts.records import Cluster
from contracts.settings import Collective
from extractor.assignment import nearest_rows
from extractor.centres import Centres
from extractor.clustering import Clustering
from extractor.projection import DIM

RULES = Collective(min_members=3, members_shown=2, moved=0.5, grown=2)


def axis(n, off=0.0, seed=0):
    """A unit vector near an axis."""
    vector = np.eye(DIM)[n] + off * np.random.default_rng(seed).standard_normal(DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def make(n_clusters=2, **more):
    return Clustering("item", n_clusters, RULES, "e>1", **more)


def learn(clustering, vectors, tier="attributes", prefix="item:", as_of_ms=None):
    subjects = [f"{prefix}{n}" for n in range(len(vectors))]
    times = as_of_ms or list(range(1, len(vectors) + 1))
    clustering.learn_many(subjects, np.stack(vectors), times, [tier] * len(vectors))
    return subjects


def two_topics(n):
    """The second topic comes when the second cluster opens: nobody counts where they do not belong."""
    return [axis(place % 2 if place > 2 else 0, 0.02, place) for place in range(n)]


def centres_of(clustering):
    return np.stack([np.frombuffer(one.centre, dtype="<f4") for one in clustering.clusters()])


def grown_up(n=6, **more):
    """Two clusters around two axes."""
    clustering = make(**more)
    learn(clustering, two_topics(n))
    return clustering


def test_numpy_finds_the_centre_that_river_finds():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, DIM)).astype(np.float32)
    ours, rivers = Centres(8), KMeans(n_clusters=8, halflife=0.02, seed=0)
    for row, vector in enumerate(vectors[:8]):
        ours.open(vector, n_learnt=1_000)  # from then on the rate is constant, as river's is
        for place, number in enumerate(vector.tolist()):
            rivers.centers[row][place] = number
    rows = [ours.learn(vector) for vector in vectors[8:]]
    assert rows == [rivers.learn_predict_one(dict(enumerate(vector.tolist()))) for vector in vectors[8:]]
    assert ours.matrix == pytest.approx(np.array([list(centre.values()) for centre in rivers.centers.values()]))


def test_a_centre_is_the_mean_of_what_it_learnt_until_it_forgets():
    centres = Centres(1)
    vectors = [axis(n % DIM) for n in range(50)]
    centres.open(vectors[0])
    for vector in vectors[1:]:
        centres.learn(vector)
    assert centres.matrix[0] == pytest.approx(np.mean(vectors, axis=0), abs=1e-6)
    for _ in range(200):
        centres.learn(axis(0))
    assert centres.matrix[0][0] > 0.97  # the mean of all would be 0.81


def test_few_vectors_make_few_clusters_and_never_two_at_one_place():
    clustering = make(n_clusters=10)
    learn(clustering, [axis(n) for n in range(7)])
    assert len(clustering) == 3
    same = make(n_clusters=10)
    learn(same, [axis(0)] * 20)
    assert (len(same), same.n_members) == (1, 20)


def test_clusters_come_out_where_the_vectors_are():
    clustering = make(n_clusters=40)
    rng = np.random.default_rng(0)
    topics = [axis(n) for n in range(8)]
    vectors = [axis(n, 0.05, seed) for seed, n in enumerate(rng.integers(8, size=400))]
    learn(clustering, vectors)
    centres = centres_of(clustering)
    found = centres[nearest_rows(np.stack(topics), centres)]
    assert np.linalg.norm(found - np.stack(topics), axis=1).max() < 0.3


def test_only_what_changed_is_told_and_once():
    clustering = grown_up()
    assert [one.subject for one in clustering.changed()] == ["cluster:item-0", "cluster:item-1"]
    assert clustering.changed() == []
    learn(clustering, [axis(1)], prefix="item:new", as_of_ms=[99])
    (told,) = clustering.changed()
    assert (told.subject, told.n_learnt, told.n_members, told.as_of_ms, told.space) == ("cluster:item-1", 3, 3, 99, "e>1")


def test_the_same_vector_of_the_same_subject_counts_once():
    clustering = make()
    vectors = [axis(0, 0.02, n) for n in range(4)]
    learn(clustering, vectors)
    before = clustering.clusters()
    learn(clustering, vectors)
    assert clustering.clusters() == before
    assert sum(one.n_members for one in before) == 4


def test_a_new_vector_moves_its_subject_to_another_cluster():
    clustering = grown_up()
    assert [one.n_members for one in clustering.clusters()] == [4, 2]
    clustering.learn_many(["item:0"], axis(1, 0.02, 9)[None], [9], ["individual"])
    assert [one.n_members for one in clustering.clusters()] == [3, 3]


def test_a_members_collective_text_does_not_pull_its_own_centre():
    clustering = grown_up()
    before = clustering.clusters()
    learn(clustering, [axis(0, 0.02, n) for n in range(20)], tier="collective")
    assert clustering.clusters() == before


def test_a_text_that_says_nothing_is_passed_over():
    clustering = make()
    learn(clustering, [np.zeros(DIM, dtype=np.float32)])
    assert (len(clustering), clustering.n_members) == (0, 0)


def test_a_removed_subject_is_no_member_any_more():
    clustering = grown_up()
    clustering.changed()
    clustering.forget(["item:1", "item:1", "item:unheard"])
    assert clustering.n_members == 5
    assert len(clustering.changed()) == 1
    assert all("item:1" not in due.members for due in clustering.due())


def test_members_are_bounded_and_the_one_heard_of_longest_ago_goes():
    clustering = make(max_members=5)
    learn(clustering, [axis(0, 0.02, n) for n in range(9)])
    assert clustering.n_members == sum(one.n_members for one in clustering.clusters()) == 5
    learn(clustering, [axis(0, 0.02, n) for n in range(5_000)], prefix="item:more")
    assert max(len(row.near) for row in clustering._rows) <= 5


def test_candidates_for_a_prompt_are_bounded():
    clustering = make(n_clusters=1)
    learn(clustering, [axis(0, 0.05, n) for n in range(300)])
    assert len(clustering._rows[0].near) <= 2 * 4 * RULES.members_shown
    (due,) = clustering.due()
    assert len(due.members) == 4 * RULES.members_shown


def test_a_cluster_is_due_when_it_has_members_enough_then_when_it_grew():
    clustering = make(n_clusters=1)
    learn(clustering, [axis(0, 0.02, n) for n in range(2)])
    assert clustering.due() == []
    learn(clustering, [axis(0, 0.02, n) for n in range(3)])
    (due,) = clustering.due()
    assert (due.reason, due.staleness, due.cluster.n_members) == ("new_cluster", 1.0, 3)
    assert clustering.due() == [due]
    clustering.asked(due, 50)
    assert clustering.due() == []
    learn(clustering, [axis(0, 0.02, n) for n in range(5)])
    assert clustering.due() == []
    learn(clustering, [axis(0, 0.02, n) for n in range(6)])
    (grown,) = clustering.due()
    assert (grown.reason, grown.staleness) == ("grown_cluster", 0.5)
    assert (grown.cluster.asked_n_members, grown.cluster.as_of_ms) == (3, 50)


def test_a_cluster_is_due_when_its_centre_moved():
    clustering = grown_up(12)
    for due in clustering.due():
        clustering.asked(due, 1)
    assert clustering.due() == []
    for n in range(40):  # the same subject again and again: the cluster does not grow, it goes elsewhere
        clustering.learn_many(["item:0"], (0.6 * axis(0) + 0.8 * axis(5, 0.02, n))[None], [1], ["individual"])
    (due,) = clustering.due()
    assert due.reason == "moved_cluster"
    assert 0.5 <= due.staleness <= 1


def test_members_of_a_prompt_are_the_nearest_and_still_belong_there():
    clustering = make(n_clusters=2)
    learn(clustering, [axis(0, off, 5) for off in (0.3, 0.0, 0.1, 0.2)])
    due = clustering.due()
    assert due
    for one in due:
        centre = np.frombuffer(one.cluster.centre, dtype="<f4")
        vectors = {f"item:{n}": axis(0, off, 5) for n, off in enumerate((0.3, 0.0, 0.1, 0.2))}
        distances = [float(np.linalg.norm(vectors[subject] - centre)) for subject in one.members]
        assert distances == sorted(distances)


def test_restored_clusters_go_on_as_if_nothing_had_happened():
    first = grown_up(12)
    for due in first.due():
        first.asked(due, 70)
    saved = first.clusters()
    again = make()
    assert again.restore(reversed(saved)) == []
    again.place([f"item:{n}" for n in range(12)], np.stack(two_topics(12)))
    assert again.clusters() == saved
    assert again.due() == []  # asked about before the restart
    for clustering in (first, again):
        learn(clustering, [axis(0, 0.1, n) for n in range(20)], prefix="item:new")
    assert centres_of(again) == pytest.approx(centres_of(first), abs=1e-5)  # a record carries float32
    for tell in (lambda one: (one.n_learnt, one.n_members, one.as_of_ms), lambda one: (one.asked_centre, one.asked_n_members)):
        assert [tell(one) for one in again.clusters()] == [tell(one) for one in first.clusters()]
    assert [due.reason for due in again.due()] == [due.reason for due in first.due()] == ["grown_cluster"]


def test_what_was_placed_is_learnt_when_it_comes_again_and_counts_once():
    clustering = make()
    clustering.restore(grown_up().clusters())
    clustering.place(["item:0"], axis(0, 0.02, 0)[None])
    n_learnt = sum(one.n_learnt for one in clustering.clusters())
    learn(clustering, [axis(0, 0.02, 0)])
    assert sum(one.n_learnt for one in clustering.clusters()) == n_learnt + 1
    assert clustering.n_members == 1


def test_fewer_clusters_than_before_give_up_the_highest_numbers():
    saved = grown_up().clusters()
    clustering = make(n_clusters=1)
    assert clustering.restore(saved) == ["cluster:item-1"]
    assert clustering.next_number == 1


def test_more_clusters_than_before_open_new_ones():
    clustering = make(n_clusters=3)
    clustering.restore(grown_up().clusters())
    learn(clustering, [axis(9)], prefix="item:new")
    assert [one.subject for one in clustering.clusters()] == ["cluster:item-0", "cluster:item-1", "cluster:item-2"]


def test_numbers_start_where_they_are_told_to():
    clustering = grown_up(first_number=7)
    assert [one.subject for one in clustering.clusters()] == ["cluster:item-7", "cluster:item-8"]
    assert clustering.next_number == 9


@pytest.mark.parametrize("change", [{"subject": "cluster:user-0"}, {"space": "other>1"}])
def test_clusters_of_another_kind_or_space_are_refused(change):
    fields = {"subject": "cluster:item-0", "centre": axis(0).tobytes(), "space": "e>1"} | change
    with pytest.raises(ValueError, match="wanted item in e>1"):
        make().restore([Cluster(**fields, n_learnt=1, n_members=1, as_of_ms=1)])
