import dp_accounting as dpa
import numpy as np
import pytest

from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError
from fedtrain.data.cohorts import (
    cyclic_sampler,
    full_participation,
    poisson_sampler,
    uniform_sampler,
)

SEED = seeds.root(1)
GAUSSIAN = dpa.GaussianDpEvent(1.0)
SAMPLERS = [
    uniform_sampler(cohort_size=7),
    poisson_sampler(sampling_rate=0.3),
    full_participation(),
    cyclic_sampler(cohort_size=3, min_separation=5),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_cohorts_are_sorted_distinct_and_repeatable(sampler):
    cohort = sampler.sample(40, SEED, 3)
    assert cohort.dtype == np.int64
    assert np.all(np.diff(cohort) > 0)
    assert set(cohort) <= set(range(40))
    np.testing.assert_array_equal(cohort, sampler.sample(40, SEED, 3))


@pytest.mark.parametrize("sampler", SAMPLERS[:2], ids=lambda s: s.name)
def test_each_round_draws_its_own_cohort(sampler):
    cohorts = {tuple(sampler.sample(40, SEED, number)) for number in range(5)}
    assert len(cohorts) == 5


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_cohort_size_is_the_expected_one_on_average(sampler):
    # Sum of 400 Poisson cohorts of 40: sd below 58, so 5 sd: false alarm below 1e-6.
    total = sum(len(sampler.sample(40, SEED, number)) for number in range(400))
    assert abs(total - 400 * sampler.expected_cohort_size(40)) < 290


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.name)
def test_participation_pattern_holds(sampler):
    num_rounds = 23
    rounds = [sampler.sample(40, SEED, number) for number in range(num_rounds)]
    for client in range(40):
        taken = [number for number, cohort in enumerate(rounds) if client in cohort]
        assert len(taken) <= sampler.max_participations(num_rounds)
        if len(taken) > 1:
            assert min(np.diff(taken)) >= sampler.min_separation


def test_cyclic_separation_survives_a_restart_with_another_seed():
    sampler = cyclic_sampler(cohort_size=4, min_separation=10)
    before = {*sampler.sample(40, SEED, 8), *sampler.sample(40, SEED, 9)}
    after = {*sampler.sample(40, seeds.root(2), 10), *sampler.sample(40, SEED, 11)}
    assert not before & after


@pytest.mark.parametrize(
    ("sampler", "population"),
    [(uniform_sampler(cohort_size=11), 10), (SAMPLERS[3], 10)],
)
def test_cohort_larger_than_the_population_is_refused(sampler, population):
    with pytest.raises(ConfigError, match="cohort_size is"):
        sampler.sample(population, SEED, 0)


def test_only_a_hidden_poisson_cohort_claims_amplification():
    hidden = poisson_sampler(sampling_rate=0.1, cohort_is_hidden=True)
    assert hidden.amplifies
    assert hidden.dp_event(GAUSSIAN, 100) == dpa.SelfComposedDpEvent(
        dpa.PoissonSampledDpEvent(0.1, GAUSSIAN), 100
    )
    for sampler in SAMPLERS:
        assert not sampler.amplifies
        assert sampler.amplification.startswith("No amplification")
        times = sampler.max_participations(100)
        assert sampler.dp_event(GAUSSIAN, 100) == dpa.SelfComposedDpEvent(
            GAUSSIAN, times
        )


def test_rate_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match="sampling_rate must be in"):
        poisson_sampler(sampling_rate=1.5)
