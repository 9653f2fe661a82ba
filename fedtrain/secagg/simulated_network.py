"""Whole sessions in one process, with whatever a network may do to them.

For tests, for measurements, and for simulated runs that shall give the sum that a
deployed one gives, to the bit.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedtrain.secagg import masks
from fedtrain.secagg.answered import Answered, RememberedRounds
from fedtrain.secagg.approval import Approval
from fedtrain.secagg.blame import Blame
from fedtrain.secagg.client import ClientSession
from fedtrain.secagg.masks import Vector
from fedtrain.secagg.parameters import Parameters
from fedtrain.secagg.roster import Member, Roster
from fedtrain.secagg.server import ServerSession, Step

_Messages = Sequence[tuple[str, bytes]]


class SecureSum(NamedTuple):
    """What a session gave: the sum modulo 2^32, whose it is, and who was named."""

    total: Vector
    survivors: tuple[str, ...]
    blames: tuple[Blame, ...]


@dataclass(frozen=True, kw_only=True)
class Faults:
    """What goes wrong on the way.

    Attributes:
      lost: The step from which on nothing of a client arrives, by client id.
      carried: What becomes of the messages of one step, in each direction: any order,
        any number of times. A message that never comes makes its client lost.
    """

    lost: Mapping[str, Step]
    carried: Callable[[list[tuple[str, bytes]]], _Messages]


NO_FAULTS = Faults(lost={}, carried=list)


class SimulatedNetwork:
    """An operator and its clients, with identities that last for many rounds.

    Args:
      parameters: Of every session; ``num_clients`` is their number.
      client_ids: Who they are.
      vector_length: The words of one contribution.
    """

    def __init__(
        self,
        parameters: Parameters,
        *,
        client_ids: Collection[str],
        vector_length: int,
    ) -> None:
        self.parameters = parameters
        self.vector_length = vector_length
        self.operator_key = Ed25519PrivateKey.generate()
        self.identities = {
            client_id: Ed25519PrivateKey.generate() for client_id in sorted(client_ids)
        }
        self.answered: dict[str, Answered] = {
            client_id: RememberedRounds() for client_id in self.identities
        }
        self.plan_sha256 = hashlib.sha256(b"fedtrain simulated plan").digest()

    def roster(self, round_number: int) -> Roster:
        """The roster of all clients for one round."""
        return Roster(
            plan_sha256=self.plan_sha256,
            round_number=round_number,
            parameters=self.parameters,
            vector_length=self.vector_length,
            members=tuple(Member(*item) for item in self.pinned_keys.items()),
        )

    @property
    def pinned_keys(self) -> dict[str, bytes]:
        """The public identity key of each client, raw."""
        return {
            client_id: key.public_key().public_bytes_raw()
            for client_id, key in self.identities.items()
        }

    def approval(self) -> Approval:
        """What each client has agreed to: exactly these parameters."""
        return Approval(
            operator_key=self.operator_key.public_key(),
            plan_sha256=self.plan_sha256,
            pinned_keys=self.pinned_keys,
            vector_length=self.vector_length,
            least_clients=self.parameters.num_clients,
            least_colluding=self.parameters.num_colluding,
            least_honest_survivors=self.parameters.num_honest_survivors,
        )

    def client(self, client_id: str, roster_message: bytes) -> ClientSession:
        """One client in the session that the message opens."""
        return ClientSession(
            roster_message,
            client_id=client_id,
            identity=self.identities[client_id],
            approval=self.approval(),
            answered=self.answered[client_id],
        )

    def server(self, round_number: int) -> ServerSession:
        """The aggregator in a new session of all clients."""
        return ServerSession(self.roster(round_number), self.operator_key)

    def secure_sum(
        self,
        round_number: int,
        vectors: Mapping[str, Vector],
        faults: Faults = NO_FAULTS,
    ) -> SecureSum:
        """One session from the roster to the sum.

        Args:
          round_number: Above that of every earlier call.
          vectors: The contribution of each client, uint32; they stay as they are.
          faults: What goes wrong.

        Raises:
          TooFewClientsError: If too many were lost: nothing is known of any vector.
        """
        server = self.server(round_number)
        opening = server.roster_message
        clients = {name: self.client(name, opening) for name in self.identities}
        return played(server, clients, vectors, faults)


def played(
    server: ServerSession,
    clients: Mapping[str, ClientSession],
    vectors: Mapping[str, Vector],
    faults: Faults = NO_FAULTS,
) -> SecureSum:
    """One session of honest sides, to its sum; the vectors stay as they are.

    Raises:
      TooFewClientsError: If too many were lost: nothing is known of any vector.
    """
    return _Session(server, clients, faults).run(vectors)


@dataclass(frozen=True)
class _Session:
    server: ServerSession
    clients: Mapping[str, ClientSession]
    faults: Faults

    def run(self, vectors: Mapping[str, Vector]) -> SecureSum:
        server = self.server
        opened = [(name, each.advertisement()) for name, each in self.clients.items()]
        self._receive(Step.KEYS, opened, server.receive_keys)
        keys = dict.fromkeys(server.responders(Step.KEYS), server.close_keys())
        deals = self._replies(Step.SHARES, keys, ClientSession.share_keys)
        self._receive(Step.SHARES, deals, server.receive_shares)
        self._receive_inputs(server.close_shares(), vectors)
        announced = dict.fromkeys(server.survivors, server.close_inputs())
        signed = self._replies(Step.CONSISTENCY, announced, ClientSession.confirm)
        self._receive(Step.CONSISTENCY, signed, server.receive_consistency)
        request = dict.fromkeys(server.survivors, server.close_consistency())
        answers = self._replies(Step.UNMASK, request, ClientSession.unmask)
        self._receive(Step.UNMASK, answers, server.receive_unmask)
        total = server.close_unmask()
        return SecureSum(total, server.survivors, tuple(server.blames))

    def _receive_inputs(
        self, deliveries: Mapping[str, bytes], vectors: Mapping[str, Vector]
    ) -> None:
        announced: dict[str, bytes] = {}
        for name, delivery in self._carried(Step.INPUTS, deliveries.items()):
            self.clients[name].hold_shares(delivery)
            if name in announced:
                # The words of a message that came before are not read again.
                self.server.receive_input(announced[name], ())
                continue
            vector = vectors[name].copy()
            announced[name] = self.clients[name].mask(vector)
            self.server.receive_input(announced[name], masks.content(vector))

    def _replies(
        self,
        step: Step,
        messages: Mapping[str, bytes],
        respond: Callable[[ClientSession, bytes], bytes],
    ) -> list[tuple[str, bytes]]:
        return [
            (name, respond(self.clients[name], message))
            for name, message in self._carried(step, messages.items())
        ]

    def _receive(
        self, step: Step, replies: _Messages, receive: Callable[[bytes], None]
    ) -> None:
        for _, reply in self._carried(step, replies):
            receive(reply)

    def _carried(self, step: Step, messages: Iterable[tuple[str, bytes]]) -> _Messages:
        lost = self.faults.lost
        arriving = [each for each in messages if lost.get(each[0], Step.OVER) > step]
        return self.faults.carried(arriving)
