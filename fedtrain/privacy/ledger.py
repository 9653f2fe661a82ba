"""The privacy ledger: what was spent, written down before it is released.

One JSON line for each charge, each holding the hash of the line before it. A charge is
written and fsynced while a lock is held, so several runs may share a ledger; it counts
once for a given run, round, attempt, input, cost and clients. Private data has one
ledger for each data set, public data one for each run.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtrain.core.chain import (
    GENESIS,
    append_lines,
    checked_entry,
    digest,
    locked,
    sealed,
    usable,
)
from fedtrain.core.errors import ConfigError, LedgerError
from fedtrain.core.mechanism import Unit
from fedtrain.core.state_dir import file_stem, state_dir
from fedtrain.privacy import events
from fedtrain.privacy.spending import Spending

_REPAIR = "Run `fedtrain ledger repair` to charge the worst case for what is missing."


@dataclass(frozen=True, kw_only=True)
class Charge:
    """One entry: who spent what, and why.

    Attributes:
      run: The run's id.
      round_number: From 0.
      attempt: From 0; a retried round with other survivors is another attempt.
      input_hash: Of everything that decides what the release will be.
      unit: Whose privacy the events speak of.
      counts: What one unit of each charged client spends, as counted events.
      clients: The clients that spend it; None for all of them.
      note: For a reader.
    """

    run: str
    round_number: int
    attempt: int
    input_hash: str
    unit: Unit
    counts: events.Counts
    clients: tuple[str, ...] | None
    note: str = "round"

    @property
    def key(self) -> str:
        """What makes a charge the same one: all of it, what it pays for included."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": self.run,
            "round": self.round_number,
            "attempt": self.attempt,
            "input_hash": self.input_hash,
            "unit": self.unit,
            "events": events.to_json(self.counts),
            "clients": None if self.clients is None else list(self.clients),
            "note": self.note,
        }


class Ledger:
    """An append-only, hash-chained file of charges, and what they add up to.

    Args:
      path: The file; it and its folder are made at the first charge.

    Raises:
      LedgerError: If the file is damaged.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.spending = Spending()
        self._hashes: list[str] = []
        self._keys: set[str] = set()
        self._reserved: dict[str, str | None] = {}
        self._rounds: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
        self._num_charged: Counter[tuple[str, str]] = Counter()
        self._num_read = 0
        self._covered = 0
        self._size = 0
        self._read_consistently()

    def head(self) -> dict[str, Any]:
        """The number of entries and the hash of the last one.

        An entry of a repair follows all the entries that it stands for, so no head
        from before the repair is as long as one from after it.
        """
        return {
            "length": len(self._hashes),
            "hash": self._hashes[-1] if self._hashes else GENESIS,
        }

    def rounds_of(self, run: str, client: str) -> set[int]:
        """The rounds of ``run`` that ``client`` was charged for by itself."""
        return set(self._rounds.get((run, client), ()))

    def expect(self, head: Mapping[str, Any]) -> None:
        """Raises LedgerError unless the ledger still holds all that ``head`` counts."""
        self._read_consistently()
        length, found = int(head["length"]), len(self._hashes)
        if length <= self._covered:
            return
        if length > found:
            raise LedgerError(
                f"{self.path} has {found} entries, but a checkpoint remembers {length}:"
                f" the ledger was shortened. {_REPAIR}"
            )
        if length and self._hashes[length - 1] != head["hash"]:
            raise LedgerError(
                f"{self.path}: entry {length} is not the one that a checkpoint "
                f"remembers; the ledger was replaced. {_REPAIR}"
            )

    def num_charged(self, run: str, note: str) -> int:
        """How many entries of ``run`` have this note, as far as has been read."""
        return self._num_charged[run, note]

    def charge(
        self, charge: Charge, *, allowed: Callable[[Spending], None] | None = None
    ) -> bool:
        """Writes ``charge`` to disk; False where it was there already.

        Args:
          charge: What is about to be released.
          allowed: Called, under the lock, with the spending that would result; raises
            to refuse, and then nothing is written.
        """
        with locked(self.path):
            return self._charge(charge, allowed)

    def has(self, charge: Charge) -> bool:
        """Whether ``charge`` was written, as far as this object has read."""
        return charge.key in self._keys

    def _charge(
        self, charge: Charge, allowed: Callable[[Spending], None] | None
    ) -> bool:
        self._read_new()
        if charge.key in self._keys:
            return False
        self._append([charge], allowed)
        return True

    def reserve(
        self,
        charges: Sequence[Charge],
        *,
        allowed: Callable[[Spending], None] | None = None,
    ) -> None:
        """Writes ``charges`` to disk in one go, for this object to ``use`` later.

        They are spent from now on, used or not: nothing is refunded, and whoever opens
        the ledger after a crash cannot use them.

        Args:
          charges: What their releases will depend on is not known yet, so it is not in
            their ``input_hash``.
          allowed: As for ``charge``, with all of them added.
        """
        with locked(self.path):
            self._read_new()
            self._append(charges, allowed)
        self._reserved.update((charge.key, None) for charge in charges)

    def use(self, charge: Charge, *, input_hash: str) -> bool:
        """Whether ``charge`` is reserved, and free or taken by the same input.

        From then on it pays for ``input_hash`` and nothing else.
        """
        if self._reserved.get(charge.key, "") is None:
            self._reserved[charge.key] = input_hash
        return self._reserved.get(charge.key) == input_hash

    def has_reserved(self, charge: Charge) -> bool:
        """Whether ``charge`` was reserved, used by now or not."""
        return charge.key in self._reserved

    def _append(
        self, charges: Sequence[Charge], allowed: Callable[[Spending], None] | None
    ) -> None:
        if allowed is not None:
            after = self.spending.copy()
            for charge in charges:
                after.add(charge.unit, charge.counts, charge.clients)
            allowed(after)
        entries, previous = [], self.head()["hash"]
        for charge in charges:
            entries.append(sealed(charge.to_json(), previous))
            previous = entries[-1]["hash"]
        append_lines(self.path, entries)
        self._read_new()

    def _read_consistently(self) -> None:
        try:
            self._read_new()
        except LedgerError:
            # Another run may be in the middle of a line: look again when it is not.
            with locked(self.path):
                self._read_new()

    def _read_new(self) -> None:
        """Takes in the entries that this or another run has appended since."""
        with usable(self.path):
            size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._size:
            raise LedgerError(f"{self.path} has become shorter. {_REPAIR}")
        if size == self._size:
            return
        with usable(self.path), self.path.open("rb") as file:
            file.seek(self._size)
            new = file.read(size - self._size)
        for line in complete_lines(new, self.path):
            self._take_in(line)
        self._size = size

    def _take_in(self, line: bytes) -> None:
        previous = self._hashes[-1] if self._hashes else GENESIS
        entry = checked_entry(line, previous)
        if entry is None:
            raise LedgerError(
                f"{self.path}: entry {self._num_read + 1} is damaged. {_REPAIR}"
            )
        charge = charge_from_json(entry)
        self.spending.add(charge.unit, charge.counts, charge.clients)
        self._keys.add(charge.key)
        self._num_charged[charge.run, charge.note] += 1
        for client in charge.clients or ():
            self._rounds[charge.run, client].add(charge.round_number)
        self._num_read += 1
        add_hash(self._hashes, entry)
        self._covered = max(self._covered, int(entry.get("covers_length", 0)))


def ledger_path(
    *, dataset_name: str, is_private: bool, run_dir: Path | str | None = None
) -> Path:
    """Where the ledger lies: by data set for private data, in the run for public.

    Private data's ledgers are in ``$FEDTRAIN_STATE_DIR/ledgers``, by default under
    ``$XDG_STATE_HOME/fedtrain`` or ``~/.local/state/fedtrain``.
    """
    if not is_private:
        if run_dir is None:
            raise ConfigError(
                "run_dir is needed: public data has a ledger for each run."
            )
        return Path(run_dir) / "ledger.jsonl"
    return state_dir() / "ledgers" / f"{file_stem(dataset_name)}.jsonl"


def charge_from_json(entry: Mapping[str, Any]) -> Charge:
    """A charge from what ``to_json`` gave."""
    clients: Sequence[str] | None = entry["clients"]
    return Charge(
        run=entry["run"],
        round_number=entry["round"],
        attempt=entry["attempt"],
        input_hash=entry["input_hash"],
        unit=entry["unit"],
        counts=Counter(events.from_json(entry["events"])),
        clients=None if clients is None else tuple(clients),
        note=entry["note"],
    )


def add_hash(hashes: list[str], entry: Mapping[str, Any]) -> None:
    """Appends the entry's hash, behind as many as it stands for."""
    stands_for = int(entry.get("covers_length", 0)) - len(hashes)
    hashes.extend([entry["hash"]] * stands_for)
    hashes.append(entry["hash"])


def complete_lines(content: bytes, path: Path) -> list[bytes]:
    """Lines without their ends; raises LedgerError where the last one is torn."""
    *lines, rest = content.split(b"\n")
    if rest:
        raise LedgerError(f"{path}: the last entry is incomplete. {_REPAIR}")
    return lines
