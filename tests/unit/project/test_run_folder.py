import json
import re
from pathlib import Path

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.project.run_folder import RunFolder, existing_run, new_run_folder
from fedtrain.project.same_project import check_same_project


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


def test_runs_of_one_second_have_ids_of_their_own_in_any_folder(tmp_path: Path) -> None:
    names = {folder(tmp_path / name).path.name for name in ("one", "other")}
    assert len(names) == 2
    assert all(re.fullmatch(r"name-\d{8}-\d{6}-[0-9a-f]{8}", name) for name in names)


def test_edited_settings_or_model_are_refused(tmp_path: Path) -> None:
    made = folder(tmp_path)
    made.model.write_text("a = 1\n")
    made.write_json(made.info, {"project_sha256": made.project_sha256()})
    check_same_project(made)
    made.model.write_text("a = 2\n")
    with pytest.raises(ConfigError, match="start a new run"):
        check_same_project(made)
    made.model.write_text("a = 1\n")
    made.config.write_text("seed = 2\n")
    with pytest.raises(ConfigError, match="project_sha256"):
        check_same_project(made)
