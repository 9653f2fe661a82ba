import stat
from pathlib import Path

import pytest

from fedtrain.core.files import write_atomically


def test_replaces_the_old_content_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "report.json"
    write_atomically(path, "old")
    write_atomically(path, b"new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_private_file_is_never_readable_by_others(tmp_path, monkeypatch):
    modes = []
    rename = Path.replace

    def watched(beside, path):
        modes.append(stat.S_IMODE(beside.stat().st_mode))
        return rename(beside, path)

    monkeypatch.setattr(Path, "replace", watched)
    path = tmp_path / "key.pem"
    path.write_text("old, and open")
    write_atomically(path, "new", mode=0o600)
    assert [*modes, stat.S_IMODE(path.stat().st_mode)] == [0o600, 0o600]


def test_a_failed_write_keeps_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "report.json"
    write_atomically(path, "old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
