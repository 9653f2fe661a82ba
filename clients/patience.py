"""Trying again for ever: capped exponential backoff with full jitter."""

import secrets
import time
from collections.abc import Callable
from typing import TypeVar

from clients.calls import RefusedError, UnreachableError

FIRST_S = 0.25
CAP_S = 10.0
# A refusal may be a clock's or a network's fault, and is asked about again a few times.
_MOST_REFUSALS = 4
_Result = TypeVar("_Result")


class Patience:
    """Calls until there is an answer, and says what it waits for.

    Args:
      reconnect: Called after each failure: the next attempt resolves anew.
      tell: Told why it waits, once for each reason.
      pause: Sleeps for so many seconds.
    """

    def __init__(
        self,
        *,
        reconnect: Callable[[], None],
        tell: Callable[[str], None],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._reconnect = reconnect
        self._tell = tell
        self._pause = pause
        self._told = ""

    def until_answered(self, call: Callable[[], _Result]) -> _Result:
        """The result of ``call``, which is made until it is not ``UnreachableError``.

        Raises:
          RefusedError: If the aggregator refuses five times one after the other.
        """
        failures = refusals = 0
        while True:
            try:
                result = call()
            except UnreachableError as error:
                self._say_once(str(error))
                self._pause(backoff_s(failures, least_s=error.wait_s or 0.0))
            except RefusedError:
                refusals += 1
                if refusals > _MOST_REFUSALS:
                    raise
                self._pause(backoff_s(refusals))
            else:
                self._told = ""
                return result
            failures += 1
            self._reconnect()

    def _say_once(self, reason: str) -> None:
        if reason != self._told:
            self._tell(reason)
        self._told = reason


def backoff_s(failures: int, *, least_s: float = 0.0) -> float:
    """Seconds to wait after ``failures`` earlier ones: random, and on average longer.

    At most 10 s, beyond ``least_s``, which the other side asked for.

    Source: Brooker (2015), Exponential Backoff And Jitter: full jitter.
    """
    most = min(CAP_S, FIRST_S * 2.0 ** min(failures, 16))
    return least_s + secrets.SystemRandom().uniform(0.0, most)
