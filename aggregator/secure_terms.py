"""The terms of secure aggregation in one run, and the roster of each attempt."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aggregator.authority import Authority
from aggregator.round_state import RoundState
from fedtrain.core.errors import ConfigError, TooFewClientsError
from fedtrain.project.config import ProjectConfig
from fedtrain.project.secure_session import TOP, served_sessions
from fedtrain.secagg.parameters import Parameters
from fedtrain.secagg.roster import Member, Roster
from fedtrain.wire.identity import public_key_from


class SecureTerms(NamedTuple):
    """What every session of a run has in common.

    Attributes:
      parameters: Of a session of a whole cohort.
      keys: The identity key of each partner, 32 raw bytes, by name.
      operator_key: Signs rosters, and all that goes to the clients in a session.
      plan_sha256: Of the approved plan, 32 bytes.
      regions: The regional aggregators, who are asked in place of the partners; none
        without regions.
    """

    parameters: Parameters
    keys: Mapping[str, bytes]
    operator_key: Ed25519PrivateKey
    plan_sha256: bytes
    regions: tuple[str, ...] = ()

    def roster(self, state: RoundState, *, without: Collection[str]) -> Roster:
        """The roster of one attempt at a round; it has a fresh nonce each time.

        Threshold and honest survivors stay those of the plan however few are left: the
        partners' shares of the noise are made for them.

        Args:
          state: Of the round.
          without: Clients that have broken the protocol, as signatures prove.

        Raises:
          TooFewClientsError: If fewer clients are left than the threshold.
        """
        names = sorted(
            name for name in state.cohort if name in self.keys and name not in without
        )
        if len(names) < self.parameters.threshold:
            raise TooFewClientsError(
                f"Secure aggregation of round {state.round_number} needs "
                f"{self.parameters.threshold} partners; {len(names)} of its cohort "
                f"are admitted and keep to the protocol ({', '.join(names)}). Admit "
                "the others, or make a plan with a lower rounds.threshold."
            )
        return Roster(
            plan_sha256=self.plan_sha256,
            round_number=state.round_number,
            attempt=state.attempt,
            parameters=replace(self.parameters, num_clients=len(names)),
            vector_length=sum(spec.size for spec in state.contribution),
            members=tuple(Member(name, self.keys[name]) for name in names),
        )


def secure_terms(
    config: ProjectConfig,
    authority: Authority,
    *,
    plan_sha256: str,
    region: str = TOP,
) -> SecureTerms | None:
    """The terms of a served run; None without secure aggregation.

    Args:
      config: Of the run.
      authority: Of who runs the sessions.
      plan_sha256: Of the approved plan, in hexadecimal.
      region: Whose sessions.

    Raises:
      ConfigError: If the settings leave no session.
    """
    sessions = served_sessions(config)
    session = sessions.get(region)
    if session is None:
        return None
    is_top = region == TOP and len(sessions) > 1
    return SecureTerms(
        parameters=session.parameters,
        keys={
            name: public_key_from(key).public_bytes_raw()
            for name, key in authority.roster().items()
            if name in session.members
        },
        operator_key=authority.operator_key(),
        plan_sha256=bytes.fromhex(plan_sha256),
        regions=session.members if is_top else (),
    )


def check_all_admitted(
    config: ProjectConfig, authority: Authority, *, region: str = TOP
) -> None:
    """Refuses to begin secure aggregation before every partner's key is known.

    Raises:
      ConfigError: Naming who is missing.
    """
    session = served_sessions(config).get(region)
    if session is None:
        return
    admitted = authority.roster()
    missing = [name for name in session.members if name not in admitted]
    if missing:
        raise ConfigError(
            f"Secure aggregation needs the keys of all {len(session.members)} "
            f"partners; {', '.join(missing)} not admitted yet. Admit them, then invite "
            "all anew (`fedtrain-aggregator partners invite NAME`), so that each can "
            "pin the keys of the others."
        )
