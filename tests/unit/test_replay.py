import pytest

from contracts.errors import DatasetError, UnavailableError
from contracts.records import InteractionEvent, ItemEvent, Knowledge
from streams.replay import FLUSH_EVERY, PositionFile, Replay

N = 2 * FLUSH_EVERY + 500


class Events:
    name, scenario, simulated, licence = "test", "news", False, ""

    def imported(self):
        yield Knowledge(
            subject="item:a",
            factors={},
            summary="",
            tier="individual",
            backend="batch",
            scenario="news",
            prompt_version="",
            model="m",
            as_of_ms=0,
        )

    def events(self, limit=None):
        yield ItemEvent(item="a", published_ms=0, title="t")
        for i in range(N if limit is None else limit):
            yield InteractionEvent(user="u", item="a", action="view", event_ms=i * 1000)

    def count(self, limit=None):
        return sum(1 for _ in self.events(limit))


class Broker:
    """Keeps what was flushed; dies after so many records."""

    def __init__(self, dies_after=None):
        self.kept, self.buffer, self.dies_after = [], [], dies_after

    def send(self, topic, record):
        self.buffer.append(record)
        if self.dies_after is not None and len(self.kept) + len(self.buffer) > self.dies_after:
            raise UnavailableError("dead", wanted="alive", todo="restart")

    def flush(self):
        self.kept += self.buffer
        self.buffer = []


@pytest.fixture
def positions(tmp_path):
    return PositionFile(tmp_path / "replay", "test", tmp_path)


def test_everything_is_sent_in_order_knowledge_first(positions):
    broker, seen = Broker(), []
    sent = Replay(broker, positions).run(Events(), progress=seen.append)
    assert broker.kept == [*Events().imported(), *Events().events()]
    assert (dict(sent.records), sent.skipped) == ({"imported-knowledge": 1, "items": 1, "interactions": N}, 0)
    assert (sum(seen), sent.last_ms) == (N + 1, (N - 1) * 1000)


def test_a_run_that_died_goes_on_with_at_most_one_buffer_sent_twice(positions):
    dying = Broker(dies_after=FLUSH_EVERY + 300)
    with pytest.raises(UnavailableError):
        Replay(dying, positions).run(Events())
    after, seen = Broker(), []
    sent = Replay(after, positions).run(Events(), progress=seen.append)
    assert dying.kept + after.kept == [*Events().imported(), *Events().events()]
    assert (sent.skipped, sum(seen)) == (FLUSH_EVERY, N + 1)


def test_a_larger_limit_goes_on_where_the_smaller_ended(positions):
    broker = Broker()
    Replay(broker, positions).run(Events(), limit=10)
    Replay(broker, positions).run(Events(), limit=25)
    assert broker.kept == [*Events().imported(), *Events().events(25)]
    Replay(broker, positions).run(Events(), limit=25, from_start=True)
    assert len(broker.kept) == 2 * (25 + 2)


def test_another_folder_starts_at_its_beginning_and_a_damaged_position_is_named(positions, tmp_path):
    Replay(Broker(), positions).run(Events(), limit=10)
    other = PositionFile(tmp_path / "replay", "test", tmp_path / "elsewhere")
    assert other.load().n_events == 0
    positions.path.write_text("{")
    with pytest.raises(DatasetError, match="--from-start"):
        positions.load()


def test_speed_is_a_multiple_of_event_time(positions):
    now, slept = [0.0], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    Replay(Broker(), positions, speed=10, clock=lambda: now[0], sleep=sleep).run(Events(), limit=5)
    assert sum(slept) == pytest.approx(0.4)
