"""What the operator's commands print for people, line by line."""

import json

import pytest

from aggregator.cli import main
from aggregator.seen import write_seen
from aggregator.traffic import PartnerSeen
from tests.unit.aggregator.kept_federation import RUN, kept


@pytest.fixture
def home(tmp_path):
    return kept(tmp_path)


@pytest.fixture
def said(home, capsys):
    """Runs a command; gives its exit code, and what it printed."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main([*arguments, "--home", str(home.path)])
        printed = capsys.readouterr()
        return stop.value.code, printed.out + printed.err

    return run


def cells(text, first):
    """The cells of the table's row that begins with ``first``."""
    rows = [[c.strip() for c in line.split("│")[1:-1]] for line in text.splitlines()]
    return next(row for row in rows if row and row[0] == first)


def test_status_counts_rounds_from_one_and_says_who_is_missing_since_when(home, said):
    code, text = said("status")
    assert code == 0
    assert f"{RUN}: waiting for bank-b" in text
    assert cells(text, "2")[2:5] == ["collecting", "bank-a", "bank-b (never seen)"]
    write_seen(home.seen, {"bank-b": PartnerSeen(1_800_000_000_000)})
    row = cells(said("status")[1], "2")
    assert row[4] == "bank-b (last seen 2027-01-15 08:00:00 UTC)"


def test_a_round_without_scores_keeps_its_epsilon_in_its_own_column(home, said):
    rows = [
        {"round_number": 0, "metrics": {}, "spent_epsilon": 1.25},
        {"round_number": 1, "metrics": {"test_loss": 0.5}, "spent_epsilon": 2.5},
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (home.runs / RUN / "metrics.jsonl").write_text(lines)
    _, text = said("runs", "show")
    assert cells(text, "1")[:3] == ["1", "", "1.25"]
    assert cells(text, "2")[:3] == ["2", "0.5", "2.5"]
    assert cells(said("runs", "list")[1], RUN)[2:5] == ["2026-11-22 01:00", "2", "2.5"]


def test_before_the_first_run_nothing_is_looked_for(home, said):
    (home.path / "run.json").unlink()
    code, text = said("runs", "show")
    assert (code, "serve` begins one" in text) == (2, True)
    assert said("audit", "heads") == (0, "Nobody has sent a head yet.\n")


def test_finishing_no_replacement_says_so(said):
    code, text = said("authority", "finish")
    assert code == 0
    assert "No authority is being replaced" in text
