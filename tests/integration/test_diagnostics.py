"""``fedtrain simulate --diagnostics``: exact figures, and where they do not go."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedtrain.cli.main import run as run_command

SMALL = [
    "data.num_clients=3",
    "rounds.num_rounds=2",
    "tracking.tensorboard=false",
]
PRIVATE = [*SMALL, "data.sensitivity=private"]
FOLDER = "diagnostics-NOT-PRIVATE"


@pytest.fixture
def simulate(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., Any]:
    """Runs the command; gives the run's folder (None on failure) and the errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))

    def run(settings: list[str], *more: str, expect: int = 0) -> tuple[Any, str]:
        words = [word for setting in settings for word in ("-s", setting)]
        code = run_command(["simulate", *words, "--format", "json", *more])
        output, errors = capsys.readouterr()
        assert code == expect, errors
        values = json.loads(output)
        if expect:
            return None, values["error"]["message"]
        return tmp_path / values["run"], errors

    return run


def numbers(values: Any) -> Iterator[float]:
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list):
        for value in values:
            yield from numbers(value)
    elif isinstance(values, float) and len(str(values)) > 8:
        yield values  # short ones, such as 0.5, are found anywhere


def test_private_data_get_exact_figures_on_request_in_a_folder_of_their_own(
    simulate: Any,
) -> None:
    run, errors = simulate(PRIVATE)
    assert "NOT PRIVATE" not in errors
    assert not (run / FOLDER).exists()
    before = json.loads((run / "privacy_report.json").read_text())
    assert before["data"]["diagnostics"] == "none were asked for"

    again, errors = simulate([], "--resume", str(run), "--diagnostics")
    assert again == run
    assert f"NOT PRIVATE: {run / FOLDER} " in errors
    assert (run / FOLDER / "README.txt").read_text().startswith("NOT PRIVATE.")
    compared = json.loads((run / FOLDER / "comparison.json").read_text())
    assert [row["name"] for row in compared["comparison"]] == [
        "federated, with privacy",
        "federated, without privacy",
        "each client alone, without privacy",
    ]
    clients = json.loads((run / FOLDER / "clients.json").read_text())
    assert len(clients["training_rows"]["scores"]) == 3
    exact = {str(number) for number in numbers([compared, clients])}
    assert len(exact) > 8
    for path in run.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".html") and path.parent.name != FOLDER:
            text = path.read_text("utf-8")
            assert not [number for number in exact if number in text], path

    simulate([], "--resume", str(run))
    after = json.loads((run / "privacy_report.json").read_text())
    said = after["data"]["diagnostics"]
    assert "computed from the private data on this machine" in said
    assert after["epsilon"] == before["epsilon"]


def test_public_data_have_nothing_to_add(tmp_path: Path, simulate: Any) -> None:
    _, message = simulate(SMALL, "--diagnostics", expect=2)
    assert "declared public" in message
    assert not (tmp_path / "runs").exists()
