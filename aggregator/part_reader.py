"""The parts of an upload, read by a thread from a stream of the event loop."""

import asyncio
import concurrent.futures
import time
from collections.abc import AsyncIterator, Iterator

from aggregator.caller import parsed
from aggregator.uploads import RefusedError
from fedtrain.wire import messages_pb2 as pb


class PartReader:
    """Hands the content of a stream's parts to a thread, one at a time.

    Args:
      raws: The stream: serialised parts.
      loop: Where it can be read.
      idle_s: Longest wait for the next part.
    """

    def __init__(
        self,
        raws: AsyncIterator[bytes],
        loop: asyncio.AbstractEventLoop,
        *,
        idle_s: float,
    ) -> None:
        self._raws = raws
        self._loop = loop
        self._idle_s = idle_s
        self._pending: concurrent.futures.Future[bytes | None] | None = None
        self._is_cancelled = False

    async def first(self) -> bytes:
        """The first part, for whoever is on the event loop.

        Raises:
          RefusedError: If none comes.
        """
        try:
            raw = await asyncio.wait_for(self._next(), self._idle_s)
        except TimeoutError:
            raise _too_slow(self._idle_s) from None
        if raw is None:
            raise RefusedError(pb.MALFORMED, "The stream has no parts.")
        return raw

    def contents(self, *, timeout_s: float) -> Iterator[bytes]:
        """The content of all further parts, for a thread; waits for each.

        Raises:
          RefusedError: If a part is late, all take longer than ``timeout_s``, or the
            call has ended.
        """
        give_up = time.monotonic() + timeout_s
        while (raw := self._waited_for(give_up)) is not None:
            part = parsed(pb.SubmitPart, raw)
            if part.WhichOneof("part") != "content":
                raise RefusedError(pb.MALFORMED, "Only the first part is a header.")
            yield part.content

    def cancel(self) -> None:
        """Ends the waiting of the thread: the call is over."""
        self._is_cancelled = True
        if self._pending is not None:
            self._pending.cancel()

    def _waited_for(self, give_up: float) -> bytes | None:
        left_s = min(self._idle_s, give_up - time.monotonic())
        if left_s <= 0:
            raise _too_slow(self._idle_s)
        self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        if self._is_cancelled:
            self._pending.cancel()
        try:
            return self._pending.result(left_s)
        except TimeoutError:
            self._pending.cancel()
            raise _too_slow(left_s) from None
        except concurrent.futures.CancelledError:
            raise RefusedError(pb.MALFORMED, "The call ended early.") from None

    async def _next(self) -> bytes | None:
        return await anext(self._raws, None)


def _too_slow(seconds: float) -> RefusedError:
    return RefusedError(
        pb.BUSY, f"Nothing came for {seconds:.0f} s, or too slowly; send it again."
    )
