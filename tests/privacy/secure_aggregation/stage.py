"""One session of four clients, played honestly up to where an attack begins."""

import numpy as np

from fedtrain.secagg import masks
from fedtrain.secagg.envelopes import encoded, enveloped, parsed
from fedtrain.secagg.messages_pb2 import (
    CONSISTENCY,
    DEAL,
    MASKED_INPUT,
    SURVIVORS,
    UNMASK,
    UNMASK_REQUEST,
    Deal,
    DealUpload,
    MaskedInput,
    Survivors,
    Unmask,
    UnmaskRequest,
)
from fedtrain.secagg.parameters import parameters_for
from fedtrain.secagg.simulated_network import SimulatedNetwork

NAMES = ("ada", "bob", "cyd", "dan")
LENGTH = 7
# 2 x 3 > 4 + 1: one client may be lost, one may collude.
PARAMETERS = parameters_for(4, num_colluding=1)


class Stage:
    """A session in the making. ``network.operator_key`` is the attacker's to use."""

    def __init__(self, network=None, round_number=0):
        self.network = network or SimulatedNetwork(
            PARAMETERS, client_ids=NAMES, vector_length=LENGTH
        )
        self.server = self.network.server(round_number)
        opening = self.server.roster_message
        self.clients = {name: self.network.client(name, opening) for name in NAMES}
        self.vectors = {
            name: np.arange(number, number + LENGTH, dtype=np.uint32) * 0x3FFFFFFF
            for number, name in enumerate(NAMES)
        }
        self.masked = {}
        self.keys = self.deals = self.deliveries = self.announced = self.request = None

    def with_keys(self):
        """Every client's keys are with the aggregator; ``keys`` go to the clients."""
        self.advertised = {n: c.advertisement() for n, c in self.clients.items()}
        for message in self.advertised.values():
            self.server.receive_keys(message)
        self.keys = self.server.close_keys()
        return self

    def with_deals(self):
        """Every client has dealt; ``deals`` are not with the aggregator yet."""
        if self.keys is None:
            self.with_keys()
        self.deals = {n: c.share_keys(self.keys) for n, c in self.clients.items()}
        return self

    def with_deliveries(self):
        """The deals are with the aggregator; ``deliveries`` go to the clients."""
        if self.deals is None:
            self.with_deals()
        for message in self.deals.values():
            self.server.receive_shares(message)
        self.deliveries = self.server.close_shares()
        return self

    def with_shares_held(self):
        """Every client has looked at its shares."""
        if self.deliveries is None:
            self.with_deliveries()
        for name in NAMES:
            self.clients[name].hold_shares(self.deliveries[name])
        return self

    def with_inputs(self, *, lost=()):
        """Masked inputs have come, but for those lost; ``announced`` are survivors."""
        self.with_shares_held()
        for name in NAMES:
            if name not in lost:
                self.send_input(name)
        return self.closed()

    def closed(self):
        """No more inputs are taken; ``announced`` are the survivors."""
        self.announced = self.server.close_inputs()
        return self

    def send_input(self, name):
        """One client masks and sends; its words are kept in ``masked``."""
        vector = self.vectors[name].copy()
        message = self.clients[name].mask(vector)
        self.masked[name] = vector
        self.server.receive_input(message, masks.content(vector))

    def with_signatures(self, *, lost=()):
        """The survivors have signed; ``request`` asks them to open the sum."""
        if self.announced is None:
            self.with_inputs(lost=lost)
        self.signatures = {
            name: self.clients[name].confirm(self.announced)
            for name in self.server.survivors
        }
        for message in self.signatures.values():
            self.server.receive_consistency(message)
        self.request = self.server.close_consistency()
        return self

    def with_answers(self, *, lost=()):
        """The survivors have opened; ``answers`` are not with the aggregator yet."""
        if self.request is None:
            self.with_signatures(lost=lost)
        self.answers = {
            name: self.clients[name].unmask(self.request)
            for name in self.server.survivors
        }
        return self

    def with_sum(self, *, lost=()):
        """The sum, once every answer has come."""
        self.with_answers(lost=lost)
        return self.with_sum_of_answers()

    def with_sum_of_answers(self):
        """The sum, from the answers that are there."""
        for message in self.answers.values():
            self.server.receive_unmask(message)
        return self.server.close_unmask()

    def total(self, names=NAMES):
        """What the sum of these clients must be."""
        return sum((self.vectors[n] for n in names), np.zeros(LENGTH, np.uint32))

    def by_operator(self, kind, body):
        """A message that the aggregator signs, whatever is in it."""
        return self.signed(kind, body, "", self.network.operator_key)

    def by_client(self, name, kind, body):
        """A message that a client signs, whatever is in it."""
        return self.signed(kind, body, name, self.network.identities[name])

    def survivors(self, *names, **changes):
        """The announcement of these survivors, signed by the aggregator."""
        body = Survivors.FromString(parsed(self.announced).body)
        del body.survivors[:]
        body.survivors.extend(names)
        for field, value in changes.items():
            setattr(body, field, value)
        return self.announcement(body)

    def announcement(self, body):
        """Any announcement of survivors, signed by the aggregator."""
        return self.by_operator(SURVIVORS, body)

    def signature(self, name, announcement):
        """One client's consistency signature for an announcement, as an envelope."""
        body = Survivors.FromString(parsed(announcement).body)
        return parsed(self.by_client(name, CONSISTENCY, body))

    def asked(self, *signatures):
        """The last request, with these signatures."""
        body = UnmaskRequest(signatures=signatures)
        return self.by_operator(UNMASK_REQUEST, body)

    def changed_deal(self, name, change, signer=None):
        """A client's deal after ``change(deal, boxes)``, signed by it or another."""
        upload = DealUpload.FromString(self.deals[name])
        deal, boxes = Deal.FromString(upload.deal.body), list(upload.boxes)
        change(deal, boxes)
        signed = parsed(self.by_client(signer or name, DEAL, deal))
        return encoded(DealUpload(deal=signed, boxes=boxes))

    def deal_badly(self, name, upload):
        """Lets a client send this deal, and take it for its own when it comes back."""
        self.deals[name] = upload
        self.clients[name]._own_deal = DealUpload.FromString(upload).deal

    def changed_answer(self, name, change):
        """A client's opened shares after ``change(answer)``, signed by it again."""
        answer = Unmask.FromString(parsed(self.answers[name]).body)
        change(answer)
        return self.by_client(name, UNMASK, answer)

    def input_message(self, name, vector):
        """What announces any vector as a client's masked input."""
        body = MaskedInput(sha256=masks.content_sha256(vector))
        return self.by_client(name, MASKED_INPUT, body)

    def signed(self, kind, body, sender, key):
        """A message of this session, by whomever under whatever name."""
        session = self.server.roster.session
        return encoded(enveloped(kind, body, session=session, sender=sender, key=key))
