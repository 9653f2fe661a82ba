import json

import pytest

from fedtrain.core.errors import DataError
from fedtrain.rounds.report import RoundReport
from fedtrain.tracking.jsonl import metrics_log, read_metrics


def write_rounds(path, numbers, *, first_round=0):
    log = metrics_log(path, first_round=first_round)
    for number in numbers:
        log(RoundReport(round_number=number, metrics={"loss": number / 2}), None)


def rounds_of(path):
    return [record["round_number"] for record in read_metrics(path)]


def test_one_line_for_each_round(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_rounds(path, range(3))
    lines = path.read_text().splitlines()
    assert [json.loads(line)["metrics"]["loss"] for line in lines] == [0.0, 0.5, 1.0]


def test_resuming_drops_rounds_that_are_done_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_rounds(path, range(5))
    write_rounds(path, [3], first_round=3)
    assert rounds_of(path) == [0, 1, 2, 3]


def test_a_new_run_starts_afresh(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_rounds(path, range(5))
    write_rounds(path, [0])
    assert rounds_of(path) == [0]


def test_a_torn_last_line_is_skipped_and_overwritten(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_rounds(path, range(2))
    path.write_text(path.read_text() + '{"round_number": 2, "met')
    assert rounds_of(path) == [0, 1]
    write_rounds(path, [2], first_round=2)
    assert rounds_of(path) == [0, 1, 2]


def test_a_damaged_line_inside_is_an_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"round_number": 0}\n{"round\n{"round_number": 2}\n')
    with pytest.raises(DataError, match="line 2"):
        read_metrics(path)


def test_not_a_number_becomes_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = metrics_log(path)
    log(RoundReport(round_number=0, metrics={"loss": float("nan")}), None)
    assert read_metrics(path)[0]["metrics"] == {"loss": None}
