import errno
from pathlib import Path

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.export.release_folder import new_release


def test_release_appears_whole_under_the_next_number(tmp_path: Path) -> None:
    (tmp_path / "4").mkdir()
    with new_release(tmp_path) as (aside, version):
        (aside / "model").write_text("weights")
        assert version == 5
        assert not (tmp_path / "5").exists()
        # TensorFlow Serving takes every folder with a number for a version.
        assert not aside.name.isdecimal()
    assert (tmp_path / "5" / "model").read_text() == "weights"


def test_failed_release_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_release(tmp_path) as (aside, _):
        (aside / "model").write_text(f"half of it: {1 / 0}")
    assert [path.name for path in tmp_path.iterdir()] in ([".lock"], [])


def test_what_a_killed_export_left_is_taken_away(tmp_path: Path) -> None:
    left = tmp_path / ".1.12345.tmp" / "server"
    left.mkdir(parents=True)
    with new_release(tmp_path) as (aside, _):
        (aside / "model").write_text("weights")
    found = {path.name for path in tmp_path.iterdir()}
    assert found - {".lock", ".last_version"} == {"1"}


def test_number_of_a_removed_folder_is_not_used_again(tmp_path: Path) -> None:
    for expected in (1, 2):
        with new_release(tmp_path) as (_, version):
            assert version == expected
        (tmp_path / str(version)).rmdir()


def test_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(ConfigError, match="make room"), new_release(tmp_path):
        raise full
    assert not [path for path in tmp_path.iterdir() if path.name != ".lock"]
