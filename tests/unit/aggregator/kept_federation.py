"""An operator's folder as a run leaves it, without having trained anything."""

import json
from collections import Counter
from pathlib import Path

from aggregator.events import Draft
from aggregator.home import Federation, found
from aggregator.journal import Journal
from fedtrain.privacy.ledger import Charge, Ledger
from fedtrain.project.run_folder import RunFolder
from tests.unit.aggregator.served_run import Federation as Identities
from tests.unit.aggregator.served_run import plan

RUN = "light-20261122-010000-0123abcd"
PROJECT = """\
name = "light"
seed = 0

[data]
path = "rows.csv"
schema_path = "schema.json"

[model]
name = "dense_classifier"

[rounds]
num_rounds = 3

[client]
learning_rate = 0.1
batch_size = 5
local_epochs = 1

[service]
clients = ["bank-a", "bank-b"]
rows_per_client = 10
"""


def kept(folder: Path) -> Federation:
    """A federation with a run: one committed round, an open one, and a ledger."""
    home = Federation(folder / "home", folder / "federation.toml", "Test")
    home.path.mkdir(mode=0o700)
    home.project.write_text(PROJECT)
    (folder / "schema.json").write_text("{}")
    Identities.of(home.path, ["bank-a", "bank-b"])
    home.write_plan(plan())
    found(home)
    (home.path / "run.json").write_text(json.dumps({"run_id": RUN}))
    run = RunFolder(home.runs / RUN)
    run.checkpoints.mkdir(parents=True)
    run.config.write_text("settings")
    ledger = folder / "state" / "ledgers" / "rows.jsonl"
    facts = {"status": "running", "ledger": str(ledger), "started": "2026-11-22T01:00"}
    run.write_json(run.info, facts | {"project_sha256": run.project_sha256()})
    spend(ledger, 0)
    write_journal(home)
    return home


def spend(ledger: Path, round_number: int) -> None:
    """Charges a round to the ledger."""
    charge = Charge(
        run=RUN,
        round_number=round_number,
        attempt=0,
        input_hash="00",
        unit="example",
        counts=Counter(),
        clients=("bank-a", "bank-b"),
    )
    assert Ledger(ledger).charge(charge)


def write_journal(home: Federation, state_sha256: str = "ab" * 32) -> None:
    """Round 0 is committed, round 1 is open, with one contribution."""
    journal = Journal(home.journal)
    try:
        journal.append([*_opened(0), _event(0, "accepted", **_from("bank-a"))])
        journal.append([_event(0, "accepted", **_from("bank-b"))])
        both = ["bank-a", "bank-b"]
        journal.append([_event(0, "closed", accepted=both, lost={})])
        journal.append([_event(0, "committed", state_sha256=state_sha256)])
        journal.append([*_opened(1), _event(1, "accepted", **_from("bank-a"))])
    finally:
        journal.close()


def _from(client: str) -> dict:
    return {"client": client, "sha256": "cd" * 32, "sequence": 7}


def _opened(number: int) -> list[Draft]:
    cohort = ["bank-a", "bank-b"]
    configured = {"broadcast_bytes": 4, "broadcast_sha256": "ef" * 32, "info": {}}
    collecting = {
        "report_goal": 2,
        "least_reports": 1,
        "deadline_unix_ms": 0,
        "num_deadlines": 1,
    }
    return [
        _event(number, "planned", cohort=cohort, contribution=[[[3], "float32"]]),
        _event(number, "configured", **configured),
        _event(number, "collecting", **collecting),
    ]


def _event(number: int, kind: str, **body) -> Draft:
    return Draft(RUN, number, 0, kind, {"task": "train", **body}, 1_800_000_000_000)
