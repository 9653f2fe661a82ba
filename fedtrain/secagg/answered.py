"""The rounds a client has answered, on its disk before the answer leaves.

Two answers for one round could open a client both as survivor and as lost, and two sums
of one round can be subtracted. So a round is answered once, also after a crash: then it
is lost for this client, and the next one is answered.
"""

import hashlib
from pathlib import Path
from typing import Protocol

from fedtrain.core.chain import locked
from fedtrain.core.errors import LedgerError
from fedtrain.core.files import write_atomically
from fedtrain.secagg.blame import relay_breach


class Answered(Protocol):
    """Remembers the newest answered round of each plan."""

    def last(self, plan_sha256: bytes) -> int:
        """The newest answered round; -1 before the first."""

    def claim(self, plan_sha256: bytes, round_number: int) -> None:
        """Takes the one right to answer a round, before the answer is made.

        Raises:
          BreachError: If this round or a later one was answered before.
        """


def check_unanswered(answered: Answered, plan_sha256: bytes, round_number: int) -> None:
    """Refuses a round that is not after all answered ones.

    Raises:
      BreachError: If it was answered before, or is older.
    """
    last = answered.last(plan_sha256)
    if round_number <= last:
        raise relay_breach(
            f"round {round_number} is asked for, but round {last} is answered already"
        )


class AnsweredRounds:
    """``Answered`` on the disk, a small file for each plan in a folder of their own.

    A claim is synced, file and folder, when ``claim`` returns; a kill at any moment
    leaves it made or not made. Two processes cannot both make it. A file that is
    damaged counts as every round answered. Put back from a backup it would forget: do
    not restore this folder.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    def last(self, plan_sha256: bytes) -> int:
        """The newest answered round; -1 before the first.

        Raises:
          LedgerError: If the file is damaged.
        """
        path = self._path(plan_sha256)
        try:
            number, checksum = path.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return -1
        except (OSError, ValueError):
            raise _damaged(path) from None
        if checksum != _checksum(number):
            raise _damaged(path)
        return int(number)

    def claim(self, plan_sha256: bytes, round_number: int) -> None:
        """Takes the one right to answer a round; on the disk when it returns."""
        path = self._path(plan_sha256)
        with locked(path):
            check_unanswered(self, plan_sha256, round_number)
            number = str(round_number)
            write_atomically(path, f"{number} {_checksum(number)}\n", mode=0o600)

    def _path(self, plan_sha256: bytes) -> Path:
        return self._folder / f"{plan_sha256.hex()}.answered"


class RememberedRounds:
    """``Answered`` in memory, for simulations: no process of it ever restarts."""

    def __init__(self) -> None:
        self._last: dict[bytes, int] = {}

    def last(self, plan_sha256: bytes) -> int:
        """The newest answered round; -1 before the first."""
        return self._last.get(plan_sha256, -1)

    def claim(self, plan_sha256: bytes, round_number: int) -> None:
        """Takes the one right to answer a round."""
        check_unanswered(self, plan_sha256, round_number)
        self._last[plan_sha256] = round_number


def _checksum(number: str) -> str:
    return hashlib.sha256(f"fedtrain answered {number}".encode()).hexdigest()


def _damaged(path: Path) -> LedgerError:
    return LedgerError(
        f"{path} cannot be read, so every round of this plan counts as answered. It "
        "must not be deleted while the plan runs; join the next plan."
    )
