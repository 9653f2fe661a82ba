"""Two of five partners are killed for good in the middle: does the run complete?

python -m simulations.reliability.gone_partners
"""

import contextlib
import json
import sqlite3
import tempfile
import time
from pathlib import Path

from fedtrain.core.errors import FedtrainError
from simulations.reliability.nursery import Nursery
from simulations.reliability.programs import Site
from simulations.reliability.trial import AGGREGATOR

_PARTNERS = ("bank-a", "bank-b", "bank-c", "bank-d", "bank-e")
_NUM_ROUNDS = 6
_SERVICE = """\
deadline_s = 10.0
max_deadlines = 1000
least_reports = 3
further_attempts = 1
"""
_GIVE_UP_S = 1800.0


def main() -> None:
    """Prints who was in the sum of each round, and how the run ended."""
    with (
        tempfile.TemporaryDirectory() as base,
        contextlib.closing(Nursery("simulations.reliability.trained")) as nursery,
    ):
        print(json.dumps(gone(Path(base) / "site", nursery), indent=2))


def gone(folder: Path, nursery: Nursery) -> dict[str, object]:
    """Runs five partners, kills two after the first round, and waits for the end.

    Raises:
      FedtrainError: If the run does not complete.
    """
    site = Site(folder, _PARTNERS, nursery)
    site.make(num_rounds=_NUM_ROUNDS, is_private=True, service=_SERVICE)
    begun = time.monotonic()
    aggregator = site.begin(AGGREGATOR)
    partners = {name: site.begin(name) for name in _PARTNERS}
    while aggregator.exitcode is None and time.monotonic() < begun + _GIVE_UP_S:
        if _sums(site):
            partners["bank-b"].kill()
            partners["bank-d"].kill()
        time.sleep(0.1)
        nursery.poll()
    if aggregator.exitcode != 0 or len(_sums(site)) != _NUM_ROUNDS:
        raise FedtrainError(
            f"It did not complete: {aggregator.exitcode}, {_sums(site)}"
        )
    seconds = round(time.monotonic() - begun, 1)
    return {"killed": ["bank-b", "bank-d"], "sums": _sums(site), "seconds": seconds}


def _sums(site: Site) -> list[list[str]]:
    """Whose contributions are in each closed round."""
    path = site.home / "journal" / "journal.sqlite"
    query = "SELECT body FROM fedtrain_events WHERE kind = 'closed' ORDER BY sequence"
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        with contextlib.closing(connection):
            rows = connection.execute(query).fetchall()
    except sqlite3.OperationalError:  # not there yet
        return []
    return [json.loads(body)["accepted"] for (body,) in rows]


if __name__ == "__main__":
    main()
