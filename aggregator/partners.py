"""The register of partners: one JSON file, read again whenever it has changed.

Whoever revokes a partner writes the file from another process; the server asks the
register on every call and looks at the file's own mark first, so that the next call
already knows. A register that cannot be read admits nobody.
"""

import json
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from filelock import FileLock
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from fedtrain.core.errors import IdentityError
from fedtrain.wire.enrolment import ClientId, KeyText, Pem
from fedtrain.wire.identity import fingerprint, public_key_from, write_private

_STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)


class IssuedCertificate(BaseModel):
    """A leaf that the authority signed for a partner.

    Attributes:
      serial: In hexadecimal.
      pem: The certificate.
      expires: When it ends.
      superseded: When the next one was issued; None for the current one.
    """

    model_config = _STRICT

    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]
    pem: Pem
    expires: AwareDatetime
    superseded: AwareDatetime | None = None


class Partner(BaseModel):
    """One partner, by the name in its certificates.

    Attributes:
      client_id: The name.
      identity_key: Public half of the key that signs its requests, in base64.
      certificates: Issued and not yet expired; the current one is the last.
      state: A revoked partner's calls are refused, whatever certificate it shows.
      admitted: Since when.
      revoked: Since when; None unless revoked.
      revoked_keys: Identity keys that this name had before, and may not have again.
      software: What it ran when it asked.
      demo: Whether the operator made its keys.
    """

    model_config = _STRICT

    client_id: ClientId
    identity_key: KeyText
    certificates: Annotated[tuple[IssuedCertificate, ...], Field(min_length=1)]
    state: Literal["admitted", "revoked"] = "admitted"
    admitted: AwareDatetime
    revoked: AwareDatetime | None = None
    revoked_keys: tuple[KeyText, ...] = ()
    software: str
    demo: bool = False

    @property
    def public_key(self) -> Ed25519PublicKey:
        """The key that verifies its requests."""
        return public_key_from(self.identity_key)

    @property
    def fingerprint(self) -> str:
        """Of the identity key: eight words to compare over the phone."""
        return fingerprint(self.public_key)

    @property
    def current(self) -> IssuedCertificate:
        """The certificate that was issued last."""
        return self.certificates[-1]


class PartnerRegister:
    """Partners by name, in a file that several processes read and write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._mark: tuple[int, ...] | None = None
        self._partners: dict[str, Partner] = {}

    def create(self) -> None:
        """Writes an empty register."""
        self._write({})

    def all(self) -> tuple[Partner, ...]:
        """All partners, by name; revoked ones too.

        Raises:
          IdentityError: If the register cannot be read.
        """
        return tuple(partner for _, partner in sorted(self._current().items()))

    def find(self, client_id: str) -> Partner | None:
        """The partner of this name, as the file says now; None if there is none.

        Raises:
          IdentityError: If the register cannot be read.
        """
        return self._current().get(client_id)

    def change(
        self, client_id: str, changed: Callable[[Mapping[str, Partner]], Partner]
    ) -> Partner:
        """Replaces one partner by what ``changed`` makes of all, alone among processes.

        Returns:
          The new one, once it is on the disk.
        """
        with FileLock(self._path.with_suffix(".lock"), mode=0o600):
            partners = dict(self._read())
            partner = changed(partners)
            partners[client_id] = partner
            self._write(partners)
        return partner

    def _current(self) -> dict[str, Partner]:
        with self._lock:
            mark = self._file_mark()
            if mark != self._mark:
                self._partners = self._read()
                self._mark = mark
            return self._partners

    def _file_mark(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise self._unreadable(error.strerror or "it is not there") from None
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    def _read(self) -> dict[str, Partner]:
        try:
            found = _Register.model_validate_json(self._path.read_bytes())
        except OSError as error:
            raise self._unreadable(error.strerror or "it is not there") from None
        except pydantic.ValidationError as error:
            first: Any = error.errors(include_input=False, include_url=False)[0]
            raise self._unreadable(first["msg"]) from None
        return {partner.client_id: partner for partner in found.partners}

    def _write(self, partners: dict[str, Partner]) -> None:
        listed = tuple(partner for _, partner in sorted(partners.items()))
        content = _Register(partners=listed).model_dump(mode="json")
        write_private(self._path, json.dumps(content, indent=1) + "\n")

    def _unreadable(self, reason: str) -> IdentityError:
        return IdentityError(
            f"The register of partners {self._path} cannot be read ({reason}); nobody "
            "is admitted. Restore it from a backup, and revoke anew what was revoked "
            "since."
        )


class _Register(BaseModel):
    model_config = _STRICT

    format: Literal[1] = 1
    partners: tuple[Partner, ...] = ()
