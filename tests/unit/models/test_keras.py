import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from fedtrain.client_work.batching import Epochs
from fedtrain.client_work.local_sgd import local_sgd, loss_gradients
from fedtrain.client_work.per_example import per_example_gradients
from fedtrain.core import seeds
from fedtrain.core.errors import ConfigError, PrivacyError
from fedtrain.data.examples import Examples
from fedtrain.models.keras import assign, keras_model
from fedtrain.models.model import Batch
from fedtrain.optimizers.sgd import sgd
from fedtrain.rounds.fed_avg import fed_avg
from fedtrain.rounds.runtime import CohortClient
from fedtrain.runtimes.compiled import CompiledRuntime
from fedtrain.runtimes.eager import EagerRuntime

SEED = seeds.root(1)
VECTORS = np.random.default_rng(0).normal(size=[8, 5]).astype(np.float32)
LABELS = np.arange(8) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
BATCH = Batch(tf.constant(VECTORS), tf.constant(LABELS), tf.ones([8]), tf.ones([8]))


def sequential(*rest):
    return keras.Sequential([keras.Input([5]), *rest, layers.Dense(3)])


def subclass(call, **members):
    """A built subclassed model with this ``call`` and these members."""

    class Custom(keras.Model):
        def __init__(self):
            super().__init__(name="custom")
            self.dense = layers.Dense(3)
            for name, value in members.items():
                setattr(self, name, value)

    Custom.call = call
    model = Custom()
    model(VECTORS)
    return model


def forward(model, *, training=True, seed=SEED):
    adapted = keras_model(model, loss=LOSS)
    weights = adapted.init(SEED)
    return adapted.forward(weights, VECTORS, training=training, seed=seed)


def test_dropout_follows_the_seed_and_nothing_else():
    model = sequential(layers.Dense(50), layers.Dropout(0.5), layers.GaussianNoise(0.1))
    adapted = keras_model(model, loss=LOSS)
    weights = adapted.init(SEED)

    def run(seed):
        return adapted.forward(weights, VECTORS, training=True, seed=seed).outputs

    @tf.function
    def looped(seed):
        def turn(i, _):
            return i + 1, run(seed)

        return tf.while_loop(lambda i, _: i < 3, turn, (0, tf.zeros([8, 3])))[1]

    np.testing.assert_array_equal(run(SEED), run(SEED))
    np.testing.assert_allclose(run(SEED), looped(SEED), atol=1e-6)
    assert np.abs(run(SEED) - run(seeds.root(2))).max() > 1e-3
    assert all(leaf.dtype.is_floating for leaf in tf.nest.flatten(weights))


def test_two_dropout_layers_draw_different_masks_at_the_right_rate():
    inputs = keras.Input([4000])
    masks = [layers.Dropout(0.3)(inputs) for _ in range(2)]
    scaled = layers.Dense(1, trainable=False, kernel_initializer="ones")
    both = keras.Model(inputs, layers.Concatenate()([*masks, scaled(inputs)]))
    ones = np.ones([1, 4000], np.float32)
    adapted = keras_model(both, loss="mse")
    result = adapted.forward(adapted.init(SEED), ones, training=True, seed=SEED)
    kept = np.asarray(result.outputs[0, :8000])
    first, second = np.split(kept > 0, 2)
    # Five standard deviations of 4,000 draws: false alarms in less than 1e-5 of runs.
    assert abs(np.mean(first) - 0.7) < 0.037
    assert abs(np.mean(first & second) - 0.49) < 0.04
    np.testing.assert_allclose(kept[kept > 0], 1 / 0.7, rtol=1e-6)


def test_the_keras_model_still_fits_predicts_and_saves(tmp_path):
    model = sequential(
        layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.2)
    )
    adapted = keras_model(model, loss=LOSS)
    weights = adapted.init(SEED)
    before = adapted.forward(weights, VECTORS, training=False, seed=SEED).outputs
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=LOSS)
    model.fit(VECTORS, LABELS, epochs=1, verbose=0)
    moved = model.predict(VECTORS, verbose=0)
    assert np.abs(moved - before).max() > 1e-4
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(VECTORS, verbose=0), moved, atol=1e-6)
    assign(weights, model)
    np.testing.assert_allclose(model.predict(VECTORS, verbose=0), before, atol=1e-6)


def test_a_clone_and_the_weights_of_another_model_are_told_apart():
    model = sequential(layers.Dense(4))
    weights = keras_model(model, loss=LOSS).init(SEED)
    twin = keras.models.clone_model(model)
    assign(weights, twin)
    np.testing.assert_allclose(twin(VECTORS), model(VECTORS), atol=1e-6)
    with pytest.raises(ConfigError, match="weights have shapes"):
        assign(weights, sequential(layers.Dense(6)))


def test_batch_norm_is_listed_and_refused_by_row_unless_frozen():
    model = sequential(layers.BatchNormalization(name="norm"))
    adapted = keras_model(model, loss=LOSS)
    assert adapted.mixing_layers == ("norm",)
    with pytest.raises(PrivacyError, match="norm"):
        per_example_gradients(adapted, adapted.init(SEED), BATCH, SEED)
    model.layers[0].trainable = False
    assert keras_model(model, loss=LOSS).mixing_layers == ()


def test_a_decorated_call_is_restored_after_use():
    def call(self, inputs):
        if tf.reduce_sum(inputs) > 1e9:
            inputs = -inputs
        return self.dense(inputs)

    model = subclass(tf.function(call))
    before = vars(model).get("call")
    first = forward(model).outputs
    assert vars(model).get("call") is before
    np.testing.assert_allclose(model.dense(VECTORS), first, atol=1e-6)
    model.dense.kernel.assign(model.dense.kernel * 2.0)
    np.testing.assert_allclose(forward(model).outputs, model.dense(VECTORS), atol=1e-6)


def unseeded(self, inputs):
    return self.dense(inputs + tf.random.normal(tf.shape(inputs)))  # noqa: TID251


def row_loss(self, inputs):
    self.add_loss(tf.reduce_mean(inputs))
    return self.dense(inputs)


def several(self, inputs):
    return self.dense(inputs), inputs


def test_what_escapes_a_trace_is_refused():
    hidden = tf.Variable(2.0)

    def stray(self, inputs):
        return self.dense(inputs) * hidden

    with pytest.raises(ConfigError, match="no weight of the model"):
        forward(subclass(stray))
    with pytest.raises(ConfigError, match="ignores the seed"):
        forward(subclass(unseeded))


def test_a_tensor_condition_in_call_works_as_in_keras():
    def call(self, inputs):
        if tf.reduce_sum(inputs) > 0:
            inputs = inputs * 2.0
        return self.dense(inputs)

    if keras.__version__.startswith("3."):
        pytest.skip("Keras 3 converts no call: a condition on a tensor is an error")
    model = subclass(call)
    np.testing.assert_allclose(forward(model).outputs, model(VECTORS), atol=1e-6)


def test_losses_of_rows_and_several_outputs_are_refused():
    with pytest.raises(ConfigError, match="add_loss"):
        forward(subclass(row_loss))
    with pytest.raises(ConfigError, match="activity_regularizer"):
        forward(sequential(layers.Dense(4, activity_regularizer="l2")))
    with pytest.raises(ConfigError, match="several outputs"):
        forward(subclass(several))


def test_an_unbuilt_model_and_another_object_are_refused():
    with pytest.raises(ConfigError, match="not built"):
        keras_model(keras.Sequential([layers.Dense(3)]), loss=LOSS)
    with pytest.raises(ConfigError, match="Keras"):
        keras_model(lambda x: x, loss=LOSS)
    with pytest.raises(ConfigError, match="loss is missing"):
        keras_model(sequential())


def test_training_must_be_a_python_bool():
    with pytest.raises(ConfigError, match="training"):
        forward(sequential(), training=tf.constant(value=True))


def test_class_and_row_weights_multiply_the_loss_as_in_keras():
    model = sequential()
    class_weights = {0: 1.0, 1: 3.0, 2: 0.5}
    row_weights = np.linspace(0.5, 2, 8).astype(np.float32)
    adapted = keras_model(model, loss=LOSS, class_weights=class_weights)
    batch = BATCH._replace(weights=tf.constant(row_weights))
    gradients, _, _ = loss_gradients(adapted, adapted.init(SEED), batch, SEED)
    weights = row_weights * [class_weights[int(label)] for label in LABELS]
    model.compile(keras.optimizers.SGD(1.0), loss=LOSS)
    before = model.get_weights()
    model.fit(
        VECTORS, LABELS, sample_weight=weights, batch_size=8, shuffle=False, verbose=0
    )
    for gradient, old, new in zip(gradients, before, model.get_weights(), strict=True):
        np.testing.assert_allclose(gradient, old - new, atol=1e-6)


def test_mixed_precision_and_float64_keep_their_types():
    double = keras.Sequential([keras.Input([5]), layers.Dense(3, dtype="float64")])
    adapted = keras_model(double, loss=LOSS)
    weights = adapted.init(SEED)
    gradients, outputs, _ = loss_gradients(adapted, weights, BATCH, SEED)
    assert {leaf.dtype for leaf in (*gradients, outputs)} == {tf.float64}
    mixed = keras.Sequential(
        [keras.Input([5]), layers.Dense(3, dtype="mixed_bfloat16")]
    )
    adapted = keras_model(mixed, loss=LOSS)
    gradients, outputs, _ = loss_gradients(adapted, adapted.init(SEED), BATCH, SEED)
    assert outputs.dtype == tf.bfloat16
    assert {leaf.dtype for leaf in gradients} == {tf.float32}


def test_a_round_is_the_same_in_both_runtimes_and_learns():
    model = sequential(layers.Dense(8, activation="relu"), layers.Dropout(0.2))
    adapted = keras_model(model, loss=LOSS)
    work = local_sgd(adapted, sgd(0.1), Epochs(batch_size=4, local_epochs=5))
    round_ = fed_avg(work, server_optimizer=sgd(1.0))
    cohort = [
        CohortClient(str(i), Examples(features=VECTORS[i:], labels=LABELS[i:]), ())
        for i in (0, 3)
    ]
    fresh = round_.client_work.init_state(adapted.init(SEED))
    cohort = [client._replace(state=fresh) for client in cohort]
    results, losses = [], []
    for runtime in (EagerRuntime(), CompiledRuntime()):
        state = round_.init(adapted.init(SEED))
        for number in range(4):
            result = runtime.run_round(
                round_, state, cohort, seeds.derive(SEED, number)
            )
            state = result.state
            losses.append(result.metrics["loss"])
        results.append(result)
    eager, compiled = (tf.nest.flatten(r.state.weights) for r in results)
    for a, b in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    assert losses[3] < losses[0]
    assert losses[7] < losses[4]
