"""Parts of an upload reach the thread in order, and only as many as it has room for."""

import asyncio
import threading

import pytest

from aggregator.part_reader import PartReader
from aggregator.uploads import RefusedError
from fedtrain.wire import messages_pb2 as pb
from fedtrain.wire.framing import framed

LONG_S = 600.0
END_S = 300.0  # a thread that hangs fails its test and not the whole process


@pytest.fixture
def loop():
    """An event loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield loop
    asyncio.run_coroutine_threadsafe(_ended(), loop).result(END_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(END_S)
    loop.close()


async def _ended():
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


def part(number):
    return framed(pb.SubmitPart.CONTENT_FIELD_NUMBER, b"%d" % number)


class Stream:
    """Gives parts; then waits for ever, if it is to hang."""

    def __init__(self, parts, *, hangs=False):
        self.parts = list(parts)
        self.num_read = 0
        self.hangs = hangs

    async def __aiter__(self):
        for one in self.parts:
            self.num_read += 1
            yield one
        if self.hangs:
            await asyncio.Event().wait()


def reader(stream, loop, idle_s=LONG_S):
    return PartReader(aiter(stream), loop, idle_s=idle_s)


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5, 8, 50])
def test_all_parts_come_in_order(loop, number):
    stream = Stream(map(part, range(number)))
    contents = reader(stream, loop).contents(timeout_s=LONG_S)
    assert [int(bytes(one)) for one in contents] == list(range(number))


def test_few_parts_are_read_ahead(loop):
    stream = Stream(map(part, range(100)))
    contents = reader(stream, loop).contents(timeout_s=LONG_S)
    for number in range(100):
        assert int(bytes(next(contents))) == number
        assert stream.num_read <= number + 9


@pytest.mark.parametrize(("idle_s", "timeout_s"), [(0.05, LONG_S), (LONG_S, 0.05)])
def test_a_stream_that_stops_is_refused(loop, idle_s, timeout_s):
    found = reader(Stream([part(0)], hangs=True), loop, idle_s=idle_s)
    with pytest.raises(RefusedError, match="too slowly") as refused:
        list(found.contents(timeout_s=timeout_s))
    assert refused.value.code == pb.BUSY
    found.cancel()


def test_a_call_that_ends_frees_the_thread(loop):
    found = reader(Stream([part(0)], hangs=True), loop)
    loop.call_soon_threadsafe(found.cancel)
    with pytest.raises(RefusedError, match="ended early"):
        list(found.contents(timeout_s=LONG_S))


def test_a_stream_that_breaks_is_refused(loop):
    class Broken(Stream):
        async def __aiter__(self):
            yield part(0)
            raise ConnectionError

    with pytest.raises(RefusedError, match="ended early"):
        list(reader(Broken([]), loop).contents(timeout_s=LONG_S))


@pytest.mark.parametrize(
    "raw", [b"", b"\x12\x00", b"junk", pb.SubmitPart(header={}).SerializeToString()]
)
def test_what_is_no_content_is_refused(loop, raw):
    found = reader(Stream([part(0), raw]), loop)
    with pytest.raises(RefusedError) as refused:
        list(found.contents(timeout_s=LONG_S))
    assert refused.value.code == pb.MALFORMED
