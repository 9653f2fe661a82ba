"""The model of this project: any Keras model, for one row of your data at a time."""

import keras


def model() -> keras.Model:
    """Returns a new, built model. The last layer gives logits: no softmax, no sigmoid.

    Under example- or entity-level privacy no layer may mix rows: use LayerNormalization
    or GroupNormalization where you would use BatchNormalization.
    """
    return keras.Sequential(
        [
            keras.layers.Input([64]),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
