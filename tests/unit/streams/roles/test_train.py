"""The trainer: what was learnt and how far was read belong together."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from contracts.codec import encode
from contracts.errors import UnavailableError
from contracts.ports import VectorRow
from contracts.records import FeatureSnapshot, Impression, LabelledItem
from contracts.topics import DEAD_LETTERS, IMPRESSIONS, MODELS
from hein.stores.memory import MemoryVectorStore
from ranker.bundle import Bundle
from ranker.checkpoint import load_crm
from ranker.features import item_features
from ranker.online import read_state
from ranker.vectors import VectorMatrix
from streams.messages import RawRecord
from streams.roles.train import Train


class StandInLive:
    """The version in force, set by hand."""

    def __init__(self, settings):
        self.caught_up = threading.Event()
        self.holder = SimpleNamespace(current=None)
        self._settings = settings
        self.catalogue = SimpleNamespace(lookup_for=lambda config: lambda item: item_features(item, {}, config))

    def use(self, manifest):
        if self.holder.current:
            self.holder.current.vectors.close()
        vectors = VectorMatrix(manifest.d_aug, MemoryVectorStore(manifest.d_aug), 0.05, version=manifest.version)
        vectors.boot([[VectorRow(subject="item:i0", vector=np.full(4, manifest.version, "<f4"), tier="individual", as_of_ms=1)]])
        self.holder.current = Bundle(crm=load_crm(self._settings.checkpoints, manifest), vectors=vectors, manifest=manifest)


@pytest.fixture
def live(small, trained):
    live = StandInLive(small)
    live.use(trained(1, state="ready"))
    yield live
    live.holder.current.vectors.close()


@pytest.fixture
def new_train(small, live, publisher):
    """A trainer as it is after a start."""

    def make():
        train = Train(small, live, publisher)
        train._follow_version()
        return train

    return make


def message(offset, partition=0, value=None):
    name = f"r{partition}-{offset}"
    record = Impression(
        ranking=name, user="u", version=1, step=0, event_ms=offset, snapshot=FeatureSnapshot(),
        items=tuple(LabelledItem(item=f"i{n}", label=float(n == 0), score=0.5, position=n) for n in range(3)),
    )  # fmt: skip
    value = encode(IMPRESSIONS, record) if value is None else value
    return RawRecord(topic=IMPRESSIONS, partition=partition, offset=offset, key=b"u", value=value, at_ms=1)


def learnt(publisher):
    return [int(one.metrics["n_impressions"]) for one in publisher.of(MODELS)]


def test_it_learns_and_tells_the_rankers(new_train, publisher):
    new_train()._step([message(0), message(1), message(0, partition=1)])
    assert learnt(publisher) == [3]
    assert [one.step for one in publisher.of(MODELS)] == [1]


def test_a_step_that_is_repeated_after_an_error_learns_once(new_train, publisher):
    train = new_train()
    publisher.fail_flushes = 1
    with pytest.raises(UnavailableError):
        train._step([message(0), message(1)])
    train._step([message(0), message(1)])
    assert learnt(publisher)[-1] == 2
    assert publisher.of(MODELS)[-1].metrics["n_repeated"] == 0


def test_rankers_are_told_with_the_next_try_when_the_broker_was_down(new_train, publisher):
    train = new_train()
    flush, calls = publisher.flush, []

    def second_fails():
        calls.append(1)
        if len(calls) == 2:
            publisher.fail_flushes = 1
        flush()

    publisher.flush = second_fails
    with pytest.raises(UnavailableError):
        train._step([message(0)])
    assert learnt(publisher) == []
    train._step([])
    assert learnt(publisher) == [1]


def test_a_killed_trainer_goes_on_where_it_had_saved(new_train, publisher, small):
    new_train()._step([message(0), message(1)])
    again = new_train()
    assert again._offsets == {"0": 2}
    again._step([message(1), message(2)])  # one of them again
    assert learnt(publisher) == [2, 3]
    assert read_state(small.checkpoints / "v0001" / "online.safetensors").offsets == {"0": 3}


def test_killed_between_saving_and_telling_it_tells_after_its_restart(new_train, publisher, live):
    train = new_train()
    publisher.send = lambda *_: None  # killed here
    train._step([message(0)])
    del publisher.send
    assert learnt(publisher) == []
    new_train()._step([])
    assert learnt(publisher) == [1]


def test_a_new_version_starts_at_step_zero_and_reads_on(new_train, live, trained, publisher):
    train = new_train()
    train._step([message(0)])
    live.use(trained(2, state="ready"))
    train._step([message(1)])
    assert [(one.version, one.step) for one in publisher.of(MODELS)] == [(1, 1), (2, 1)]
    assert learnt(publisher) == [1, 2]


def test_a_learner_never_gets_vectors_of_another_version_than_its_own(new_train, live, trained):
    train = new_train()
    live.use(trained(2, state="ready"))  # by the other thread, in the middle of a step
    assert (train._learner.version, train._vectors(["i0"]).tolist()) == (1, [[1.0] * 4])
    train._step([])
    assert (train._learner.version, train._vectors(["i0"]).tolist()) == (2, [[2.0] * 4])


def test_a_version_that_was_booted_again_gives_its_new_vectors_and_loses_nothing(new_train, live, trained, publisher):
    train = new_train()
    train._step([message(0)])
    live.use(live.holder.current.manifest)
    train._step([message(1)])
    assert train._bundle is live.holder.current
    assert learnt(publisher) == [1, 2]


@pytest.mark.parametrize("seen", [True, False], ids=["killed after the swap", "away during the swap"])
def test_a_trainer_killed_around_a_swap_does_not_read_everything_again(new_train, live, trained, publisher, seen):
    train = new_train()
    train._step([message(0), message(1)])
    live.use(trained(2, state="ready"))
    if seen:
        train._step([])
    again = new_train()
    assert again._offsets == {"0": 2}
    again._step([message(2)])
    assert learnt(publisher)[-1] == 3
    assert publisher.of(MODELS)[-1].version == 2


def test_a_bad_record_is_a_dead_letter_and_is_passed_over(new_train, publisher):
    new_train()._step([message(0), message(1, value=b"{"), message(2)])
    assert learnt(publisher) == [2]
    assert [one.offset for one in publisher.of(DEAD_LETTERS)] == [1]
