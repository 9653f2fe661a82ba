import shutil
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.export import node
from fedtrain.export.tfjs_files import (
    FOLDER_VARIABLE,
    PACKAGES,
    check_tfjs,
    tarball_folder,
    write_tfjs,
)


def test_changed_tarball_is_refused_and_nothing_of_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_tfjs()
    package = PACKAGES[-1]
    copy = shutil.copytree(tarball_folder(), tmp_path / "tarballs")
    content = bytearray((copy / package.tarball).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / package.tarball).write_bytes(content)
    monkeypatch.setenv(FOLDER_VARIABLE, str(copy))
    with pytest.raises(ConfigError, match=f"{package.tarball} as it was published"):
        check_tfjs()
    with pytest.raises(ConfigError, match="nothing of it was used"):
        write_tfjs(tmp_path / "tfjs")
    assert not (tmp_path / "tfjs").exists()


def test_changed_download_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong").write_bytes(b"not a tarball")
    wrong = (tmp_path / "wrong").as_uri()
    opened = urllib.request.urlopen
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: opened(wrong))
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "tarballs"))
    with pytest.raises(ConfigError, match=r"registry\.npmjs\.org.* is not tfjs-core"):
        check_tfjs()
    assert not (tmp_path / "tarballs").exists()


def test_without_a_network_it_says_where_to_put_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(url: str, timeout: float) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(ConfigError, match=f"put that file into {tmp_path}"):
        check_tfjs()


def test_without_node_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"fedtrain\[export\]"):
        node.node_program()
