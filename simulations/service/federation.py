"""Keys and certificates of an aggregator and ten clients, as `fedtrain` makes them."""

from pathlib import Path

from aggregator.authority import Authority, Terms, init
from clients.policy import policy_for, write_policy
from fedtrain.wire.acceptance import accept
from fedtrain.wire.enrolment import EnrolmentRequest
from fedtrain.wire.identity import new_keys
from fedtrain.wire.plan import Plan
from simulations.service.workload import CLIENTS, PORT


def enrolled(folder: Path, plan: Plan) -> Authority:
    """An authority in ``folder/authority``, and a home for each client beside it.

    Each home is named as the client, and has a file ``invitation``; the aggregator's
    key and certificate and the authority's are PEM files in ``folder`` too, for systems
    that read such.
    """
    authority = init(
        folder / "authority", name="service", hosts=["localhost", "127.0.0.1"]
    )
    terms = Terms(plan, f"127.0.0.1:{PORT}", "localhost")
    pair = authority.server_pair()
    (folder / "authority.pem").write_bytes(authority.authority_pem)
    (folder / "server.pem").write_bytes(pair.certificate_pem)
    (folder / "server.key").write_bytes(pair.key_pem)
    for name in CLIENTS:
        home = folder / name
        invitation = authority.admit(EnrolmentRequest.of(name, new_keys(home)), terms)
        accept(invitation, home)
        (home / "invitation").write_bytes(invitation.to_bytes())
        policy = policy_for(plan, max_epsilon=float("inf"))
        write_policy(home / "policy.toml", policy.approving(plan))
    return authority
