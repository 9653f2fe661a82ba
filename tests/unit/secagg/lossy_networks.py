"""Small networks for tests, what may happen to them, and the sum that must come."""

import numpy as np

from fedtrain.secagg.parameters import parameters_for
from fedtrain.secagg.server import Step
from fedtrain.secagg.simulated_network import SimulatedNetwork

LOSSES = (Step.KEYS, Step.SHARES, Step.INPUTS, Step.CONSISTENCY, Step.UNMASK)


def network_of(num_clients, *, num_colluding=1, vector_length=5):
    return SimulatedNetwork(
        parameters_for(num_clients, num_colluding=num_colluding),
        client_ids=[f"client-{number:02}" for number in range(num_clients)],
        vector_length=vector_length,
    )


def vectors_for(network, draw):
    return {
        name: draw.integers(2**32, size=network.vector_length, dtype=np.uint32)
        for name in network.identities
    }


def expected_sum(network, vectors, lost):
    """The sum of those who sent their input; None where too few were left once."""
    least = network.parameters.threshold
    for step in LOSSES:
        left = [n for n in vectors if lost.get(n, Step.OVER) > step]
        if len(left) < least:
            return None
    staying = [n for n in vectors if lost.get(n, Step.OVER) > Step.INPUTS]
    zeros = np.zeros(network.vector_length, np.uint32)
    return sum((vectors[n] for n in staying), zeros), tuple(sorted(staying))


def tangled(draw):
    """Messages in any order, some of them twice or three times."""

    def carried(messages):
        again = [m for m in messages if draw.random() < 0.3]
        mixed = [*messages, *again, *again[:1]]
        return [mixed[place] for place in draw.permutation(len(mixed))]

    return carried
