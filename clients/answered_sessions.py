"""Which sessions of one run a client has answered, on its disk before it answers.

A session is one attempt at a round. A further attempt has fresh keys, masks and noise,
and is charged by itself before anything leaves, so it is another answer; the same
attempt, an earlier one, or an earlier round is never answered (again).
"""

from pathlib import Path

from fedtrain.secagg.answered import AnsweredRounds, check_unanswered
from fedtrain.secagg.blame import relay_breach

_MOST_ATTEMPTS = 2**20


class AnsweredSessions:
    """``Answered`` for one attempt at a round.

    Args:
      folder: Of the run; made if needed.
      attempt: Of the round that is asked for.

    Raises:
      BreachError: If no honest aggregator tries so often.
    """

    def __init__(self, folder: Path, attempt: int) -> None:
        if attempt >= _MOST_ATTEMPTS:
            raise relay_breach(f"attempt {attempt} is beyond all that are counted")
        self._sessions = AnsweredRounds(folder)
        self._attempt = attempt

    def last(self, plan_sha256: bytes) -> int:
        """The newest round of which this attempt may not be answered; -1 if none."""
        newest = self._sessions.last(plan_sha256)
        if newest < 0:
            return -1
        round_number, attempt = divmod(newest, _MOST_ATTEMPTS)
        return round_number if self._attempt <= attempt else round_number - 1

    def claim(self, plan_sha256: bytes, round_number: int) -> None:
        """Takes the one right to answer; on the disk when it returns.

        Raises:
          BreachError: If this session or a later one was answered before.
        """
        check_unanswered(self, plan_sha256, round_number)
        number = round_number * _MOST_ATTEMPTS + self._attempt
        self._sessions.claim(plan_sha256, number)
