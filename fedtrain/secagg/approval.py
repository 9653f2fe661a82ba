"""What a client has agreed to before a session, whatever the aggregator then proposes.

The keys of the other clients are pinned: people compared them out of band. A roster
with another key is refused even if the operator's authority vouches for it, because
whoever chooses the keys could be all the other clients.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedtrain.core.errors import PolicyError
from fedtrain.secagg.roster import Roster, roster_in


@dataclass(frozen=True, kw_only=True)
class Approval:
    """The floor of one client's policy, for one approved plan.

    The plan's hash stands for model, clipping norm, grid, epsilon and delta, which were
    compared with the policy when the plan was approved.

    Attributes:
      operator_key: The operator's identity key.
      plan_sha256: Of the approved plan, 32 bytes.
      pinned_keys: The identity key of every client that may take part, 32 raw bytes
        by client id, this client's own among them.
      vector_length: The words of one contribution, by the plan.
      least_clients: The fewest clients this one joins, itself included.
      least_colluding: As many other clients may be in league with the aggregator; a
        roster must withstand at least so many.
      least_honest_survivors: The h that this client's share of the noise, 1/h of the
        needed variance, is meant for.
      least_threshold: The fewest survivors whose sum may be opened.
    """

    operator_key: Ed25519PublicKey
    plan_sha256: bytes
    pinned_keys: Mapping[str, bytes]
    vector_length: int
    least_clients: int
    least_colluding: int
    least_honest_survivors: int
    least_threshold: int = 1

    def checked(self, message: bytes, client_id: str) -> Roster:
        """The roster in ``message``, if this client may join it.

        Raises:
          UnauthenticError: If the operator did not sign it.
          BreachError: If it breaks the protocol's own conditions.
          PolicyError: If it is below the floor, or a key is not the pinned one.
        """
        roster = roster_in(message, self.operator_key)
        problems = [*self._below(roster), *self._unpinned(roster)]
        if client_id not in roster.client_ids:
            problems.append(f"client {client_id!r} is not in it")
        if problems:
            raise PolicyError(
                f"The roster of round {roster.round_number} is refused: "
                f"{'; '.join(problems)}. Nothing was sent."
            )
        return roster

    def _below(self, roster: Roster) -> list[str]:
        given = roster.parameters
        floors = (
            ("clients", given.num_clients, self.least_clients),
            ("colluding clients", given.num_colluding, self.least_colluding),
            (
                "honest survivors",
                given.num_honest_survivors,
                self.least_honest_survivors,
            ),
            ("survivors", given.threshold, self.least_threshold),
        )
        problems = [
            f"it is for {number} {what}, the policy asks for at least {least}"
            for what, number, least in floors
            if number < least
        ]
        if roster.plan_sha256 != self.plan_sha256:
            problems.append("it is for another plan than the approved one")
        if roster.vector_length != self.vector_length:
            problems.append(
                f"its vectors have {roster.vector_length} words, the plan's "
                f"{self.vector_length}"
            )
        return problems

    def _unpinned(self, roster: Roster) -> list[str]:
        return [
            f"the key of client {client_id!r} is not the pinned one"
            for client_id, key in roster.members
            if self.pinned_keys.get(client_id) != key
        ]
