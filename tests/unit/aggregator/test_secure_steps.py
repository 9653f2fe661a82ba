"""One session whose answers come by other threads than those that open its steps."""

import threading

import pytest

from aggregator.secure_steps import SecureSteps
from fedtrain.secagg.parameters import parameters_for
from fedtrain.secagg.server import LateError, Step
from fedtrain.secagg.simulated_network import SimulatedNetwork

NAMES = ("ada", "bob", "cyd", "dan")
LENGTH = 5


class Session:
    """Steps, and the clients that answer them."""

    def __init__(self):
        network = SimulatedNetwork(
            parameters_for(4, num_colluding=1), client_ids=NAMES, vector_length=LENGTH
        )
        self.steps = SecureSteps(network.server(0).roster, network.operator_key)
        self.steps.publish()
        messages = self.steps.open.messages
        self.clients = {name: network.client(name, messages[name]) for name in NAMES}
        self.keys = {n: one.advertisement() for n, one in self.clients.items()}

    def with_keys_of(self, *names):
        for name in names:
            self.steps.take(name, Step.KEYS, self.keys[name])
        return self


@pytest.fixture
def session():
    return Session()


def test_who_is_late_is_asked_for_nothing_until_the_next_step_is_open(session):
    steps = session.with_keys_of(*NAMES[:3]).steps
    assert steps.asked_of("dan").step is Step.KEYS
    steps.close()
    assert steps.awaited == ()
    assert steps.asked_of("dan") is None
    steps.publish()
    assert steps.awaited == NAMES[:3]
    assert steps.asked_of("dan") is None
    with pytest.raises(LateError):
        session.with_keys_of("dan")


def test_an_answer_that_is_repeated_while_a_step_opens_leaves_it_open(session):
    steps = session.with_keys_of(*NAMES).steps
    steps.close()
    inner = steps._session  # the moment lies inside of ``take``
    responders = inner.responders
    publishing = threading.Thread(target=steps.publish)

    def opens_meanwhile(step):
        publishing.start()
        publishing.join(0.2)  # waits for the answer, unless it goes past it
        return responders(step)

    inner.responders = opens_meanwhile
    session.with_keys_of("ada")
    publishing.join()
    assert steps.open.step is Step.SHARES
    assert steps.awaited == NAMES
