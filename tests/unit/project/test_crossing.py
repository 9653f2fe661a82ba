import numpy as np
import pytest
import tensorflow as tf

from fedtrain.aggregation.aggregator import chain
from fedtrain.aggregation.mean import weighted_mean
from fedtrain.aggregation.stochastic_quantisation import stochastic_quantisation
from fedtrain.aggregation.top_k import top_k_with_error_feedback
from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd
from fedtrain.core import seeds
from fedtrain.models.dense import dense_classifier
from fedtrain.optimizers.sgd import sgd
from fedtrain.project.crossing import contribution_specs, empty_contribution
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import empty_total

MODEL = dense_classifier(5, 3, hidden=[4])
WORK = local_sgd(MODEL, sgd(0.1), Epochs(batch_size=2, local_epochs=1))


@pytest.mark.parametrize(
    "stages",
    [(), (top_k_with_error_feedback(0.5),), (stochastic_quantisation(8),)],
    ids=["plain", "top_k", "int8"],
)
def test_a_contribution_is_described_without_computing_one(stages):
    round_ = fed_avg(WORK, aggregator=chain(weighted_mean(), *stages))
    message = round_.broadcast(round_.init(MODEL.init(seeds.root(1))))
    found = empty_contribution(round_, message)
    wanted = empty_total(round_.client_work, message)
    tf.nest.assert_same_structure(found, wanted)
    for own, other in zip(tf.nest.flatten(found), tf.nest.flatten(wanted), strict=True):
        np.testing.assert_array_equal(own, other)
        assert own.dtype == other.dtype.as_numpy_dtype
    assert contribution_specs(round_, found) == contribution_specs(round_, wanted)
