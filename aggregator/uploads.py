"""A contribution on its way from a client to the disk, checked before it counts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from aggregator.spool import SpoolWriter, is_finite
from fedtrain.core.errors import FedtrainError, WireError
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.messages_pb2 import (
    BUSY,
    MALFORMED,
    NON_FINITE,
    WRONG_SHAPE,
    Code,
    Receipt,
)

BUSY_WAIT_MS = 2000


class RefusedError(FedtrainError):
    """A contribution that is not taken. The round goes on as if it had not come.

    Attributes:
      code: Why, for the client's program.
      text: Why, for people.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    @property
    def receipt(self) -> Receipt:
        """The answer to the client."""
        wait_ms = BUSY_WAIT_MS if self.code == BUSY else 0
        return Receipt(code=self.code, text=self.text, wait_ms=wait_ms)


class Declared(NamedTuple):
    """What the client said it would send.

    Attributes:
      num_bytes: Length, which is that of the plan's arrays.
      sha256: Of the content, in hexadecimal.
      specs: What it is.
    """

    num_bytes: int
    sha256: str
    specs: Sequence[ArraySpec]


class Upload:
    """Takes the bytes of one contribution; ``finish`` or ``abandon`` ends it.

    Args:
      path: Where the contribution will lie.
      declared: What it must be.
      settle: Called with ACCEPTED once it lies there, or with NON_FINITE; its answer is
        the client's.
      ended: Called once, at the end.
    """

    def __init__(
        self,
        path: Path,
        declared: Declared,
        *,
        settle: Callable[[Code], Receipt],
        ended: Callable[[], None],
    ) -> None:
        self._path = path
        self._declared = declared
        self._settle = settle
        self._ended = ended
        try:
            self._writer = SpoolWriter(path.parent, path.name)
        except OSError as error:
            ended()
            raise _disk_refused(error) from error

    @property
    def num_bytes(self) -> int:
        """How much has come so far."""
        return self._writer.num_bytes

    def write(self, content: bytes | memoryview) -> None:
        """Takes the next bytes.

        Raises:
          RefusedError: If there are more than were declared, or the disk is full.
        """
        if self._writer.num_bytes + len(content) > self._declared.num_bytes:
            raise RefusedError(
                MALFORMED,
                f"More than the declared {self._declared.num_bytes} bytes came.",
            )
        try:
            self._writer.write(content)
        except OSError as error:
            raise _disk_refused(error) from error

    def finish(self) -> Receipt:
        """Checks what came, makes it durable, and has it counted.

        Raises:
          RefusedError: If it is not what was declared, or cannot be kept now.
        """
        try:
            self._check_content()
            if not self._is_finite():
                return self._settle(NON_FINITE)
            try:
                self._writer.keep(self._path)
            except OSError as error:
                raise _disk_refused(error) from error
            return self._settle(Code.ACCEPTED)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Forgets what came, unless it was counted; safe to call again."""
        self._writer.drop()
        ended, self._ended = self._ended, _nothing
        ended()

    def _check_content(self) -> None:
        found, declared = self._writer.num_bytes, self._declared
        if found != declared.num_bytes:
            raise RefusedError(
                MALFORMED, f"{found} of the declared {declared.num_bytes} bytes came."
            )
        if self._writer.sha256 != declared.sha256:
            raise RefusedError(
                MALFORMED, "The bytes that came do not have the declared hash."
            )

    def _is_finite(self) -> bool:
        try:
            return is_finite(self._writer.path, self._declared.specs)
        except WireError as error:
            raise RefusedError(WRONG_SHAPE, str(error)) from error


def _disk_refused(error: OSError) -> RefusedError:
    return RefusedError(
        BUSY, f"The aggregator cannot keep the contribution now ({error.strerror})."
    )


def _nothing() -> None:
    pass
