import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.secagg import shamir

# Wikipedia, "Shamir's secret sharing": secret 1234, prime 1613, 3 of 6.
PUBLISHED_COEFFICIENTS = [1234, 166, 94]
PUBLISHED_SHARES = {1: 1494, 2: 329, 3: 965, 4: 176, 5: 1188, 6: 775}


@pytest.mark.parametrize(("point", "share"), PUBLISHED_SHARES.items())
def test_published_shares(point, share):
    assert shamir.value_at(point, PUBLISHED_COEFFICIENTS, 1613) == share


@pytest.mark.parametrize("points", [(2, 4, 5), (1, 2, 3), (6, 1, 4), (1, 2, 3, 4)])
def test_published_shares_give_the_published_secret(points):
    shares = {point: PUBLISHED_SHARES[point] for point in points}
    assert shamir.value_at_zero(shares, 1613) == 1234


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_threshold_of_shares_gives_the_secret_back(data):
    num_holders = data.draw(st.integers(1, 50))
    threshold = data.draw(st.integers(1, num_holders))
    secret = data.draw(st.binary(min_size=32, max_size=32))
    shares = shamir.split(secret, points=range(1, num_holders + 1), threshold=threshold)
    points = data.draw(st.permutations(sorted(shares)))[:threshold]
    assert shamir.join({p: shares[p] for p in points}, threshold=threshold) == secret


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32])
def test_the_least_and_the_greatest_secret(secret):
    shares = shamir.split(secret, points=(1, 2, 3), threshold=2)
    assert {len(share) for share in shares.values()} == {shamir.SHARE_BYTES}
    assert shamir.join(shares, threshold=2) == secret


def test_fewer_shares_than_the_threshold_give_nothing():
    shares = shamir.split(bytes(32), points=(1, 2, 3), threshold=3)
    del shares[2]
    assert shamir.join(shares, threshold=3) is None


@pytest.mark.parametrize("threshold", [2, 3, 7])
def test_one_share_too_few_interpolates_to_another_secret(threshold):
    # By chance they would with a probability of 2^-256: a polynomial of lower degree
    # than it should have gives the secret away.
    secret = bytes(range(32))
    shares = shamir.split(secret, points=range(1, 8), threshold=threshold)
    for points in itertools.combinations(shares, threshold - 1):
        values = {point: int.from_bytes(shares[point], "big") for point in points}
        found = shamir.value_at_zero(values, shamir.PRIME)
        assert found != int.from_bytes(secret, "big")


def test_shares_of_no_secret_of_32_bytes_give_nothing():
    greatest = (shamir.PRIME - 1).to_bytes(shamir.SHARE_BYTES, "big")
    assert shamir.join({1: greatest, 2: greatest}, threshold=2) is None


def test_two_splittings_of_one_secret_differ():
    first, second = (
        shamir.split(bytes(32), points=(1,), threshold=2) for _ in range(2)
    )
    assert first != second


def test_the_modulus_is_a_prime_above_every_secret():
    # Fermat's test to 20 bases; OpenSSL's `prime` agrees.
    assert shamir.PRIME > 2**256
    assert all(pow(b, shamir.PRIME - 1, shamir.PRIME) == 1 for b in range(2, 22))
