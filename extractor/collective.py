"""One answer for many (REKI, collective extraction): what a cluster is asked with, and what its members make of the answer.

The paper does not publish its clustering, nor how a member's text is made; both are ours.

**How new knowledge of a cluster is** (``as_of_ms``): as new as the newest thing that went into the question. The centre chose the
members shown, so all that the centre learnt went in, not just what is shown; and it is at least one more than that of the last
question, so that a later answer always replaces an earlier one (`contracts.precedence`).

**How new a member's is.** A user's: the newer of its own and the cluster's. The cluster's text holds what other users did until
then, and a sample from before must not see it (the leak guard of `ranker.samples` and `ranker.scoring`). An item's: the newer
too, but no newer than the moment (broker's time) at which the cluster was asked about. No label is in it, so there is nothing to
guard; a later answer about its cluster must replace an earlier one, and `contracts.precedence` compares the dates of an item's
contents: an item that changes later is dated later than that moment, so its new content always wins.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec

from contracts.records import Knowledge, KnowledgeRequest, Member
from contracts.subjects import split_subject
from extractor.assignment import split_cluster
from extractor.plain_text import plain_text
from extractor.priority import CLUSTERS_ABOVE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from contracts.settings import Collective
    from extractor.clustering import Due

MAX_MEMBER_CHARS: Final = 300  # of one member in a prompt
MAX_WORDS: Final = 96  # of a member's text: the encoder behind it runs on a CPU
OWN_WORDS: Final = 32  # of these, what is the member's own
_OWN_SUMMARY_WORDS: Final = 16
_OWN_FACTOR_WORDS: Final = 8
_SUMMARY_WORDS: Final = 24  # of the cluster's summary
_N_COMMON: Final = 5  # values of one factor
_MIN_SHARED: Final = 2  # documents that say it
_MAX_VALUE_WORDS: Final = 6  # longer parts are sentences, which nobody else says in the same words
_MAX_CHARS: Final = 600  # of any text in a member's: words may be long where a language has no spaces
_PART: Final = re.compile(r"[,;.]\s+|[;.]$")
_WORD: Final = re.compile(r"\w+")
_OWN_SUMMARY: Final = "In particular: "  # after these words a member's own text begins: `own_part` finds it again
_OWN_FACTOR: Final = "also "
_BEFORE_SUMMARY: Final = ". "  # what joins the cluster's words to the member's own
_BEFORE_FACTOR: Final = "; "


def cluster_request(
    due: Due, documents: Mapping[str, Knowledge], settings: Collective, trigger_ms: int
) -> KnowledgeRequest | None:
    """What to ask about a cluster; None where nothing is known of any member.

    A member whose knowledge is the cluster's own (tier ``collective``) is shown with its own part alone: the answer must not feed
    the next question.

    Args:
        due: The cluster, why, and its members, the nearest first.
        documents: By subject, what is known of the members. All of them count for ``common``, the first ones are shown.
        settings: How many are shown.
        trigger_ms: The broker's time of the record that set this off.
    """
    known = [own_part(documents[subject]) for subject in due.members if subject in documents]
    members = tuple(
        Member(subject=one.subject, text=text) for one in known if (text := plain_text(_member_text(one), MAX_MEMBER_CHARS))
    )[: settings.members_shown]
    if not members:
        return None
    cluster, common = due.cluster, _common(known)
    newest_ms = max(cluster.as_of_ms, *(one.as_of_ms for one in known))
    return KnowledgeRequest(
        subject=cluster.subject,
        mode="collective",
        reason=due.reason,
        priority=CLUSTERS_ABOVE + cluster.n_members * due.staleness,
        as_of_ms=newest_ms if due.reason == "new_cluster" else max(newest_ms, cluster.as_of_ms + 1),
        trigger_ms=trigger_ms,
        source_hash=_hash([[member.text for member in members], sorted(common.items())]),
        members=members,
        common=common,
        cluster_size=cluster.n_members,
    )


def member_knowledge(own: Knowledge, cluster: Knowledge) -> Knowledge:
    """Knowledge of tier ``collective`` for one member: the cluster's text, and what the member says that the cluster does not.

    At most 96 words, so that the whole fits the encoder: the member's own come first in the count, the cluster's get the rest,
    its longest factors being cut first.

    Args:
        own: What is known of the member alone, of tier ``attributes`` or any other.
        cluster: The answer about its cluster.

    Raises:
        ValueError: ``cluster`` is not of a cluster of this kind of member.
    """
    kind, _ = split_subject(own.subject)
    of, _ = split_cluster(cluster.subject)
    if kind != of:
        raise ValueError(f"got {own.subject} and {cluster.subject}; wanted a member and a cluster of one kind")
    own = own_part(own)
    own_summary, own_factors = _own_texts(own, cluster)
    n_own = _n_words([own_summary, *own_factors.values()])
    summary = _unmarked(_first_words(cluster.summary, _SUMMARY_WORDS), _OWN_SUMMARY, _BEFORE_SUMMARY)
    fitted = _fitted(cluster.factors, MAX_WORDS - n_own - _n_words([summary]))
    factors = {name: _unmarked(text, _OWN_FACTOR, _BEFORE_FACTOR) for name, text in fitted.items()}
    names = list(dict.fromkeys([*cluster.factors, *own_factors]))
    both = {name: _BEFORE_FACTOR.join(filter(None, (factors.get(name, ""), own_factors.get(name, "")))) for name in names}
    return Knowledge(
        subject=own.subject,
        factors={name: text for name, text in both.items() if text},
        summary=f"{summary.rstrip('. ')}{_BEFORE_SUMMARY}{own_summary}".removeprefix(_BEFORE_SUMMARY) if own_summary else summary,
        tier="collective",
        backend=cluster.backend,
        scenario=cluster.scenario,
        prompt_version=cluster.prompt_version,
        model=cluster.model,
        as_of_ms=max(own.as_of_ms, cluster.as_of_ms if kind == "user" else min(cluster.as_of_ms, cluster.trigger_ms)),
        trigger_ms=own.trigger_ms,
        source_hash=own.source_hash,
        cluster=cluster.subject,
    )


def own_part(knowledge: Knowledge) -> Knowledge:
    """What a member itself brought into `member_knowledge`; any knowledge of another tier as it is."""
    if knowledge.tier != "collective":
        return knowledge
    factors = {name: _after(text, _OWN_FACTOR, _BEFORE_FACTOR) for name, text in knowledge.factors.items()}
    return msgspec.structs.replace(
        knowledge,
        factors={name: text for name, text in factors.items() if text},
        summary=_after(knowledge.summary, _OWN_SUMMARY, _BEFORE_SUMMARY),
    )


def _after(text: str, mark: str, joint: str) -> str:
    """What follows the last ``mark`` that begins the text or comes right after a ``joint``; empty without one."""
    _, found, rest = f"{joint}{text}".rpartition(f"{joint}{mark}")
    return rest if found else ""


def _unmarked(text: str, mark: str, joint: str) -> str:
    """A cluster's text without the marks that `_after` would find in it."""
    return f"{joint}{text}".replace(f"{joint}{mark}", joint).removeprefix(joint)


def _own_texts(own: Knowledge, cluster: Knowledge) -> tuple[str, dict[str, str]]:
    """A member's own summary and factors, marked as such, without what the cluster says already."""
    said = _words([cluster.summary, *cluster.factors.values()])
    summary = _first_words(own.summary, _OWN_SUMMARY_WORDS) if _words([own.summary]) - said else ""
    left = OWN_WORDS - _n_words([summary])
    factors = {}
    for name, text in own.factors.items():
        news = ", ".join(part for part in _parts(text) if part.lower().startswith("not ") or _words([part]) - said)
        short = _first_words(news, min(_OWN_FACTOR_WORDS, left))
        if short:
            factors[name] = f"{_OWN_FACTOR}{short}"
            left -= _n_words([short])
    return f"{_OWN_SUMMARY}{summary}" if summary else "", factors


def _fitted(texts: Mapping[str, str], n_words: int) -> dict[str, str]:
    """The texts, the longest cut until all together have ``n_words`` at most."""
    lengths = [_n_words([text]) for text in texts.values()]
    cap = max(lengths, default=0)
    while sum(min(length, cap) for length in lengths) > n_words:
        cap -= 1
    return {name: _first_words(text, cap) for name, text in texts.items()}


def _common(documents: Sequence[Knowledge]) -> dict[str, tuple[str, ...]]:
    """By factor, the values that most documents share, the most frequent first."""
    counts: dict[str, Counter[str]] = {}
    spelled: dict[str, str] = {}
    for document in documents:
        for factor, text in document.factors.items():
            values = {
                value.casefold(): value for value in _parts(plain_text(text, _MAX_CHARS)) if _n_words([value]) <= _MAX_VALUE_WORDS
            }
            counts.setdefault(factor, Counter()).update(values.keys())
            spelled = values | spelled  # as it was met first
    shared = {factor: _most(found) for factor, found in counts.items()}
    return {factor: tuple(spelled[value] for value in values) for factor, values in shared.items() if values}


def _most(found: Counter[str]) -> list[str]:
    ranked = sorted(found.items(), key=lambda one: (-one[1], one[0]))  # the same whatever order the members come in
    return [value for value, n in ranked[:_N_COMMON] if n >= _MIN_SHARED]


def _member_text(one: Knowledge) -> str:
    """A language model's summary says it; where there is none, the factors say what a title does not."""
    if one.tier == "individual" and one.summary:
        return one.summary
    factors = "; ".join(one.factors.values())
    return f"{one.summary} ({factors})" if one.summary and factors else one.summary or factors


def _parts(text: str) -> list[str]:
    return [part for part in (part.strip() for part in _PART.split(text)) if part]


def _words(texts: Iterable[str]) -> set[str]:
    return {word.casefold() for text in texts for word in _WORD.findall(text)}


def _n_words(texts: Iterable[str]) -> int:
    return sum(len(text.split()) for text in texts)


def _first_words(text: str, n: int) -> str:
    words = text.split()
    short = " ".join(words[:n])[:_MAX_CHARS]
    return short.rstrip(",; ") if len(words) > n else short


def _hash(parts: object) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()[:32]
