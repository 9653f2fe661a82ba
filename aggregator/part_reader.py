"""The parts of an upload, read by a thread from a stream of the event loop.

The loop reads a few parts ahead and hands them over together: a change of threads for
each of them would take longer than what is done with it.
"""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import AsyncIterator, Iterator

from aggregator.caller import parsed
from aggregator.uploads import RefusedError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.framing import content_of

_NUM_AHEAD = 4


class PartReader:
    """Hands the content of a stream's parts to a thread.

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
        self._changed = threading.Condition()
        self._ahead: list[bytes] = []
        self._seen_at = 0.0
        self._is_over = False
        self._is_cancelled = False
        self._has_room = asyncio.Event()
        self._reading: concurrent.futures.Future[None] | None = None

    async def first(self) -> bytes:
        """The first part, for whoever is on the event loop.

        Raises:
          RefusedError: If none comes.
        """
        try:
            raw = await asyncio.wait_for(anext(self._raws, None), self._idle_s)
        except TimeoutError:
            raise _too_slow(self._idle_s) from None
        if raw is None:
            raise RefusedError(pb.MALFORMED, "The stream has no parts.")
        return raw

    def contents(self, *, timeout_s: float) -> Iterator[memoryview]:
        """The content of all further parts, for a thread; waits for them.

        Raises:
          RefusedError: If a part is late, all take longer than ``timeout_s``, or the
            call has ended.
        """
        self._seen_at = time.monotonic()
        give_up = self._seen_at + timeout_s
        self._reading = asyncio.run_coroutine_threadsafe(self._read(), self._loop)
        while raws := self._taken(give_up):
            for raw in raws:
                yield _content(raw)

    def cancel(self) -> None:
        """Ends the waiting of the thread: the call is over."""
        with self._changed:
            self._is_cancelled = True
            self._changed.notify()
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self) -> None:
        """Runs on the event loop."""
        try:
            async for raw in self._raws:
                self._has_room.clear()
                if self._put(raw) >= _NUM_AHEAD:
                    await self._has_room.wait()
            self._is_over = True
        finally:
            with self._changed:
                self._is_cancelled = self._is_cancelled or not self._is_over
                self._changed.notify()

    def _put(self, raw: bytes) -> int:
        with self._changed:
            self._ahead.append(raw)
            self._seen_at = time.monotonic()
            if len(self._ahead) >= _NUM_AHEAD:
                self._changed.notify()
            return len(self._ahead)

    def _taken(self, give_up: float) -> list[bytes]:
        """What is ahead, once that is worth it; nothing at the end."""
        with self._changed:
            while len(self._ahead) < _NUM_AHEAD and not self._is_over:
                left_s = min(self._seen_at + self._idle_s, give_up) - time.monotonic()
                if self._is_cancelled:
                    raise RefusedError(pb.MALFORMED, "The call ended early.")
                if left_s <= 0:
                    raise _too_slow(self._idle_s)
                self._changed.wait(left_s)
            taken, self._ahead = self._ahead, []
            self._seen_at = time.monotonic()  # until now it was for us to go on
        self._loop.call_soon_threadsafe(self._has_room.set)
        return taken


def _content(raw: bytes) -> memoryview:
    content = content_of(pb.SubmitPart.CONTENT_FIELD_NUMBER, raw)
    if content is None:
        parsed(pb.SubmitPart, raw)
        raise RefusedError(
            pb.MALFORMED, "Every part but the first is content, and not empty."
        )
    return content


def _too_slow(seconds: float) -> RefusedError:
    return RefusedError(
        pb.BUSY, f"Nothing came for {seconds:.0f} s, or too slowly; send it again."
    )
