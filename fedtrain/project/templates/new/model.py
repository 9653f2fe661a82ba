"""The model of this project: any Keras model, built and compiled with its loss."""

import keras


def model() -> keras.Model:
    """Returns a new model. The last layer gives logits: no softmax, no sigmoid.

    Under example- or entity-level privacy no layer may mix rows: use LayerNormalization
    or GroupNormalization where you would use BatchNormalization.
    """
    network = keras.Sequential(
        [
            keras.layers.Input([64]),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    network.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return network
