"""The one policy of trying again: for ever, with back-off and jitter, where the error's class says that it may help."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event

from tenacity import (
    AsyncRetrying,
    Retrying,
    before_sleep_log,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_when_event_set,
    wait_exponential_jitter,
)

from contracts.errors import RekiError, SettingsError

log = logging.getLogger(__name__)

_WAIT = wait_exponential_jitter(multiplier=0.5, max=30)  # s


def retriable(error: BaseException) -> bool:
    """Whether trying again may help: the error's class says so."""
    return isinstance(error, RekiError) and error.retriable


def held(error: BaseException) -> bool:
    """Whether a record has to wait: the error is not its own. A refused key or model waits for whoever mends the settings."""
    return retriable(error) or isinstance(error, SettingsError)


def retrying() -> AsyncRetrying:
    """For agents. What waits here is held by Kafka; nothing is lost."""
    return AsyncRetrying(
        retry=retry_if_exception(held), wait=_WAIT, before_sleep=before_sleep_log(log, logging.WARNING), reraise=True
    )


def a_few_tries() -> AsyncRetrying:
    """For one record that fails in a way nobody foresaw: the moment's fault passes, the record's own does not."""

    def unforeseen(error: BaseException) -> bool:
        return isinstance(error, Exception) and not isinstance(error, RekiError)

    return AsyncRetrying(retry=retry_if_exception(unforeseen), wait=_WAIT, stop=stop_after_attempt(3), reraise=True)


def holding(stop: Event) -> Retrying:
    """For loops in threads whose records wait until something else is mended; gives up, raising the error, when told to stop."""
    return _until(stop, held)


def retrying_until(stop: Event) -> Retrying:
    """For loops in threads: gives up, raising the last error, when told to stop."""
    return _until(stop, retriable)


def _until(stop: Event, worth_it: Callable[[BaseException], bool]) -> Retrying:
    return Retrying(
        retry=retry_if_exception(worth_it),
        wait=_WAIT,
        sleep=sleep_using_event(stop),
        stop=stop_when_event_set(stop),
        before_sleep=before_sleep_log(log, logging.WARNING),
        reraise=True,
    )
