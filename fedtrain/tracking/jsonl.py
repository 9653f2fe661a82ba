"""``metrics.jsonl``: one line of JSON for each round, for people and for programs."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtrain.core.errors import DataError
from fedtrain.core.files import write_atomically
from fedtrain.rounds.report import OnRound, RoundReport
from fedtrain.rounds.round import ServerState

RoundRecord = dict[str, Any]


def metrics_log(path: str | Path, *, first_round: int = 0) -> OnRound:
    """Writes each round's report to ``path``, one line at a time.

    Args:
      path: The file; its folder must exist.
      first_round: The first round that will be written. Lines of this and of later
        rounds, which a resumed run does again, are dropped first; 0 starts afresh.

    Returns:
      A callback for ``train(on_round=...)``. Every line has reached the operating
      system when it returns, so a killed process loses none.
    """
    path = Path(path)
    records = read_metrics(path) if path.exists() else []
    kept = [record for record in records if record["round_number"] < first_round]
    write_atomically(path, "".join(_line(record) for record in kept))

    def on_round(report: RoundReport, state: ServerState) -> None:
        del state
        with path.open("a", encoding="utf-8") as file:
            file.write(_line(report.as_dict()))

    return on_round


def read_metrics(path: str | Path) -> list[RoundRecord]:
    """The rounds written to ``path``, in order.

    A last line that a killed process left unfinished is skipped.

    Raises:
      DataError: If any other line cannot be read.
    """
    *lines, _torn = Path(path).read_text(encoding="utf-8").split("\n")
    return [_record(path, number, line) for number, line in enumerate(lines, start=1)]


def _record(path: str | Path, number: int, line: str) -> RoundRecord:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {number} is not JSON: {error}.") from error
    if not isinstance(record, dict) or "round_number" not in record:
        raise DataError(f"{path}, line {number} has no round_number: {line[:80]!r}.")
    return record


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The same with null where a number is not finite: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
