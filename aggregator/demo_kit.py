"""Keys that the operator makes for a demonstration's partner: they prove nothing."""

from pathlib import Path

from aggregator.authority import Authority, Terms
from fedtrain.core.files import write_atomically
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys


def demo_kit(authority: Authority, client_id: str, home: Path, terms: Terms) -> Path:
    """Plays a partner for a demonstration: makes its keys, and admits it.

    Args:
      authority: That admits it.
      client_id: The partner's name.
      home: The partner's folder, for its keys.
      terms: Of the invitation; without secure aggregation.

    Returns:
      The invitation's file in ``home``; it says that it is a demonstration.

    Raises:
      IdentityError: If the plan asks for secure aggregation, or the name is taken.
    """
    request = EnrolmentRequest.of(client_id, new_keys(home))
    invitation = authority.admit(request, terms, demo=True)
    path = home / f"{client_id}.invitation"
    write_atomically(path, invitation.to_bytes())
    return path
