"""The two files that people hand over: a partner's request, the operator's invitation.

Both are JSON in canonical form, signed by an Ed25519 key of the one who wrote them. A
signature shows that nothing was changed on the way; *whose* key it is, people compare
by its fingerprint, once, by another channel.
"""

import datetime
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pydantic
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from pydantic import BaseModel, ConfigDict, Field

import fedtrain
from fedtrain.core.errors import IdentityError, WireError
from fedtrain.wire.certificates import (
    certificate_in,
    certificate_request,
    check_client_id,
    check_dates,
    check_leaf,
    client_uri,
    requested_key,
)
from fedtrain.wire.identity import PartnerKeys, fingerprint, public_key_from
from fedtrain.wire.plan import MOST_PLAN_BYTES, Line, Plan, Sha256

MOST_PARTNERS = 10_000
_KEY = r"^[A-Za-z0-9+/]{43}=$"
_ADDRESS = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]{1,253}):[0-9]{1,5}$"
_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"
ClientId = Annotated[str, Field(pattern=_ID)]
KeyText = Annotated[str, Field(pattern=_KEY)]
Pem = Annotated[str, Field(max_length=16 * 1024)]
SignatureHex = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
_Document = TypeVar("_Document", bound="SignedDocument")


class SignedDocument(BaseModel):
    """A JSON file with a signature over all else in it.

    Attributes:
      kind: What the document is called, in messages and below its signature.
      most_bytes: The longest file that is read.
      format: Version of the document.
      signature: Of everything else in canonical form, below the document's own domain.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    kind: ClassVar[str]
    most_bytes: ClassVar[int]

    format: Literal[1] = 1
    signature: SignatureHex

    def to_bytes(self) -> bytes:
        """The file's content."""
        return _canonical(self.model_dump(mode="json"))

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        content = self.model_dump(mode="json", exclude={"signature"})
        return f"fedtrain.{self.kind}.v1\n".encode() + _canonical(content)

    def check_signature(self, key: Ed25519PublicKey) -> None:
        """Refuses a document that ``key`` did not sign as it stands."""
        try:
            key.verify(bytes.fromhex(self.signature), self.signed_bytes())
        except InvalidSignature:
            raise IdentityError(
                f"The {self.kind} was changed after it was signed; ask for it again."
            ) from None

    @classmethod
    def parsed(cls: type[_Document], data: bytes) -> _Document:
        """The document in ``data``; its signature is not checked yet.

        Raises:
          IdentityError: If it is too long, or not such a document in canonical form.
        """
        if len(data) > cls.most_bytes:
            raise IdentityError(
                f"A {cls.kind} of {len(data)} bytes is refused; at most "
                f"{cls.most_bytes} are read."
            )
        try:
            document = cls.model_validate_json(data)
        except pydantic.ValidationError as error:
            first: Any = error.errors(include_input=False, include_url=False)[0]
            where = ascii(".".join(str(part) for part in first["loc"]))[1:-1][:100]
            raise IdentityError(
                f"This is no {cls.kind}: {where or 'the file'}: {first['msg'][:200]}."
            ) from None
        if document.to_bytes() != data:
            raise IdentityError(f"The {cls.kind} is not as fedtrain wrote it.")
        return document


class EnrolmentRequest(SignedDocument):
    """What a partner asks the operator: a certificate for a name (``bank-a.request``).

    Attributes:
      client_id: The name.
      certificate_request: PKCS #10 in PEM, for the TLS key.
      identity_key: Public half of the key that signs this file and every request.
      software: The partner's fedtrain.
    """

    kind: ClassVar[str] = "request"
    most_bytes: ClassVar[int] = 64 * 1024

    client_id: ClientId
    certificate_request: Pem
    identity_key: KeyText
    software: Line

    @property
    def fingerprint(self) -> str:
        """Of the identity key: eight words to compare over the phone."""
        return fingerprint(public_key_from(self.identity_key))

    @classmethod
    def of(cls, client_id: str, keys: PartnerKeys) -> "EnrolmentRequest":
        """The request of ``client_id``, whose keys stay where they are."""
        check_client_id(client_id)
        content = {
            "client_id": client_id,
            "certificate_request": certificate_request(client_id, keys.tls),
            "identity_key": keys.identity_text,
            "software": f"fedtrain {fedtrain.__version__}",
        }
        return signed_document(cls, content, keys.identity)

    @classmethod
    def from_bytes(cls, data: bytes) -> "EnrolmentRequest":
        """The request in ``data``, checked to come from the owner of both keys.

        Raises:
          IdentityError: With the reason.
        """
        request = cls.parsed(data)
        request.check_signature(public_key_from(request.identity_key))
        requested_key(request.certificate_request, client_id=request.client_id)
        return request


class Invitation(SignedDocument):
    """What the operator hands to one partner (``bank-a.invitation``).

    Attributes:
      client_id: The partner's name.
      certificate: The leaf for the partner's TLS key, in PEM.
      authority: The certificate of the operator's authority, in PEM.
      operator_key: The operator's identity key; a partner keeps the first one it sees.
      address: Where the aggregator is, as host:port.
      server_name: The host that the aggregator's certificate must name.
      plan: The plan's canonical JSON.
      plan_sha256: Its hash.
      roster: Identity keys of all partners by name; empty without secure aggregation.
      demo: Whether the operator made this partner's keys: then nothing is promised.
    """

    kind: ClassVar[str] = "invitation"
    most_bytes: ClassVar[int] = 2 * MOST_PLAN_BYTES + MOST_PARTNERS * 128 + 64 * 1024

    client_id: ClientId
    certificate: Pem
    authority: Pem
    operator_key: KeyText
    address: Annotated[str, Field(pattern=_ADDRESS)]
    server_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,253}$")]
    plan: Annotated[str, Field(max_length=MOST_PLAN_BYTES)]
    plan_sha256: Sha256
    roster: Annotated[dict[ClientId, KeyText], Field(max_length=MOST_PARTNERS)] = {}
    demo: bool

    @property
    def fingerprint(self) -> str:
        """Of the operator's key: eight words to compare over the phone."""
        return fingerprint(public_key_from(self.operator_key))

    @property
    def authority_pem(self) -> bytes:
        """The authority's certificate, for TLS."""
        return self.authority.encode()

    def parsed_plan(self) -> Plan:
        """The plan."""
        return Plan.from_bytes(self.plan.encode())

    @classmethod
    def from_bytes(cls, data: bytes) -> "Invitation":
        """The invitation in ``data``: unchanged, and with the plan that it names.

        Raises:
          IdentityError: With the reason.
        """
        invitation = cls.parsed(data)
        invitation.check_signature(public_key_from(invitation.operator_key))
        for key in invitation.roster.values():
            public_key_from(key)
        try:
            invitation.parsed_plan()
        except WireError as error:
            raise IdentityError(f"The invitation's plan: {error}") from None
        if (
            hashlib.sha256(invitation.plan.encode()).hexdigest()
            != invitation.plan_sha256
        ):
            raise IdentityError("The invitation's plan is not the one that it names.")
        return invitation

    def check_certificate(self, *, now: datetime.datetime) -> x509.Certificate:
        """The leaf, checked to be this authority's, for this client, and of today.

        Raises:
          IdentityError: With the reason.
        """
        authority = certificate_in(self.authority)
        check_dates(authority, now=now)
        leaf = certificate_in(self.certificate)
        uri = client_uri(self.client_id)
        check_leaf(leaf, authority=authority, uri=uri, now=now)
        return leaf


def read_request(path: Path) -> EnrolmentRequest:
    """The request in a file."""
    return EnrolmentRequest.from_bytes(_content(path, EnrolmentRequest.most_bytes))


def read_invitation(path: Path) -> Invitation:
    """The invitation in a file."""
    return Invitation.from_bytes(_content(path, Invitation.most_bytes))


def signed_document(
    document: type[_Document], content: dict[str, Any], key: Ed25519PrivateKey
) -> _Document:
    """A ``document`` with ``content``, signed with ``key``.

    Raises:
      IdentityError: If a field of ``content`` is not allowed.
    """
    try:
        unsigned = document(**content, signature="0" * 128)
    except pydantic.ValidationError as error:
        first: Any = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise IdentityError(
            f"{where} of the {document.kind}: {first['msg']}."
        ) from None
    signature = key.sign(unsigned.signed_bytes()).hex()
    return unsigned.model_copy(update={"signature": signature})


def _canonical(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, sort_keys=True, indent=1, allow_nan=False)
    return text.encode("ascii") + b"\n"


def _content(path: Path, most_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most_bytes + 1)
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}.") from None
