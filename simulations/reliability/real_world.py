"""The real programs as a ``World``: TensorFlow trains, and all is as it is deployed."""

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aggregator.audit import audit
from aggregator.home import current_run, federation_in
from clients.audit import entries, verify
from fedtrain.core.errors import ConfigError, FedtrainError
from fedtrain.privacy.ledger import Ledger
from simulations.reliability.nursery import Nursery
from simulations.reliability.programs import Site
from simulations.reliability.proxy import Proxy
from simulations.reliability.trial import AGGREGATOR, Process

_PARTNERS = ("bank-a", "bank-b", "bank-c")
_NUM_ROUNDS = 12
_SERVICE = """\
deadline_s = 20.0
max_deadlines = 100
"""
_REPEATS = "repeats_simulation = true\n"
_PRIVATE = "further_attempts = 20\n"
_Weights = list[npt.NDArray[Any]]


class Template:
    """A federation whose partners have approved, before its first round. Close it.

    Args:
      folder: New; the runs' folder is beside it.
      nursery: Of ``trained``.
      is_private: Whether noise is drawn for release; else the run repeats a
        simulation, so that any two of them end with the same weights.
    """

    def __init__(self, folder: Path, nursery: Nursery, *, is_private: bool) -> None:
        self.nursery = nursery
        self.path = folder / "made"
        self.site = Site(folder / "run", _PARTNERS, nursery)
        _, _, port = self.site.address.rpartition(":")
        self.proxy = Proxy(int(port), np.random.default_rng(0))
        self.site.make(
            num_rounds=_NUM_ROUNDS,
            is_private=is_private,
            service=_SERVICE + (_PRIVATE if is_private else _REPEATS),
            public_address=f"127.0.0.1:{self.proxy.port}",
        )
        # The project's path is in the federation: every run is at the same place.
        self.site.folder.rename(self.path)

    def close(self) -> None:
        """Gives the port back."""
        self.proxy.close()


class RealWorld:
    """One run.

    Args:
      template: What it begins with.
      expected: The weights of a run without faults; None if there is none like it.
    """

    partners = _PARTNERS
    pace = 5.0

    def __init__(self, template: Template, expected: _Weights | None) -> None:
        self.folder = template.site.folder
        self.proxy = template.proxy
        self._site = template.site
        self._nursery = template.nursery
        self._expected = expected
        self._num_backups = 0
        shutil.copytree(template.path, self.folder)

    def start(self, name: str, faults: dict[str, float]) -> Process:
        """See ``World.start``."""
        return self._site.begin(name, faults)

    def poll(self) -> None:
        """See ``World.poll``."""
        self._nursery.poll()

    def written_last(self) -> list[Path]:
        """See ``World.written_last``; takes a backup before, as an operator has one."""
        home = self._site.home
        if not (home / "run.json").exists():
            return []
        saved = self.folder / f"backup-{self._num_backups}"
        if self._site.run(AGGREGATOR, "backup", str(saved)) == 0:
            self._num_backups += 1
        newest = sorted(home.glob("runs/*/checkpoints/round-*.ckpt"))[-1:]
        journal = home / "journal"
        database = ("journal.sqlite", "journal.sqlite-wal", "journal.sqlite-shm")
        written = [journal / name for name in (*database, "journal.head")]
        return [*newest, *(path for path in written if path.exists())]

    def mend(self) -> str:
        """``repair``, else ``restore`` of the newest backup, as the message says."""
        if self._site.run(AGGREGATOR, "repair") == 0:
            return "(repaired)"
        saved = self.folder / f"backup-{self._num_backups - 1}"
        self._site.expect(AGGREGATOR, "restore", str(saved), "--only-journal")
        return "(restored)"

    def progress(self) -> Any:
        """Checkpoints, and what partners have noted of what left them."""
        checkpoints = self._site.home.glob("runs/*/checkpoints/*")
        logs = [self._site.partner_home(name) / "audit.jsonl" for name in _PARTNERS]
        found = []
        for path in [*checkpoints, *logs]:
            with contextlib.suppress(FileNotFoundError):
                found.append((str(path), path.stat().st_mtime_ns))
        return sorted(found)

    def is_at_rest(self, aggregator: Process, ended_with: int | None) -> bool:
        """See ``World.is_at_rest``: it ends, and refuses to begin again."""
        return _is_end(aggregator.exitcode) or _is_end(ended_with)

    def wrong_end(self, happened: list[str]) -> str:
        """See ``World.wrong_end``."""
        del happened
        damaged = [c for c in audit(federation_in(self._site.home)) if not c.ok]
        if damaged:
            return f"the audit found {damaged}"
        found = self.weights()
        if not all(np.isfinite(array).all() for array in found):
            return "the model is not finite"
        if self._expected is not None and not _equal(found, self._expected):
            return "the model is not the fault-free run's"
        return self._wrong_spending()

    def weights(self) -> _Weights:
        """Those that the run ended with."""
        federation = federation_in(self._site.home)
        run = federation.runs / str(current_run(federation))
        with np.load(run / "weights.npz", allow_pickle=False) as arrays:
            return [arrays[name] for name in sorted(arrays.files)]

    def _wrong_spending(self) -> str:
        for name in _PARTNERS:
            path = self._site.partner_home(name) / "audit.jsonl"
            verify(path)
            sent = [entry for entry in entries(path) if entry["what"] == "sending"]
            answers = {json.dumps([e[key] for key in _OF_AN_ANSWER]) for e in sent}
            (ledger,) = self._site.state(name).glob("ledgers/*.jsonl")
            paid = Ledger(ledger).head()["length"]
            if len({e["round"] for e in sent}) != _NUM_ROUNDS or paid < len(answers):
                return f"{name} paid for {paid} of {sorted(answers)}"
            epsilons = [entry["spent"]["epsilon"] or 0.0 for entry in sent]
            if epsilons != sorted(epsilons):
                return f"the epsilon of {name} went back: {epsilons}"
        return ""


_OF_AN_ANSWER = ("run", "round", "attempt", "kind", "broadcast")


def _is_end(exitcode: int | None) -> bool:
    return exitcode in (0, ConfigError.exit_code)


def _equal(found: _Weights, expected: _Weights) -> bool:
    if len(found) != len(expected):
        raise FedtrainError(f"{len(found)} arrays in place of {len(expected)}.")
    pairs = zip(found, expected, strict=True)
    return all(own.tobytes() == other.tobytes() for own, other in pairs)
