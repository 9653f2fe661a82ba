import hashlib
import hmac

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedtrain.core.errors import ConfigError
from fedtrain.core.keystream import KeyStream, new_key

KEY = bytes(range(32))


def test_words_are_aes_in_counter_mode_under_the_hkdf_of_the_key():
    extracted = hmac.digest(bytes(32), KEY, hashlib.sha256)
    info = b"\x03\x00\x00\x00str\x05\x00\x00\x00roundint".replace(
        b"int", b"\x03\x00\x00\x00int\x01\x00\x00\x007"
    )
    derived = hmac.digest(extracted, info + b"\x01", hashlib.sha256)
    block = Cipher(algorithms.AES(derived), modes.ECB()).encryptor()
    counters = (0).to_bytes(16, "big") + (1).to_bytes(16, "big")
    expected = np.frombuffer(block.update(counters), "<u8")
    np.testing.assert_array_equal(KeyStream(KEY, "round", 7).words(4), expected)


def test_a_stream_goes_on_where_it_ended():
    stream = KeyStream(KEY, "a")
    parts = [stream.words(num) for num in (1, 2, 5)]
    np.testing.assert_array_equal(np.concatenate(parts), KeyStream(KEY, "a").words(8))


@pytest.mark.parametrize(
    "labels", [(), ("a", "b"), ("ab",), ("1",), (1,), (b"1",)], ids=str
)
def test_other_labels_give_other_words(labels):
    others = {(), ("a", "b"), ("ab",), ("1",), (1,), (b"1",)} - {labels}
    own = KeyStream(KEY, *labels).words(2).tobytes()
    assert all(KeyStream(KEY, *other).words(2).tobytes() != own for other in others)


def test_keys_come_from_the_operating_system_and_are_not_shown():
    assert new_key() != new_key()
    assert KEY.hex() not in repr(KeyStream(KEY))


def test_a_key_of_another_length_is_refused():
    with pytest.raises(ConfigError, match="32 bytes"):
        KeyStream(b"short")
