"""How long partners are without the aggregator after kill -9, with TensorFlow and all.

Seconds are of the clock; on a busy machine those of the processor say more.

python -m simulations.reliability.recovery --kills 20
"""

import argparse
import contextlib
import json
import os
import sqlite3
import ssl
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from aggregator.home import federation_in
from fedtrain.core.errors import FedtrainError
from simulations.reliability.programs import Program, Site
from simulations.reliability.trial import AGGREGATOR

_PARTNERS = ("bank-a", "bank-b", "bank-c")
_GIVE_UP_S = 1800.0
_SERVICE = """\
deadline_s = 60.0
max_deadlines = 1000
further_attempts = 1
"""
_Found = TypeVar("_Found")


def main() -> None:
    """Prints a line for each kill, and the 95th percentiles."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of kills")
    options = parser.parse_args()
    chance = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as base, contextlib.ExitStack() as stack:
        site = Site(Path(base) / "site", _PARTNERS)
        site.make(num_rounds=100_000, is_private=False, service=_SERVICE)
        aggregator = site.begin(AGGREGATOR)
        stack.callback(lambda: aggregator.kill())
        for name in _PARTNERS:
            stack.callback(site.begin(name).kill)
        _until(lambda: _opened(site, 0), aggregator)
        found = []
        for _ in range(options.kills):
            time.sleep(chance.uniform(0.5, 4.0))
            aggregator.kill()
            aggregator, seconds = _restarted(site)
            found.append(seconds)
            print(json.dumps(seconds), flush=True)
    for name in found[0]:
        values = [seconds[name] for seconds in found]
        print(name, {f"p{p}": round(np.percentile(values, p), 1) for p in (50, 95)})


def _restarted(site: Site) -> tuple[Program, dict[str, float]]:
    """Starts the aggregator again; how long it took to answer, and to open a round."""
    last = _opened(site, 0) or 0
    begun = time.monotonic()
    aggregator = site.begin(AGGREGATOR)
    found = {}
    looks = {"answers": lambda: _status(site), "opens": lambda: _opened(site, last)}
    for name, look in looks.items():
        _until(look, aggregator)
        found[f"{name}_s"] = round(time.monotonic() - begun, 2)
        found[f"{name}_processor_s"] = _processor_s(aggregator.pid)
    return aggregator, found


def _processor_s(pid: int) -> float:
    """What a process has used so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(site: Site) -> object | None:
    """What the operator's page says of the run; None while nobody answers."""
    federation = federation_in(site.home)
    pem = federation.authority().authority_pem.decode()
    token = federation.page_token.read_text().strip()
    _, _, port = site.page.rpartition(":")
    request = urllib.request.Request(
        f"https://localhost:{port}/status.json",
        headers={"Authorization": f"Bearer {token}"},
    )
    context = ssl.create_default_context(cadata=pem)
    try:
        with urllib.request.urlopen(request, timeout=5.0, context=context) as answer:
            return json.load(answer)
    except OSError:
        return None


def _opened(site: Site, last: int) -> int | None:
    """The sequence of the newest opening of a round after event ``last``."""
    query = (
        "SELECT max(sequence) FROM fedtrain_events "
        "WHERE kind = 'collecting' AND sequence > ?"
    )
    path = site.home / "journal" / "journal.sqlite"
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        with contextlib.closing(connection):
            return connection.execute(query, [last]).fetchone()[0]
    except sqlite3.OperationalError:  # not there yet, or being recovered
        return None


def _until(look: Callable[[], _Found | None], aggregator: Program) -> _Found:
    give_up = time.monotonic() + _GIVE_UP_S
    while time.monotonic() < give_up:
        found = look()
        if found is not None:
            return found
        if aggregator.poll() is not None:
            raise FedtrainError(f"The aggregator ended: {aggregator.exitcode}.")
        time.sleep(0.05)
    raise FedtrainError(f"Nothing came within {_GIVE_UP_S:g} s.")


if __name__ == "__main__":
    main()
