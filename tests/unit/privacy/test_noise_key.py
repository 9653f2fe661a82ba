import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from fedtrain.core.errors import PrivacyError
from fedtrain.privacy.noise_key import forget_noise_key, noise_key, noise_key_path


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDTRAIN_STATE_DIR", str(tmp_path / "state"))
    return noise_key_path("credit/2024")


def test_a_key_is_made_once_for_its_owner_alone(path, tmp_path):
    key = noise_key(path)
    assert len(key) == 32
    assert path.is_relative_to(tmp_path / "state" / "noise")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert noise_key(path) == key
    assert os.listdir(path.parent) == [path.name]


def test_a_key_is_synced_before_it_is_given(path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_mode))
    noise_key(path)
    assert [stat.S_ISREG(mode) for mode in synced] == [True, False]


def test_all_that_ask_at_once_get_the_same_key(path):
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: noise_key(path), range(16)))
    assert len(set(keys)) == 1


def test_a_run_that_has_ended_has_no_key(path):
    first = noise_key(path)
    forget_noise_key(path)
    assert not path.exists()
    forget_noise_key(path)
    assert noise_key(path) != first


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o700])
def test_a_key_that_others_may_read_is_refused(path, mode):
    noise_key(path)
    path.chmod(mode)
    with pytest.raises(PrivacyError, match="read by others"):
        noise_key(path)


def test_a_key_of_another_length_is_refused(path):
    noise_key(path)
    path.write_bytes(b"short")
    with pytest.raises(PrivacyError, match="5 bytes"):
        noise_key(path)


def test_a_link_is_not_followed(path, tmp_path):
    path.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").write_bytes(bytes(32))
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        noise_key(path)
