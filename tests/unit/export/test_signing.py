from pathlib import Path

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.export import signing


def test_key_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "config" / "key.pem"
    first = signing.signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert signing.public_text(signing.signing_key(path)) == signing.public_text(first)
    assert [file.name for file in path.parent.iterdir()] == ["key.pem"]


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    signing.signing_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        signing.signing_key(path)


def test_file_that_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text("no key")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match="not a private key"):
        signing.signing_key(path)


def test_signature_holds_for_these_bytes_and_this_key_alone(tmp_path: Path) -> None:
    key = signing.signing_key(tmp_path / "key.pem")
    other = signing.signing_key(tmp_path / "other.pem")
    signature = signing.signature(key, b"content")
    public = signing.public_text(key)
    assert signing.is_signed(b"content", signature=signature, public_key=public)
    assert not signing.is_signed(b"Content", signature=signature, public_key=public)
    wrong = signing.public_text(other)
    assert not signing.is_signed(b"content", signature=signature, public_key=wrong)
    assert not signing.is_signed(b"content", signature="no", public_key=public)


def test_key_is_in_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert signing.key_path() == tmp_path / "fedtrain" / "signing_key.pem"
