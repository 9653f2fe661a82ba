"""A partner's home folder: keys, policy, audit log, answers; for its owner alone."""

import contextlib
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from fedtrain.core.errors import ConfigError
from fedtrain.core.state_dir import state_dir
from fedtrain.wire.certificates import (
    certificate_in,
    check_client_id,
    check_leaf,
    client_uri,
)
from fedtrain.wire.enrolment import Invitation
from fedtrain.wire.identity import (
    TLS_FILE,
    PartnerKeys,
    TlsPair,
    keys_in,
    needs_renewal,
    renewal,
    tls_pair_in,
)
from fedtrain.wire.signing import Sequencer


class Home:
    """Where one client keeps what is its own.

    Args:
      path: The folder, for its owner alone; it need not exist yet.
      client_id: The client's name.
    """

    def __init__(self, path: Path, client_id: str) -> None:
        self.path = path
        self.client_id = client_id

    @property
    def policy_path(self) -> Path:
        """What may leave."""
        return self.path / "policy.toml"

    @property
    def audit_path(self) -> Path:
        """What left."""
        return self.path / "audit.jsonl"

    @property
    def answers_path(self) -> Path:
        """The newest answers."""
        return self.path / "answers"

    @property
    def pins_path(self) -> Path:
        """The other partners' keys."""
        return self.path / "partners.toml"

    @property
    def sessions_path(self) -> Path:
        """Which sessions of secure aggregation were answered."""
        return self.path / "sessions"

    def keys(self) -> PartnerKeys:
        """Both private keys."""
        return keys_in(self.path)

    def pair(self) -> TlsPair:
        """The current TLS key and certificate."""
        return tls_pair_in(self.path / TLS_FILE)

    def is_due(self, *, now: datetime.datetime) -> bool:
        """Whether less than a third of the certificate's life is left."""
        return needs_renewal(self.pair().certificate_pem, now=now)

    def renew(
        self,
        ask: Callable[[str], str],
        invitation: Invitation,
        *,
        now: datetime.datetime,
    ) -> None:
        """Replaces TLS key and certificate by new ones, both at once.

        Args:
          ask: Gives the certificate for a request; both in PEM.
          invitation: Names the authority.
          now: With a time zone.

        Raises:
          IdentityError: If what came back is not the authority's certificate for this
            client and the new key; the old pair stays.
        """
        begun = renewal(self.path, self.client_id)
        certificate = ask(begun.request_pem)
        check_leaf(
            certificate_in(certificate),
            authority=certificate_in(invitation.authority),
            uri=client_uri(self.client_id),
            now=now,
        )
        begun.accept(certificate)

    def sequence(self) -> Callable[[], int]:
        """Numbers requests, ever higher: also after a restart with the clock put back.

        The number is kept without waiting for the disk; after a power failure the clock
        is relied on.
        """
        path = self.path / "sequence"
        sequencer = Sequencer(_number_in(path))

        def following() -> int:
            number = sequencer.next()
            beside = path.with_name(".sequence.tmp")
            beside.write_text(str(number))
            beside.replace(path)
            return number

        return following

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Holds the home for one agent.

        Raises:
          ConfigError: If another one runs in it.
          IdentityError: If there are no keys in it.
        """
        self.keys()
        lock = FileLock(self.path / "agent.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise ConfigError(
                f"Another agent runs in {self.path}. Let it go on, or end it first."
            ) from error
        try:
            yield
        finally:
            lock.release()


def default_home(client_id: str) -> Path:
    """``$FEDTRAIN_STATE_DIR/clients/ID``."""
    check_client_id(client_id)
    return state_dir() / "clients" / client_id


def _number_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0
