"""Online learners side by side, test-then-train: each scores an event as it stands, then learns from it.

All read user, item and the item's genres; reki reads the user's last interactions as well, and tests and trains in small batches.
Scores are probabilities. Settings stand in `online_settings`.

Shapes: n events.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.actions import liked
from contracts.records import InteractionEvent, ItemEvent
from streams.datasets.movielens import MovieLens

if TYPE_CHECKING:
    from pathlib import Path

    from ranker.samples import Samples

Floats = NDArray[np.floating[Any]]
SEED = 1234
N_FACTORS = 8
FACTORS_SIGMA = 0.05
_MIN_BATCH = 2  # Dice standardises over the batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stream:
    """Labelled events in time order; events of the same second stand by user, each user's in that user's own order."""

    users: Sequence[str]  # (n,)
    items: Sequence[str]  # (n,)
    labels: NDArray[np.float32]  # (n,)
    event_ms: Sequence[int]  # (n,)
    genres: Mapping[str, Sequence[str]]  # by item

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def user_number(self) -> NDArray[np.int64]:
        """One number per user, (n,)."""
        return np.unique(np.array(self.users), return_inverse=True)[1]

    def prefix(self, n: int) -> Stream:
        """The first ``n`` events."""
        return replace(self, users=self.users[:n], items=self.items[:n], labels=self.labels[:n], event_ms=self.event_ms[:n])


def read_stream(folder: Path, limit: int | None = None) -> Stream:
    """MovieLens as the product replays it; a rating above 3 is liked.

    Args:
        folder: Where `ratings.csv.gz` or `ratings.dat`, and `movies.dat` are.
        limit: Only the first that many ratings.

    Raises:
        DatasetError: A file is missing or damaged.
    """
    users, items, labels, event_ms = list[str](), list[str](), list[bool](), list[int]()
    genres: dict[str, Sequence[str]] = {}
    for event in MovieLens(folder).events(limit):
        if isinstance(event, ItemEvent):
            genres[event.item] = event.attributes.get("genre", ())
        else:
            users.append(event.user)
            items.append(event.item)
            labels.append(bool(liked(event.action, event.value)))
            event_ms.append(event.event_ms)
    return Stream(users=users, items=items, labels=np.array(labels, np.float32), event_ms=event_ms, genres=genres)


class _Means:
    """A running mean per key, drawn towards the running mean of all by ``smoothing`` imagined events."""

    def __init__(self, smoothing: float) -> None:
        self._smoothing = smoothing
        self._n: defaultdict[str, int] = defaultdict(int)
        self._sum: defaultdict[str, float] = defaultdict(float)

    def logit(self, key: str, prior: float) -> float:
        mean = (self._sum[key] + self._smoothing * prior) / (self._n[key] + self._smoothing)
        return math.log(mean / (1 - mean))

    def learn_one(self, key: str, label: float) -> None:
        self._n[key] += 1
        self._sum[key] += label


def means(stream: Stream, *, smoothing: float, by_user: bool) -> Floats:
    """The item's smoothed mean; with ``by_user`` the user's too: logit(item) + logit(user) - logit(all)."""
    of_items, of_users = _Means(smoothing), _Means(smoothing)
    logits = np.empty(len(stream))
    total, n = 1.0, 2  # one liked event and one other: no logit is infinite
    for row, (user, item, label) in enumerate(zip(stream.users, stream.items, stream.labels.tolist(), strict=True)):
        prior = total / n
        logits[row] = of_items.logit(item, prior)
        if by_user:
            logits[row] += of_users.logit(user, prior) - math.log(prior / (1 - prior))
            of_users.learn_one(user, label)
        of_items.learn_one(item, label)
        total, n = total + label, n + 1
    return _sigmoid(logits)


def vowpal_wabbit(stream: Stream, *, arguments: str) -> Floats:
    """Vowpal Wabbit on namespaces u (user), i (item), g (genres), one event after the other, on one thread.

    Its ``learn`` leaves on the example what it had predicted before the update.
    """
    from vowpalwabbit import Workspace

    of_item = {item: f"|i {item} |g {' '.join(genres)}" for item, genres in stream.genres.items()}
    workspace = Workspace(f"--quiet --loss_function logistic --link logistic {arguments}")
    scores = np.empty(len(stream))
    for row, (user, item, label) in enumerate(zip(stream.users, stream.items, stream.labels.tolist(), strict=True)):
        example = workspace.parse(f"{1 if label else -1} |u {user} {of_item[item]}")
        workspace.learn(example)
        scores[row] = example.get_simplelabel_prediction()
        workspace.finish_example(example)
    workspace.finish()
    return scores


def river_logistic(stream: Stream, *, optimizer: str, rate: float) -> Floats:
    """Logistic regression of river on one-hot user, item and genres."""
    from river.linear_model import LogisticRegression

    return _river_classifier(LogisticRegression(_optimizer(optimizer, rate)), stream)


def river_fm(stream: Stream, *, optimizer: str, rate: float, factors_rate: float) -> Floats:
    """Factorisation machine of river on one-hot user, item and genres."""
    from river.facto import FMClassifier
    from river.optim import SGD
    from river.optim.initializers import Normal

    model = FMClassifier(
        n_factors=N_FACTORS,
        weight_optimizer=_optimizer(optimizer, rate),
        latent_optimizer=SGD(factors_rate),  # river keys an optimiser's state by factor, not by feature: no AdaGrad here
        latent_initializer=Normal(sigma=FACTORS_SIGMA, seed=SEED),
    )
    return _river_classifier(model, stream)


def river_mf(stream: Stream, *, optimizer: str, rate: float, factors_rate: float) -> Floats:
    """Biased matrix factorisation of river, under its logistic loss: what it predicts is a logit. It reads no genres."""
    from river.optim.initializers import Normal
    from river.optim.losses import Log
    from river.reco import BiasedMF

    model: Any = BiasedMF(  # river's recommenders have no types
        n_factors=N_FACTORS,
        bias_optimizer=_optimizer(optimizer, rate),
        latent_optimizer=_optimizer(optimizer, factors_rate),
        loss=Log(),
        latent_initializer=Normal(sigma=FACTORS_SIGMA, seed=SEED),
    )
    logits = np.empty(len(stream))
    for row, (user, item, label) in enumerate(zip(stream.users, stream.items, stream.labels.tolist(), strict=True)):
        logits[row] = model.predict_one(user, item)
        model.learn_one(user, item, label > 0)
    return _sigmoid(logits)


def reki(stream: Stream, *, batch: int, learning_rate: float) -> Floats:
    """The CRM without knowledge, from random weights: ``batch`` events are scored, then learnt in one step."""
    import torch

    from contracts.settings import load_settings
    from ranker.crm import build_optimizers
    from ranker.offline import build_joint, train_step

    settings = load_settings(train={"threads": 1})
    torch.set_num_threads(settings.train.threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        joint = build_joint(settings, 0, base=True)
    optimizers, samples = build_optimizers(joint, learning_rate), _samples(stream)
    matrix = torch.from_numpy(samples.matrix)
    scores = np.empty(len(stream))
    for start in range(0, len(stream), batch):
        rows = slice(start, start + batch)
        events = samples.batch(rows)
        joint.eval()
        with torch.inference_mode():
            scores[rows] = joint(events.features, events.user_rows, events.item_rows, matrix).sigmoid().numpy()
        if len(events.label) >= _MIN_BATCH:
            joint.train()
            train_step(joint, optimizers, events, matrix)
    return scores


def _samples(stream: Stream) -> Samples:
    """The stream's events as the product's samples: histories point in time, without events of the same second."""
    from contracts.settings import load_settings
    from ranker.features import FeatureConfig
    from ranker.samples import SampleLog

    log = SampleLog()
    for item, genres in stream.genres.items():
        log.add_item(ItemEvent(item=item, published_ms=0, title=item, attributes={"genre": tuple(genres)}))
    for user, item, label, at_ms in zip(stream.users, stream.items, stream.labels.tolist(), stream.event_ms, strict=True):
        log.add_interaction(InteractionEvent(user=user, item=item, action="like" if label else "dislike", event_ms=at_ms))
    samples = log.build(FeatureConfig.of(load_settings().model))
    if not np.array_equal(samples.label, stream.labels):
        raise RuntimeError("the samples are not the stream's events one by one: is one of them in it twice?")
    return samples


def _river_classifier(model: Any, stream: Stream) -> Floats:
    genres = {item: dict.fromkeys((f"g={genre}" for genre in found), 1) for item, found in stream.genres.items()}
    scores = np.empty(len(stream))
    for row, (user, item, label) in enumerate(zip(stream.users, stream.items, stream.labels.tolist(), strict=True)):
        one_hot = {f"u={user}": 1, f"i={item}": 1} | genres[item]
        scores[row] = model.predict_proba_one(one_hot)[True]
        model.learn_one(one_hot, label > 0)
    return scores


def _optimizer(name: str, rate: float) -> Any:
    from river import optim

    if name == "ftrl":
        return optim.FTRLProximal(alpha=rate, l2=0.0)
    return {"sgd": optim.SGD, "adagrad": optim.AdaGrad}[name](rate)


def _sigmoid(logits: Floats) -> Floats:
    return 1 / (1 + np.exp(-logits))
