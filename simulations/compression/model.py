"""The network of the federated averaging paper: 1,663,370 weights."""

from fedtrain.models.model import Model
from simulations.convolutional import convolutional_classifier


def model() -> Model:
    """McMahan et al. (2017), section 3: two convolutions and two dense layers."""
    return convolutional_classifier(filters=(32, 64), hidden=(512,), padding="SAME")
