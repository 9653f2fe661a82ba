"""What runs a round is held to what the plan promises."""

import pytest

from fedtrain.aggregation.fixed_point import FixedPoint
from fedtrain.core.errors import PrivacyError
from fedtrain.privacy.integer_gaussian import IntegerGaussian
from fedtrain.privacy.kept_promise import check_mechanisms
from fedtrain.privacy.plan import PrivacyPlan

SHARES = {"unit": "client", "trust": "distributed", "clipping_norm": 1.0}
SHARES |= {"noise_multiplier": 1.0, "num_rounds": 1, "num_clients": 3000}


def plan(relation):
    return PrivacyPlan(
        **SHARES,
        neighboring_relation=relation,
        delta=1e-5,
        sampling="full",
        num_units=3000,
        num_honest=30,
        num_in_sum=3000,
        expected_count=3000.0,
    )


@pytest.mark.parametrize("num_regions", [1, 100])
def test_shares_of_noise_do_not_add_or_remove_a_client(num_regions):
    shares = IntegerGaussian(
        **SHARES,
        grid=FixedPoint(num_weights=8),
        num_honest=30,
        num_regions=num_regions,
    )
    check_mechanisms(plan("replace_special"), (shares.mechanism(),))
    with pytest.raises(PrivacyError, match="Use 'replace_special'"):
        check_mechanisms(plan("add_or_remove_one"), (shares.mechanism(),))
