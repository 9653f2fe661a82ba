"""A federation in states that its operator's page has to show."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from aggregator.home import Federation as Home
from aggregator.page_state import Shown
from aggregator.traffic import PartnerSeen
from fedtrain.wire.plan import Plan, PlanPrivacy
from tests.unit.aggregator.light_round import (
    Collecting,
    arrays_of,
    call,
    opened,
    submit,
)
from tests.unit.aggregator.served_run import Federation, plan

NAMES = ("bank-a", "bank-b", "bank-c")
STATES = ("nothing admitted", "one is missing", "one is lost", "finished", "stopped")


def served_plan() -> Plan:
    """The light plan, with partners and a guarantee."""
    privacy = PlanPrivacy(
        unit="example",
        trust="local",
        neighboring_relation="add_or_remove_one",
        delta=1e-6,
        epsilon=8.0,
        mechanism={"name": "gaussian"},
        accountant="PLD",
    )
    task = {"sections": {"service": {"clients": list(NAMES)}}, "schema": {}}
    return plan().model_copy(update={"privacy": privacy, "task": task, "num_rounds": 5})


def write_run(folder: Path, rounds: int, *, status: str = "running") -> None:
    """A run's folder: with what was released, and with what was not."""
    folder.mkdir(parents=True, exist_ok=True)
    info = {"status": status, "started": "2026-11-22T01:00:00+00:00", "ledger": "x"}
    (folder / "run.json").write_text(json.dumps(info))
    lines = [
        {
            "round_number": number,
            "metrics": {
                "loss": 0.123456 + number,
                "test_loss": 0.7 - 0.05 * number,
                "test_accuracy": 0.7 + 0.02 * number,
            },
            "seconds": 3.1 + number,
            "lost_clients": ["bank-c"] if number == 2 else [],
            "spent_epsilon": 3.0 + 0.9 * number,
        }
        for number in range(rounds)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"round_num')
    secret = folder / "diagnostics-NOT-PRIVATE"
    secret.mkdir(exist_ok=True)
    (secret / "clients.json").write_text('{"bank-a": "SECRET-SCORE"}')


@contextlib.contextmanager
def shown_in(state: str, folder: Path) -> Iterator[Shown]:
    """What the page looks at, in one of ``STATES``."""
    federation = Federation.of(folder, () if state == STATES[0] else NAMES)
    journal, rounds = opened(folder)
    home = Home(folder, folder / "federation.toml", "North Bank")
    now = 1000 * 60 * 60 * 24 * 365 * 60
    seen = {name: PartnerSeen(now, "", "fedtrain 0.1") for name in NAMES}
    shown = Shown(home, served_plan(), federation.authority, rounds, seen)
    collecting = None
    try:
        if state in STATES[1:3]:
            write_run(home.runs / "run", 2)
            round_call = call(NAMES, round_number=2)
            collecting = Collecting(rounds, round_call)
            submit(rounds, "bank-a", arrays_of("bank-a", 2), round_number=2)
            last = arrays_of("bank-b", 2)
            if state == STATES[2]:
                last[0][0, 0] = float("nan")
            submit(rounds, "bank-b", last, round_number=2)
        elif state in STATES[3:]:
            write_run(home.runs / "run", 5, status=state)
            rounds.finish(state, "all 5 rounds are done")
        yield shown
    finally:
        rounds.stop()
        with contextlib.suppress(Exception):
            if collecting is not None:
                collecting.done()
        journal.close()
