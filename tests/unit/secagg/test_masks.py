import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from fedtrain.core.errors import WireError
from fedtrain.secagg import masks

SESSION = bytes(32)


def streams(pair_secret=b"p" * 32, seed=b"s" * 32, session=SESSION):
    pair = masks.pair_mask(pair_secret, session=session, pair=("ada", "bob"))
    return masks.self_mask(seed, session=session, client_id="ada"), pair


@pytest.mark.parametrize("length", [1, 2, 7, masks.CHUNK_WORDS, masks.CHUNK_WORDS + 3])
def test_what_one_adds_the_other_takes_away(length):
    vector = np.arange(length, dtype=np.uint32)
    expected = vector.copy()
    masks.apply(vector, added=[streams()[1]], removed=[])
    assert length < 7 or not np.array_equal(vector, expected)
    masks.apply(vector, added=[], removed=[streams()[1]])
    np.testing.assert_array_equal(vector, expected)


def test_of_a_pair_exactly_one_adds():
    assert masks.is_added("ada", "bob")
    assert not masks.is_added("bob", "ada")


def test_both_ends_of_a_pair_have_one_mask_and_a_third_has_another():
    ada, bob, eve = (X25519PrivateKey.generate() for _ in range(3))
    words = [
        masks.pair_mask(own.exchange(peer.public_key()), session=SESSION, pair=pair)
        .words(4)
        .tolist()
        for own, peer, pair in (
            (ada, bob, ("ada", "bob")),
            (bob, ada, ("bob", "ada")),
            (eve, bob, ("bob", "ada")),
        )
    ]
    assert words[0] == words[1] != words[2]


def test_masks_differ_by_session_kind_and_client():
    first = masks.self_mask(b"k" * 32, session=SESSION, client_id="ada")
    others = [
        masks.self_mask(b"k" * 32, session=b"\1" * 32, client_id="ada"),
        masks.self_mask(b"k" * 32, session=SESSION, client_id="bob"),
        masks.pair_mask(b"k" * 32, session=SESSION, pair=("ada", "bob")),
        masks.pair_mask(b"k" * 32, session=SESSION, pair=("ada", "cyd")),
        masks.pair_mask(b"k" * 32, session=b"\1" * 32, pair=("ada", "bob")),
    ]
    words = {stream.words(4).tobytes() for stream in (first, *others)}
    assert len(words) == 6


def test_a_masked_vector_is_uniform():
    # Zeros under one mask: 2^20 bytes over 256 values, chi-square with 255 degrees.
    vector = np.zeros(2**18, np.uint32)
    masks.apply(vector, added=[streams()[0]], removed=[])
    counts = np.bincount(vector.view(np.uint8), minlength=256)
    chi_square = float(((counts - 2**12) ** 2 / 2**12).sum())
    # Key and labels are fixed, so this value is too; a random one lies outside
    # (150, 390) with a chance of 2e-8.
    assert 150 < chi_square < 390


def test_words_cross_the_wire_in_parts_of_any_size():
    vector = np.arange(masks.CHUNK_WORDS + 5, dtype=np.uint32)
    data = b"".join(masks.content(vector))
    assert data[4:8] == b"\1\0\0\0"
    parts = [data[:1], data[1:99_999], data[99_999:]]
    arrived, digest = masks.received(parts, vector.size)
    np.testing.assert_array_equal(arrived, vector)
    assert digest == masks.content_sha256(vector)


@pytest.mark.parametrize("parts", [[], [b"1234567"], [b"12345678", b"9"]])
def test_words_of_another_length_are_refused(parts):
    with pytest.raises(WireError, match="8 bytes"):
        masks.received(parts, 2)
