"""The error tree. Every message says what was got, what was wanted and what to do.

    RekiError
    |-- SettingsError          a wrong setting; all mistakes in one message
    |-- RecordError            a record that does not fit its schema -> dead letters
    |-- VectorError            a vector of the wrong size, or with NaN
    |-- CheckpointError        a checkpoint that is missing, damaged or of another kind
    |-- DatasetError           a data set that is missing or not what it should be
    |-- AnswerError            a language model's answer that is not what was asked for
    |-- RankRequestError       a ranking request that cannot be answered (HTTP 422)
    `-- UnavailableError       (retriable) a broker, store or model server that does not answer

``retriable`` on the class decides about retrying: nothing else does.
"""

from __future__ import annotations

from functools import partial


class RekiError(Exception):
    """Base of every error that reki raises on purpose.

    Args:
        got: What was found.
        wanted: What would have been right.
        todo: What the reader of the message should do next.
    """

    retriable = False

    def __init__(self, got: str, *, wanted: str, todo: str) -> None:
        super().__init__(f"got {got}; wanted {wanted}; {todo}")
        self.got = got
        self.wanted = wanted
        self.todo = todo

    def __reduce__(self) -> tuple[object, ...]:
        """Across a process border it stays what it is; the default would call it without the keywords."""
        return partial(type(self), self.got, wanted=self.wanted, todo=self.todo), ()


class SettingsError(RekiError):
    """A setting is wrong; the message lists every mistake at once."""


class RecordError(RekiError):
    """A record does not fit its schema. It belongs into the dead letters."""


class VectorError(RekiError):
    """A vector has the wrong size or holds NaN or infinity."""


class CheckpointError(RekiError):
    """A checkpoint is missing, damaged, or of another shape than asked for."""


class DatasetError(RekiError):
    """A data set is missing or not what its reader expects."""


class AnswerError(RekiError):
    """A language model's answer is not the JSON that the scenario asks for."""


class RankRequestError(RekiError):
    """A ranking request cannot be answered as it stands."""


class UnavailableError(RekiError):
    """A broker, a vector store or a model server does not answer; trying again may help."""

    retriable = True
