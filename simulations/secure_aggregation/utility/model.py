"""A small convolutional network with bounded activations, which suit clipped gradients.

Source: Papernot et al. (2021), Tempered sigmoid activations for deep learning with
differential privacy, https://arxiv.org/abs/2007.14191.
"""

import keras


def model() -> keras.Model:
    """Two convolutions and two dense layers: 26,010 weights."""
    network = keras.Sequential(
        [
            keras.layers.Input([28, 28, 1]),
            keras.layers.Conv2D(16, 8, 2, padding="same", activation="tanh"),
            keras.layers.MaxPooling2D(2, 1),
            keras.layers.Conv2D(32, 4, 2, activation="tanh"),
            keras.layers.MaxPooling2D(2, 1),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="tanh"),
            keras.layers.Dense(10),
        ]
    )
    network.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return network
