"""Which cluster a vector belongs to."""

import numpy as np
import pytest

from contracts.errors import VectorError
from contracts.records import Cluster
from extractor.assignment import Assignment, centre_of, cluster_subject, nearest_rows, split_cluster
from extractor.projection import DIM


def axis(n, length=1.0):
    return (np.eye(DIM, dtype="<f4")[n] * length).astype("<f4")


def cluster(number, centre, kind="item", space="e>1"):
    return Cluster(
        subject=cluster_subject(kind, number), centre=centre.tobytes(), space=space, n_learnt=1, n_members=1, as_of_ms=1
    )


@pytest.fixture
def three():
    assignment = Assignment()
    for number in range(3):
        assignment.apply(cluster(number, axis(number)))
    return assignment


def test_the_nearest_centre_is_told_by_its_subject(three):
    vectors = np.stack([axis(2), axis(0), 0.6 * axis(0) + 0.8 * axis(1)])
    assert three.nearest("item", vectors, "e>1") == ["cluster:item-2", "cluster:item-0", "cluster:item-1"]
    assert three.dim == 32


def test_other_kinds_spaces_and_empty_texts_have_no_cluster(three):
    three.apply(cluster(7, axis(5), kind="user"))
    assert three.nearest("user", axis(0)[None], "e>1") == ["cluster:user-7"]
    assert three.nearest("user", axis(0)[None], "other>1") == [""]
    assert three.nearest("cluster", axis(0)[None], "e>1") == [""]
    assert three.nearest("item", np.stack([np.zeros(DIM, dtype=np.float32), axis(1)]), "e>1") == ["", "cluster:item-1"]
    assert three.nearest("item", np.zeros((0, DIM), dtype=np.float32), "e>1") == []


def test_a_centre_that_moves_goes_or_changes_its_space_is_followed(three):
    assert three.nearest("item", axis(1)[None], "e>1") == ["cluster:item-1"]
    three.apply(cluster(1, -axis(1)))
    three.apply(cluster(2, axis(1)))
    assert three.nearest("item", axis(1)[None], "e>1") == ["cluster:item-2"]
    three.remove("cluster:item-2")
    three.remove("cluster:item-99")
    assert three.nearest("item", axis(2)[None], "e>1") == ["cluster:item-0"]
    three.apply(cluster(0, axis(0), space="f>1"))
    assert three.nearest("item", axis(0)[None], "e>1") == ["cluster:item-1"]
    assert three.nearest("item", axis(0)[None], "f>1") == ["cluster:item-0"]
    assert len(three) == 2


def test_distance_counts_and_not_the_length_of_a_centre():
    assignment = Assignment()
    assignment.apply(cluster(0, axis(0, 3.0)))
    assignment.apply(cluster(1, axis(0, 0.9)))
    assert assignment.nearest("item", axis(0)[None], "e>1") == ["cluster:item-1"]


def test_nearest_rows_agrees_with_plain_distances():
    rng = np.random.default_rng(0)
    vectors, centres = (rng.standard_normal((n, DIM)).astype(np.float32) for n in (200, 30))
    plain = np.linalg.norm(vectors[:, None] - centres, axis=2).argmin(axis=1)
    assert nearest_rows(vectors, centres).tolist() == plain.tolist()


@pytest.mark.parametrize("raw", [b"", b"\0" * 124, b"\0" * 132, np.full(DIM, np.nan, dtype="<f4").tobytes()])
def test_a_centre_of_another_kind_is_refused(raw):
    with pytest.raises(VectorError):
        centre_of(raw)


@pytest.mark.parametrize("subject", ["item:3", "cluster:item", "cluster:cluster-1", "cluster:item-x", "cluster:item-", "nothing"])
def test_what_is_no_cluster_is_refused(subject):
    with pytest.raises(ValueError, match="wanted"):
        split_cluster(subject)


def test_a_clusters_subject_splits_into_what_it_was_made_of():
    assert split_cluster(cluster_subject("user", 12)) == ("user", 12)
