"""The fixed projection: the same numbers everywhere, unit length, neighbours kept."""

import numpy as np
import pytest

from contracts.errors import VectorError
from extractor.projection import DIM, project, space


def test_the_numbers_are_those_that_centres_in_a_log_were_made_with():
    # another result here means another space: raise the version in `space`, or old centres are compared with new vectors
    got = project(np.eye(3, 8, dtype=np.float32))[:, :3]
    pinned = [[-0.283227, 0.277109, 0.253642], [0.148154, 0.300300, 0.333947], [-0.336644, 0.246745, 0.001161]]
    assert got == pytest.approx(np.array(pinned), abs=1e-5)
    assert space("e") == "e>gauss32-1"


def test_results_have_unit_length_and_a_text_that_says_nothing_stays_zero():
    vectors = np.random.default_rng(0).standard_normal((5, 384)).astype(np.float32) * 7
    vectors[2] = 0
    got = project(vectors)
    assert (got.shape, got.dtype) == ((5, DIM), np.float32)
    assert np.linalg.norm(got, axis=1) == pytest.approx([1, 1, 0, 1, 1], abs=1e-5)


def test_a_batch_gives_what_single_vectors_give():
    vectors = np.random.default_rng(0).standard_normal((7, 96)).astype(np.float32)
    singly = np.concatenate([project(vector[None]) for vector in vectors])
    assert project(vectors) == pytest.approx(singly, abs=1e-5)


def test_near_stays_nearer_than_far():
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((20, 384)).astype(np.float32)
    first, second = (topics + 0.5 * rng.standard_normal((20, 384)).astype(np.float32) for _ in range(2))
    assert (project(first) @ project(second).T).argmax(axis=1).tolist() == list(range(20))


@pytest.mark.parametrize("vectors", [np.zeros(4), np.zeros((2, 0)), np.array([[1, np.nan]]), np.array([[np.inf, 0]])])
def test_what_is_no_matrix_of_numbers_is_refused(vectors):
    with pytest.raises(VectorError):
        project(vectors.astype(np.float32))


def test_no_vectors_give_none():
    assert project(np.zeros((0, 384), dtype=np.float32)).shape == (0, DIM)
