"""Feeds a decoder of strangers' bytes with what libFuzzer thinks up (atheris).

    pip install atheris
    python simulations/fuzzing/fuzz_decoders.py plan -runs=1000000 -rss_limit_mb=512

Starts from a good document. Ends at the first exception that the decoder does not
declare, at an input that takes longer than ``-timeout`` seconds, and when the process
grows above the limit.
"""

import datetime
import hashlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fedtrain.wire"]):
    from fedtrain.core.errors import IdentityError, WireError
    from fedtrain.core.packing import Packing
    from fedtrain.wire import messages_pb2 as pb
    from fedtrain.wire.arrays import ArraySpec, from_bytes, to_bytes
    from fedtrain.wire.certificates import certificate_in, check_leaf, requested_key
    from fedtrain.wire.decoding import decoded
    from fedtrain.wire.enrolment import EnrolmentRequest, Invitation
    from fedtrain.wire.identity import new_keys
    from fedtrain.wire.plan import Plan
    from fedtrain.wire.plan_words import in_words
    from fedtrain.wire.signing import signed, verified
    from fedtrain.wire.transfer import received, sent

import numpy as np

from aggregator.authority import Terms, init

SPECS = [ArraySpec((3, 2), "float32"), ArraySpec((), "int64"), ArraySpec((5,), "bool")]
PACKED = [
    ArraySpec((), "float32"),
    *(ArraySpec((7,), "float32", Packing(num_bits=bits)) for bits in (8, 4)),
    ArraySpec((7,), "float32", Packing(num_kept=3)),
]
CONTENT = bytes(range(256)) * 8
Decoder = Callable[[bytes], object]


def decoders(folder: Path) -> dict[str, tuple[Decoder, bytes]]:
    """Each decoder with a document that it accepts, by name."""
    plan = _plan()
    authority = init(folder / "operator", name="fuzz", hosts=["localhost"])
    keys = new_keys(folder / "bank-a")
    request = EnrolmentRequest.of("bank-a", keys)
    invitation = authority.admit(request, Terms(plan, "localhost:1", "localhost"))
    own = certificate_in(authority.authority_pem)
    now = datetime.datetime.now(datetime.UTC)
    call = pb.SignedRequest(client_id="bank-a", run_id="r", sequence=1, body=b"body")

    def invitation_in(data: bytes) -> None:
        Invitation.from_bytes(data).check_certificate(now=now)

    def plan_in(data: bytes) -> None:
        in_words(Plan.from_bytes(data))

    def certificate(data: bytes) -> None:
        uri = "fedtrain://client/bank-a"
        check_leaf(certificate_in(data), authority=own, uri=uri, now=now)

    def signed_request(data: bytes) -> None:
        message = decoded(pb.SignedRequest, data)
        public = keys.identity.public_key()
        verified(message, "Next", public, client_id="bank-a", run_id="r")

    def stream(data: bytes) -> None:
        size, digest = len(CONTENT), hashlib.sha256(CONTENT).digest()
        chunks = received([data], num_bytes=size, sha256=digest, encoding=pb.ZLIB)
        for _ in chunks:
            pass

    arrays = [np.ones((3, 2), np.float32), np.array(7), np.ones(5, bool)]
    steps = np.array([0, 1, -2, 0, 3, 0, 0], np.float32)
    packed = [np.array(1, np.float32), steps, steps, steps]
    return {
        "arrays": (lambda data: from_bytes(SPECS, data), to_bytes(SPECS, arrays)),
        "packed": (lambda data: from_bytes(PACKED, data), to_bytes(PACKED, packed)),
        "certificate": (certificate, invitation.certificate.encode()),
        "certificate_request": (
            lambda data: requested_key(data, client_id="bank-a"),
            request.certificate_request.encode(),
        ),
        "invitation": (invitation_in, invitation.to_bytes()),
        "plan": (plan_in, plan.canonical()),
        "request": (EnrolmentRequest.from_bytes, request.to_bytes()),
        "signed_request": (
            signed_request,
            signed(call, "Next", keys.identity).SerializeToString(),
        ),
        "stream": (stream, b"".join(sent([CONTENT], pb.ZLIB))),
    }


def main() -> None:
    """Fuzzes the decoder that the first argument names, for ever or for ``-runs``."""
    folder = Path(tempfile.mkdtemp())
    known = decoders(folder)
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in known:
        sys.exit(f"Name a decoder: {', '.join(known)}.")
    decode, good = known[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    (corpus / "good").write_bytes(good)
    decode(good)

    def one_input(data: bytes) -> None:
        try:
            decode(data)
        except (IdentityError, WireError):
            return

    atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], one_input)
    atheris.Fuzz()


def _plan() -> Plan:
    return Plan(
        name="fuzz",
        operator="Nobody",
        software="fedtrain",
        task={"sections": {"model": {"hidden": [8]}}, "schema": {}},
        broadcast=tuple(SPECS),
        contribution=tuple(SPECS),
        num_rounds=1,
        report_goal=1,
        least_reports=1,
        deadline_s=1.0,
        privacy=None,
        leaves=("Nothing.",),
    )


if __name__ == "__main__":
    main()
