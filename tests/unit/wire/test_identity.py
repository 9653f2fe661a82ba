import datetime
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.core.errors import IdentityError
from fedtrain.wire.identity import (
    fingerprint,
    key_pem,
    key_text,
    keys_in,
    needs_renewal,
    new_keys,
    public_key_from,
    store_tls_pair,
    tls_pair_in,
)

NOW = datetime.datetime.now(datetime.UTC)


def test_keys_are_their_owners_alone_and_are_kept(tmp_path):
    home = tmp_path / "bank-a"
    first = new_keys(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    assert modes == {"identity.pem": 0o600, "tls.pem": 0o600}
    assert new_keys(home).identity_text == first.identity_text
    assert keys_in(home).tls.public_key() == first.tls.public_key()


def test_what_others_may_read_is_refused(tmp_path):
    home = tmp_path / "bank-a"
    new_keys(home)
    (home / "identity.pem").chmod(0o640)
    with pytest.raises(IdentityError, match="chmod 600"):
        keys_in(home)
    home.chmod(0o755)
    with pytest.raises(IdentityError, match="chmod 700"):
        new_keys(home)


def test_the_file_that_is_read_is_the_one_that_was_looked_at(tmp_path, monkeypatch):
    home = tmp_path / "bank-a"
    new_keys(home)
    private = (home / "tls.pem").stat()
    (home / "identity.pem").chmod(0o644)
    # As if another file had been there when its mode was asked for by name.
    monkeypatch.setattr(type(home), "stat", lambda path, **options: private)
    with pytest.raises(IdentityError, match="chmod 600"):
        keys_in(home)


@pytest.mark.parametrize("name", ["identity.pem", "tls.pem"])
def test_damaged_keys_are_named_but_not_quoted(tmp_path, name):
    keys = new_keys(tmp_path / "bank-a")
    path = tmp_path / "bank-a" / name
    content = path.read_text()
    secret = content.splitlines()[1]
    path.write_text(content.replace("PRIVATE", "PIRATE"))
    with pytest.raises(IdentityError, match="holds no private key") as caught:
        keys_in(tmp_path / "bank-a")
    told = f"{caught.value!r} {caught.value.__context__!r} {keys!r}"
    assert secret not in told
    path.unlink()
    with pytest.raises(IdentityError, match="cannot be read"):
        keys_in(tmp_path / "bank-a")


def test_swapped_files_are_refused(tmp_path):
    new_keys(tmp_path / "bank-a")
    identity, tls = (tmp_path / "bank-a" / n for n in ("identity.pem", "tls.pem"))
    one, other = identity.read_bytes(), tls.read_bytes()
    identity.write_bytes(other)
    tls.write_bytes(one)
    with pytest.raises(IdentityError, match="no Ed25519 key"):
        keys_in(tmp_path / "bank-a")
    with pytest.raises(IdentityError, match="no ECDSA key"):
        tls_pair_in(tls)


def test_a_pair_is_one_file_and_shows_no_key(federation, tmp_path):
    keys = keys_in(federation.home)
    path = tmp_path / "tls.pem"
    store_tls_pair(path, keys.tls, federation.invitation.certificate)
    pair = tls_pair_in(path)
    assert pair.certificate_pem.decode() == federation.invitation.certificate
    assert pair.key_pem == key_pem(keys.tls)
    assert "PRIVATE" not in repr(pair)
    with pytest.raises(IdentityError, match="another key"):
        store_tls_pair(
            path,
            ec.generate_private_key(ec.SECP256R1()),
            federation.invitation.certificate,
        )
    path.write_bytes(key_pem(keys.tls))
    with pytest.raises(IdentityError, match="no certificate yet"):
        tls_pair_in(path)


def test_renewal_is_due_in_the_last_third(federation):
    pem = federation.invitation.certificate
    assert not needs_renewal(pem, now=NOW + datetime.timedelta(days=55))
    assert needs_renewal(pem, now=NOW + datetime.timedelta(days=65))


def test_fingerprints_are_words_and_tell_keys_apart():
    one = Ed25519PublicKey.from_public_bytes(bytes(31) + b"\x01")
    other = Ed25519PublicKey.from_public_bytes(bytes(31) + b"\x02")
    words = fingerprint(one).split("-")
    assert [len(word) for word in words] == [5] * 8
    assert fingerprint(one) != fingerprint(other)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), st.binary(min_size=32, max_size=32)))
def test_any_text_is_the_one_text_of_a_key_or_refused(text):
    if isinstance(text, bytes):
        text = key_text(Ed25519PublicKey.from_public_bytes(text))
        assert key_text(public_key_from(text)) == text
        return
    with pytest.raises(IdentityError):
        public_key_from(text)
