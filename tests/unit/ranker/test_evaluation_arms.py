"""The arms: which vectors each gives to users and items."""

import numpy as np
import pytest

from contracts.errors import DatasetError, SettingsError, VectorError
from fakes.evaluation_task import make_task
from ranker.evaluation.arms import ARMS, SOURCES, arm_knowledge, get_arm
from ranker.features import DISLIKED, LIKED

D = 6


@pytest.fixture
def task():
    return make_task()


@pytest.fixture
def vectors(task):
    draw = np.random.default_rng(1)
    sizes = {"item": len(task.items), "user": len(task.users)}
    made = {source: draw.standard_normal((sizes[of], D)).astype(np.float32) for source, of in SOURCES.items()}
    for matrix in made.values():
        matrix[2] = 0  # a subject without a text
    return made


def test_every_arm_has_its_name_and_one_line():
    assert all(name == arm.name and arm.description and "\n" not in arm.description for name, arm in ARMS.items())
    assert [name for name, arm in ARMS.items() if not arm.uses_knowledge] == ["base", "base-long"]
    long = {name for name in ARMS if name.endswith("-long")}
    assert {name for name, arm in ARMS.items() if (arm.history, arm.demographics) == (30, True)} == long
    assert {name for name, arm in ARMS.items() if (arm.history, arm.demographics) == (5, False)} == set(ARMS) - long


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.uses_knowledge])
def test_rows_lead_to_vectors_and_missing_ones_to_zero(task, vectors, name):
    arm = ARMS[name]
    made = arm_knowledge(arm, task, vectors)
    assert made.matrix.dtype == np.float32
    assert not made.matrix[0].any()
    assert made.matrix[1:].any(axis=1).all()
    assert (made.item_rows[0], made.item_rows[3]) == (0, 0)
    assert sorted(made.item_rows[made.item_rows > 0].tolist() + made.user_rows[made.user_rows > 0].tolist()) == list(
        range(1, len(made.matrix))
    )
    if not arm.random:
        assert (made.matrix[made.item_rows[1:]] == vectors[arm.item_source]).all()
        if arm.user_source:
            assert (made.matrix[made.user_rows] == vectors[arm.user_source]).all()


@pytest.mark.parametrize("name", ["base", "base-long"])
def test_an_arm_without_knowledge_needs_no_vectors(task, name):
    made = arm_knowledge(ARMS[name], task, {})
    assert made.matrix.shape == (1, 0)
    assert not made.user_rows.any()
    assert made.item_rows.shape == (len(task.items) + 1,)


@pytest.mark.parametrize(("name", "sign"), [("metadata", 0), ("item-knowledge", 0), ("item-knowledge-disliked", -1)])
def test_a_user_is_the_mean_of_what_the_prefix_liked(task, vectors, name, sign):
    items = vectors[ARMS[name].item_source]
    made = arm_knowledge(ARMS[name], task, vectors)

    def mean(user, code):
        rows = [r for r, c in zip(task.prefix[user], task.prefix_liked[user], strict=True) if c == code and items[r - 1].any()]
        return items[np.array(rows) - 1].mean(axis=0) if rows else np.zeros(D)

    for user in range(len(task.users)):
        wanted = mean(user, LIKED) + sign * mean(user, DISLIKED)
        assert made.matrix[made.user_rows[user]] == pytest.approx(wanted, abs=1e-6)


def test_later_interactions_do_not_move_a_users_vector(task, vectors):
    other = make_task()
    other.label[:] = 1 - other.label
    other.history_liked[:] = 0
    made, again = (arm_knowledge(ARMS["item-knowledge"], t, vectors) for t in (task, other))
    assert (made.matrix == again.matrix).all()


def test_random_vectors_stand_for_the_same_subjects_and_depend_on_the_seed_alone(task, vectors):
    made, known = (arm_knowledge(ARMS[name], task, vectors) for name in ("random", "knowledge"))
    assert (made.item_rows == known.item_rows).all()
    assert (made.user_rows == known.user_rows).all()
    assert np.linalg.norm(made.matrix[1:], axis=1) == pytest.approx(1, abs=1e-5)
    assert not np.isclose(made.matrix[1:], known.matrix[1:]).all(axis=1).any()
    changed = {source: np.where(matrix != 0, matrix + 1, 0) for source, matrix in vectors.items()}
    assert (arm_knowledge(ARMS["random"], task, changed).matrix == made.matrix).all()
    assert (arm_knowledge(ARMS["random"], task, vectors, seed=5).matrix[1:] != made.matrix[1:]).any()


def test_mistakes_are_named(task, vectors):
    with pytest.raises(SettingsError, match=r"'oracle'.*base, base-long, random"):
        get_arm("oracle")
    assert get_arm("base").name == "base"
    with pytest.raises(DatasetError, match="knowledge-users"):
        arm_knowledge(ARMS["knowledge"], task, {"knowledge-items": vectors["knowledge-items"]})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda matrix: matrix[:-1], r"shape \(11, 6\)"),
        (lambda matrix: matrix[:, 0], r"shape \(12,\)"),
        (lambda matrix: matrix[:, :4], r"sizes \[4, 6\]"),
        (lambda matrix: np.where(np.arange(D) == 1, np.nan, matrix), "NaN"),
        (lambda matrix: np.where(np.arange(D) == 1, np.inf, matrix), "infinity"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(task, vectors, spoil, said):
    with pytest.raises(VectorError, match=said):
        arm_knowledge(ARMS["knowledge"], task, {**vectors, "knowledge-users": spoil(vectors["knowledge-users"])})
