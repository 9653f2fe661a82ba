import itertools

from fedtrain.secagg.dealing import (
    NONCE_BYTES,
    BoxRoute,
    HeldShares,
    SessionSecrets,
    Share,
)
from fedtrain.secagg.shamir import SHARE_BYTES

SHARES = HeldShares(
    Share(b"s" * SHARE_BYTES, b"n" * NONCE_BYTES),
    Share(b"k" * SHARE_BYTES, b"m" * NONCE_BYTES),
)
PAIRS = (("ada", "bob"), ("bob", "ada"), ("ada", "cyd"), ("ad", "abob"))
ROUTES = [BoxRoute(session, *pair) for session in (b"1", b"2") for pair in PAIRS]


def test_each_box_has_a_key_of_its_own():
    # Both boxes of a pair are made of one secret, and the cipher's nonce is constant.
    secret = bytes(32)
    assert len({route.key(secret) for route in ROUTES}) == len(ROUTES)


def test_a_box_opens_on_its_own_route_only_even_under_its_key():
    key = ROUTES[0].key(bytes(32))
    box = ROUTES[0].sealed(key, SHARES)
    assert ROUTES[0].opened(key, box) == SHARES
    assert all(route.opened(key, box) is None for route in ROUTES[1:])


def test_secrets_of_two_sessions_have_nothing_in_common():
    first, second = (
        {one.seed, one.masking_bytes, one.encryption.private_bytes_raw()}
        for one in (SessionSecrets(), SessionSecrets())
    )
    assert len(first) == len(second) == 3
    assert not first & second


def test_secrets_are_not_shown_by_accident():
    own = SessionSecrets()
    texts = [repr(own), repr(SHARES), repr(own.shared_with(SessionSecrets().public))]
    hidden = [own.seed, own.masking_bytes, *itertools.chain(*SHARES)]
    for text, secret in itertools.product(texts, hidden):
        assert repr(secret)[2:-1] not in text
