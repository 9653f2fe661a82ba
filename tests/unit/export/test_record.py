from pathlib import Path

import pytest

from fedtrain.core.errors import ConfigError, TamperedReleaseError
from fedtrain.export.record import RECORD, read_record


@pytest.mark.parametrize("content", ["", '{"name": "cut', '{"name": "half"}'])
def test_a_damaged_record_is_not_what_was_released(
    tmp_path: Path, content: str
) -> None:
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(TamperedReleaseError, match=RECORD):
        read_record(tmp_path)


def test_another_version_of_the_record_is_named(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text('{"format_version": 2}')
    with pytest.raises(ConfigError, match="format_version"):
        read_record(tmp_path)


def test_a_folder_without_a_record_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no release"):
        read_record(tmp_path)
