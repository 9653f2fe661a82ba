"""What ends a session or a message, and who is named for it.

A name is worth what signatures prove. ``proven`` says that anybody who holds the
messages can check it; without it, one of those named is at fault and nobody can say
which.
"""

from dataclasses import dataclass

from fedtrain.core.errors import WireError

OPERATOR = ""


@dataclass(frozen=True)
class Blame:
    """Who did what.

    Attributes:
      suspects: Client ids; the empty one is the aggregator, which relays everything.
      reason: What was wrong, without secrets.
      proven: Whether signed messages prove it; only for a single suspect.
    """

    suspects: tuple[str, ...]
    reason: str
    proven: bool


class UnauthenticError(WireError):
    """A message that nobody provably sent: it is left out, the session goes on."""


class BreachError(WireError):
    """A signed message that breaks the protocol.

    A client that raises it has left the session and dropped its secrets. ``blame``
    names who is at fault; ``complaint`` is what the client still sends, or empty.
    """

    def __init__(self, blame: Blame, complaint: bytes = b"") -> None:
        names = " or ".join(name or "the aggregator" for name in blame.suspects)
        super().__init__(f"{names}: {blame.reason}")
        self.blame = blame
        self.complaint = complaint


def relay_breach(reason: str) -> BreachError:
    """The aggregator signed something that no honest one signs."""
    return BreachError(Blame((OPERATOR,), reason, proven=True))
