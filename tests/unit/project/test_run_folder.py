import json
from pathlib import Path

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.project.run_folder import RunFolder, existing_run, new_run_folder


def folder(runs: Path, *, started: str = "") -> RunFolder:
    made = new_run_folder(runs, "name", config="seed = 1\n", model_file=None)
    made.write_json(made.info, {"started": started})
    return made


def test_two_runs_in_one_second_have_folders_of_their_own(tmp_path: Path) -> None:
    assert folder(tmp_path).path != folder(tmp_path).path


def test_latest_is_the_run_that_started_last(tmp_path: Path) -> None:
    folder(tmp_path, started="2026-01-01")
    newest = folder(tmp_path, started="2026-01-03")
    folder(tmp_path, started="2026-01-02")
    assert existing_run("latest", runs_dir=tmp_path) == newest


def test_run_is_found_by_path_and_by_name(tmp_path: Path) -> None:
    made = folder(tmp_path)
    assert existing_run(made.path) == made
    assert existing_run(made.path.name, runs_dir=tmp_path) == made


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run"):
        existing_run("latest", runs_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"no federation\.toml"):
        existing_run(tmp_path)


def test_a_run_cannot_be_continued_twice_at_once(tmp_path: Path) -> None:
    made = folder(tmp_path)
    with made.locked(), pytest.raises(ConfigError, match="in use"), made.locked():
        pass


def test_json_of_a_run_that_has_none_yet_is_empty(tmp_path: Path) -> None:
    made = folder(tmp_path)
    assert made.read_json(made.summary) == {}
    made.write_json(made.summary, {"a": 1})
    assert json.loads(made.summary.read_text()) == {"a": 1}
