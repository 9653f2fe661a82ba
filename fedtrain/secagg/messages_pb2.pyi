from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KIND_UNSPECIFIED: _ClassVar[Kind]
    ROSTER: _ClassVar[Kind]
    ADVERTISEMENT: _ClassVar[Kind]
    KEYS: _ClassVar[Kind]
    DEAL: _ClassVar[Kind]
    DELIVERY: _ClassVar[Kind]
    COMPLAINT: _ClassVar[Kind]
    MASKED_INPUT: _ClassVar[Kind]
    SURVIVORS: _ClassVar[Kind]
    CONSISTENCY: _ClassVar[Kind]
    UNMASK_REQUEST: _ClassVar[Kind]
    UNMASK: _ClassVar[Kind]
KIND_UNSPECIFIED: Kind
ROSTER: Kind
ADVERTISEMENT: Kind
KEYS: Kind
DEAL: Kind
DELIVERY: Kind
COMPLAINT: Kind
MASKED_INPUT: Kind
SURVIVORS: Kind
CONSISTENCY: Kind
UNMASK_REQUEST: Kind
UNMASK: Kind

class Envelope(_message.Message):
    __slots__ = ("session", "kind", "sender", "body", "signature")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    session: bytes
    kind: Kind
    sender: str
    body: bytes
    signature: bytes
    def __init__(self, session: _Optional[bytes] = ..., kind: _Optional[_Union[Kind, str]] = ..., sender: _Optional[str] = ..., body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Member(_message.Message):
    __slots__ = ("client_id", "identity_key")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    IDENTITY_KEY_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    identity_key: bytes
    def __init__(self, client_id: _Optional[str] = ..., identity_key: _Optional[bytes] = ...) -> None: ...

class RosterBody(_message.Message):
    __slots__ = ("version", "plan_sha256", "round_number", "attempt", "nonce", "threshold", "num_colluding", "num_honest_survivors", "vector_length", "members")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLAN_SHA256_FIELD_NUMBER: _ClassVar[int]
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    NUM_COLLUDING_FIELD_NUMBER: _ClassVar[int]
    NUM_HONEST_SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_LENGTH_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    version: int
    plan_sha256: bytes
    round_number: int
    attempt: int
    nonce: bytes
    threshold: int
    num_colluding: int
    num_honest_survivors: int
    vector_length: int
    members: _containers.RepeatedCompositeFieldContainer[Member]
    def __init__(self, version: _Optional[int] = ..., plan_sha256: _Optional[bytes] = ..., round_number: _Optional[int] = ..., attempt: _Optional[int] = ..., nonce: _Optional[bytes] = ..., threshold: _Optional[int] = ..., num_colluding: _Optional[int] = ..., num_honest_survivors: _Optional[int] = ..., vector_length: _Optional[int] = ..., members: _Optional[_Iterable[_Union[Member, _Mapping]]] = ...) -> None: ...

class Advertisement(_message.Message):
    __slots__ = ("encryption_key", "masking_key")
    ENCRYPTION_KEY_FIELD_NUMBER: _ClassVar[int]
    MASKING_KEY_FIELD_NUMBER: _ClassVar[int]
    encryption_key: bytes
    masking_key: bytes
    def __init__(self, encryption_key: _Optional[bytes] = ..., masking_key: _Optional[bytes] = ...) -> None: ...

class Keys(_message.Message):
    __slots__ = ("advertisements",)
    ADVERTISEMENTS_FIELD_NUMBER: _ClassVar[int]
    advertisements: _containers.RepeatedCompositeFieldContainer[Envelope]
    def __init__(self, advertisements: _Optional[_Iterable[_Union[Envelope, _Mapping]]] = ...) -> None: ...

class DealtTo(_message.Message):
    __slots__ = ("holder", "seed_commitment", "key_commitment", "box_sha256")
    HOLDER_FIELD_NUMBER: _ClassVar[int]
    SEED_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    KEY_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    BOX_SHA256_FIELD_NUMBER: _ClassVar[int]
    holder: str
    seed_commitment: bytes
    key_commitment: bytes
    box_sha256: bytes
    def __init__(self, holder: _Optional[str] = ..., seed_commitment: _Optional[bytes] = ..., key_commitment: _Optional[bytes] = ..., box_sha256: _Optional[bytes] = ...) -> None: ...

class Deal(_message.Message):
    __slots__ = ("keys_sha256", "seed_commitment", "key_commitment", "dealt")
    KEYS_SHA256_FIELD_NUMBER: _ClassVar[int]
    SEED_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    KEY_COMMITMENT_FIELD_NUMBER: _ClassVar[int]
    DEALT_FIELD_NUMBER: _ClassVar[int]
    keys_sha256: bytes
    seed_commitment: bytes
    key_commitment: bytes
    dealt: _containers.RepeatedCompositeFieldContainer[DealtTo]
    def __init__(self, keys_sha256: _Optional[bytes] = ..., seed_commitment: _Optional[bytes] = ..., key_commitment: _Optional[bytes] = ..., dealt: _Optional[_Iterable[_Union[DealtTo, _Mapping]]] = ...) -> None: ...

class DealUpload(_message.Message):
    __slots__ = ("deal", "boxes")
    DEAL_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    deal: Envelope
    boxes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, deal: _Optional[_Union[Envelope, _Mapping]] = ..., boxes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Delivered(_message.Message):
    __slots__ = ("deal", "box")
    DEAL_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    deal: Envelope
    box: bytes
    def __init__(self, deal: _Optional[_Union[Envelope, _Mapping]] = ..., box: _Optional[bytes] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("deals",)
    DEALS_FIELD_NUMBER: _ClassVar[int]
    deals: _containers.RepeatedCompositeFieldContainer[Delivered]
    def __init__(self, deals: _Optional[_Iterable[_Union[Delivered, _Mapping]]] = ...) -> None: ...

class Complaint(_message.Message):
    __slots__ = ("deal", "box", "box_key")
    DEAL_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    BOX_KEY_FIELD_NUMBER: _ClassVar[int]
    deal: Envelope
    box: bytes
    box_key: bytes
    def __init__(self, deal: _Optional[_Union[Envelope, _Mapping]] = ..., box: _Optional[bytes] = ..., box_key: _Optional[bytes] = ...) -> None: ...

class MaskedInput(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: bytes
    def __init__(self, sha256: _Optional[bytes] = ...) -> None: ...

class Survivors(_message.Message):
    __slots__ = ("transcript_sha256", "shared", "survivors")
    TRANSCRIPT_SHA256_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    SURVIVORS_FIELD_NUMBER: _ClassVar[int]
    transcript_sha256: bytes
    shared: _containers.RepeatedScalarFieldContainer[str]
    survivors: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, transcript_sha256: _Optional[bytes] = ..., shared: _Optional[_Iterable[str]] = ..., survivors: _Optional[_Iterable[str]] = ...) -> None: ...

class UnmaskRequest(_message.Message):
    __slots__ = ("signatures",)
    SIGNATURES_FIELD_NUMBER: _ClassVar[int]
    signatures: _containers.RepeatedCompositeFieldContainer[Envelope]
    def __init__(self, signatures: _Optional[_Iterable[_Union[Envelope, _Mapping]]] = ...) -> None: ...

class OpenedShare(_message.Message):
    __slots__ = ("dealer", "value", "nonce")
    DEALER_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    dealer: str
    value: bytes
    nonce: bytes
    def __init__(self, dealer: _Optional[str] = ..., value: _Optional[bytes] = ..., nonce: _Optional[bytes] = ...) -> None: ...

class Unmask(_message.Message):
    __slots__ = ("seeds", "keys")
    SEEDS_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    seeds: _containers.RepeatedCompositeFieldContainer[OpenedShare]
    keys: _containers.RepeatedCompositeFieldContainer[OpenedShare]
    def __init__(self, seeds: _Optional[_Iterable[_Union[OpenedShare, _Mapping]]] = ..., keys: _Optional[_Iterable[_Union[OpenedShare, _Mapping]]] = ...) -> None: ...
