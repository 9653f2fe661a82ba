from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Code(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CODE_UNSPECIFIED: _ClassVar[Code]
    ACCEPTED: _ClassVar[Code]
    DUPLICATE: _ClassVar[Code]
    LATE: _ClassVar[Code]
    NOT_INVITED: _ClassVar[Code]
    MALFORMED: _ClassVar[Code]
    WRONG_SHAPE: _ClassVar[Code]
    NON_FINITE: _ClassVar[Code]
    CONFLICT: _ClassVar[Code]
    REFUSED: _ClassVar[Code]
    WRONG_PLAN: _ClassVar[Code]
    WRONG_VERSION: _ClassVar[Code]
    BUSY: _ClassVar[Code]

class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RAW: _ClassVar[Encoding]
    ZLIB: _ClassVar[Encoding]

class TaskKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[TaskKind]
    WAIT: _ClassVar[TaskKind]
    TRAIN: _ClassVar[TaskKind]
    EVALUATE: _ClassVar[TaskKind]
    FINISHED: _ClassVar[TaskKind]
    STOPPED: _ClassVar[TaskKind]

class SecureStep(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NO_STEP: _ClassVar[SecureStep]
    KEYS: _ClassVar[SecureStep]
    SHARES: _ClassVar[SecureStep]
    INPUT: _ClassVar[SecureStep]
    CONSISTENCY: _ClassVar[SecureStep]
    UNMASKING: _ClassVar[SecureStep]
    COMPLAINT: _ClassVar[SecureStep]
CODE_UNSPECIFIED: Code
ACCEPTED: Code
DUPLICATE: Code
LATE: Code
NOT_INVITED: Code
MALFORMED: Code
WRONG_SHAPE: Code
NON_FINITE: Code
CONFLICT: Code
REFUSED: Code
WRONG_PLAN: Code
WRONG_VERSION: Code
BUSY: Code
RAW: Encoding
ZLIB: Encoding
TASK_UNSPECIFIED: TaskKind
WAIT: TaskKind
TRAIN: TaskKind
EVALUATE: TaskKind
FINISHED: TaskKind
STOPPED: TaskKind
NO_STEP: SecureStep
KEYS: SecureStep
SHARES: SecureStep
INPUT: SecureStep
CONSISTENCY: SecureStep
UNMASKING: SecureStep
COMPLAINT: SecureStep

class SignedRequest(_message.Message):
    __slots__ = ("client_id", "run_id", "round_number", "sequence", "nonce", "body", "signature")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    run_id: str
    round_number: int
    sequence: int
    nonce: bytes
    body: bytes
    signature: bytes
    def __init__(self, client_id: _Optional[str] = ..., run_id: _Optional[str] = ..., round_number: _Optional[int] = ..., sequence: _Optional[int] = ..., nonce: _Optional[bytes] = ..., body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("protocol_versions", "software")
    PROTOCOL_VERSIONS_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    protocol_versions: _containers.RepeatedScalarFieldContainer[int]
    software: str
    def __init__(self, protocol_versions: _Optional[_Iterable[int]] = ..., software: _Optional[str] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("code", "text", "protocol_version", "run_id", "plan")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    RUN_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    code: Code
    text: str
    protocol_version: int
    run_id: str
    plan: bytes
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., text: _Optional[str] = ..., protocol_version: _Optional[int] = ..., run_id: _Optional[str] = ..., plan: _Optional[bytes] = ...) -> None: ...

class NextRequest(_message.Message):
    __slots__ = ("plan_sha256", "wait_ms", "status")
    PLAN_SHA256_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    plan_sha256: bytes
    wait_ms: int
    status: str
    def __init__(self, plan_sha256: _Optional[bytes] = ..., wait_ms: _Optional[int] = ..., status: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("code", "text", "kind", "round_number", "attempt", "deadline_unix_ms", "broadcast_bytes", "broadcast_sha256", "info", "wait_ms", "encoding", "step", "step_message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUND_NUMBER_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_UNIX_MS_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_BYTES_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_SHA256_FIELD_NUMBER: _ClassVar[int]
    INFO_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: Code
    text: str
    kind: TaskKind
    round_number: int
    attempt: int
    deadline_unix_ms: int
    broadcast_bytes: int
    broadcast_sha256: bytes
    info: bytes
    wait_ms: int
    encoding: Encoding
    step: SecureStep
    step_message: bytes
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., text: _Optional[str] = ..., kind: _Optional[_Union[TaskKind, str]] = ..., round_number: _Optional[int] = ..., attempt: _Optional[int] = ..., deadline_unix_ms: _Optional[int] = ..., broadcast_bytes: _Optional[int] = ..., broadcast_sha256: _Optional[bytes] = ..., info: _Optional[bytes] = ..., wait_ms: _Optional[int] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., step: _Optional[_Union[SecureStep, str]] = ..., step_message: _Optional[bytes] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("attempt", "kind")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    kind: TaskKind
    def __init__(self, attempt: _Optional[int] = ..., kind: _Optional[_Union[TaskKind, str]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("content",)
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    def __init__(self, content: _Optional[bytes] = ...) -> None: ...

class SubmitHeader(_message.Message):
    __slots__ = ("attempt", "kind", "num_bytes", "sha256", "plan_sha256", "encoding", "audit_length", "audit_sha256", "step", "step_message")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    PLAN_SHA256_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    AUDIT_LENGTH_FIELD_NUMBER: _ClassVar[int]
    AUDIT_SHA256_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEP_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    attempt: int
    kind: TaskKind
    num_bytes: int
    sha256: bytes
    plan_sha256: bytes
    encoding: Encoding
    audit_length: int
    audit_sha256: bytes
    step: SecureStep
    step_message: bytes
    def __init__(self, attempt: _Optional[int] = ..., kind: _Optional[_Union[TaskKind, str]] = ..., num_bytes: _Optional[int] = ..., sha256: _Optional[bytes] = ..., plan_sha256: _Optional[bytes] = ..., encoding: _Optional[_Union[Encoding, str]] = ..., audit_length: _Optional[int] = ..., audit_sha256: _Optional[bytes] = ..., step: _Optional[_Union[SecureStep, str]] = ..., step_message: _Optional[bytes] = ...) -> None: ...

class SubmitPart(_message.Message):
    __slots__ = ("header", "content")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    header: SignedRequest
    content: bytes
    def __init__(self, header: _Optional[_Union[SignedRequest, _Mapping]] = ..., content: _Optional[bytes] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("code", "text", "wait_ms")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    code: Code
    text: str
    wait_ms: int
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., text: _Optional[str] = ..., wait_ms: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("certificate_request",)
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("code", "text", "certificate")
    CODE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    code: Code
    text: str
    certificate: bytes
    def __init__(self, code: _Optional[_Union[Code, str]] = ..., text: _Optional[str] = ..., certificate: _Optional[bytes] = ...) -> None: ...
