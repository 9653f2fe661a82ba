import asyncio
import contextlib
import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client import CollectorRegistry, Gauge

from aggregator.page import Doors, Page
from aggregator.page_access import COOKIE, SESSION_S, Access, token_in
from aggregator.page_html import fragment, page
from aggregator.page_state import Shown, page_state
from aggregator.seen import read_seen
from fedtrain.core.errors import ConfigError, IdentityError
from fedtrain.wire.identity import TlsPair
from tests.unit.aggregator.served_run import Federation
from tests.unit.aggregator.shown_page import NAMES, STATES, shown_in, write_run

pytestmark = pytest.mark.network
TOKEN = "t" * 43


class Got(NamedTuple):
    status: int
    text: str
    headers: dict[str, str]


class Door(NamedTuple):
    """A running page, and what it shows."""

    page: Page
    shown: Shown
    folder: Path
    federation: Federation

    def get(
        self,
        path: str,
        *,
        token: str | None = None,
        pair: TlsPair | None = None,
        cookie: str = "",
        data: bytes | None = None,
    ) -> Got:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        headers |= {"Cookie": cookie} if cookie else {}
        request = urllib.request.Request(
            f"https://localhost:{self.page.port}{path}", data, headers
        )
        opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=self._context(pair)), _Stay()
        )
        try:
            with opener.open(request, timeout=20) as answer:
                return Got(answer.status, answer.read().decode(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Got(error.code, error.read().decode(), dict(error.headers))

    def _context(self, pair: TlsPair | None) -> ssl.SSLContext:
        pem = self.federation.authority.authority_pem.decode()
        context = ssl.create_default_context(cadata=pem)
        if pair is not None:
            path = self.folder / "shown.pem"
            path.write_bytes(pair.key_pem + pair.certificate_pem)
            context.load_cert_chain(path)
        return context


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


@contextlib.contextmanager
def opened(shown: Shown, folder: Path, address: str = "localhost:0") -> Iterator[Page]:
    registry = CollectorRegistry()
    Gauge("fedtrain_round_number", "Newest round.", registry=registry).set(2)
    access = Access(TOKEN, shown.authority)
    served = Page(shown, Doors(address, access, registry, folder / "seen.json"))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def wait_for(step):
        return asyncio.run_coroutine_threadsafe(step, loop).result(20)

    try:
        wait_for(served.start())
        yield served
        wait_for(served.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def door(tmp_path_factory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("page")
    federation = Federation.of(folder / "other", NAMES)
    with shown_in(STATES[1], folder) as shown:
        shown = shown._replace(authority=federation.authority)
        with opened(shown, folder) as served:
            yield Door(served, shown, folder, federation)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (STATES[0], ["Nobody is admitted yet.", "not admitted", "No run has begun"]),
        (STATES[1], ["Round 3 of 5 waits for bank-c.", "2<span> of 3 in", "polyline"]),
        (STATES[2], ["bank-b is lost to this round: numbers that are not finite."]),
        (STATES[3], ["The run is finished", "5<span> of 5", "epsilon 6.6"]),
        (STATES[4], ["The run is stopped"]),
    ],
)
def test_page_says_how_things_stand(state, expected, tmp_path):
    with shown_in(state, tmp_path) as shown:
        text = page(page_state(shown))
    for sentence in expected:
        assert sentence in text, text
    assert "style=" not in text


def test_only_what_was_released_is_shown(tmp_path):
    with shown_in(STATES[1], tmp_path) as shown:
        state = page_state(shown)
    everything = page(state) + json.dumps(state)
    assert "test_accuracy" in everything
    assert "SECRET-SCORE" not in everything
    assert "0.123456" not in everything  # an exact training loss of a protected run


def test_a_partner_cannot_write_into_the_page(tmp_path):
    with shown_in(STATES[1], tmp_path) as shown:
        seen = shown.partners["bank-a"]
        shown.partners["bank-a"] = seen._replace(status="<script>alert(1)</script>")
        text = fragment(page_state(shown))
    assert "&lt;script&gt;alert(1)" in text
    assert "<script" not in text


def test_a_broken_metrics_file_does_not_end_the_page(tmp_path):
    with shown_in(STATES[3], tmp_path) as shown:
        run = shown.federation.runs / "run"
        write_run(run, 3)
        with (run / "metrics.jsonl").open("a") as file:
            file.write(
                '\nnot json\n{"round_number": 3, "metrics": {"test_loss": null}}\n'
            )
        state = page_state(shown)
        assert "test loss" in page(state)
    assert state["history"][-1]["metrics"] == {"test_loss": None}


@pytest.mark.parametrize("path", ["/", "/fragment", "/status.json", "/metrics", "/no"])
def test_strangers_see_nothing(door, path):
    for token in (None, "x" * 43, TOKEN[:-1], "é"):
        got = door.get(path, token=token and token.encode().decode("latin-1"))
        assert got.status == 401
        for name in (*NAMES, "epsilon", "fedtrain_"):
            assert name not in got.text


def test_probes_need_no_access_and_say_one_word(door):
    assert door.get("/healthz")[:2] == (200, "ok\n")
    assert door.get("/readyz")[:2] == (200, "ready\n")


def test_token_opens_page_status_and_metrics(door):
    assert "waits for bank-c" in door.get("/", token=TOKEN).text
    status = json.loads(door.get("/status.json", token=TOKEN).text)
    assert [one["client"] for one in status["round"]["missing"]] == ["bank-c"]
    assert "fedtrain_round_number 2.0" in door.get("/metrics", token=TOKEN).text
    assert door.get("/no", token=TOKEN).status == 404


def test_every_answer_has_the_strict_headers(door):
    for path in ("/", "/healthz", "/style.css", "/no", "/login"):
        headers = door.get(path, token=TOKEN).headers
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_login_sets_one_strict_cookie_that_opens_the_page(door):
    assert door.get("/login", data=b"token=wrong").status == 401
    got = door.get("/login", data=f"token={TOKEN}".encode())
    assert got.status == 303
    cookie = got.headers["Set-Cookie"]
    assert cookie.startswith(COOKIE)
    for word in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/"):
        assert word in cookie
    assert TOKEN not in cookie
    value = cookie.partition(";")[0]
    assert door.get("/fragment", cookie=value).status == 200
    ends, _, seal = value.partition("=")[2].partition(".")
    forged = f"{COOKIE}={int(ends) + 1}.{seal}"
    assert door.get("/fragment", cookie=forged).status == 401
    late = Access(TOKEN, door.federation.authority, lambda: int(ends) + 1)
    assert not late._is_session(value.partition("=")[2])
    assert int(ends) > SESSION_S


def test_an_operators_certificate_opens_the_page_until_it_is_revoked(door):
    operators = door.federation.authority.operators
    pair = operators.admit("alice")
    assert door.get("/fragment", pair=pair).status == 200
    renewed = operators.admit("alice")
    assert door.get("/fragment", pair=pair).status == 401
    operators.revoke("alice")
    assert door.get("/fragment", pair=renewed).status == 401
    with pytest.raises(IdentityError, match="no certificate"):
        operators.revoke("alice")


def test_a_partners_certificate_does_not_open_the_page(door):
    assert door.get("/fragment", pair=door.federation.pairs["bank-a"]).status == 401


def test_an_operators_certificate_makes_no_calls(door):
    pair = door.federation.authority.operators.admit("bank-a")
    with pytest.raises(IdentityError):
        door.federation.authority.checked("bank-a", pair.certificate_pem)


def test_plain_http_and_strange_certificates_are_refused(door, tmp_path):
    with pytest.raises(OSError, match=r"closed|reset|alert|EOF"):
        urllib.request.urlopen(f"http://localhost:{door.page.port}/", timeout=10)
    other = Federation.of(tmp_path, ["bank-a"])
    with pytest.raises(OSError, match=r"closed|reset|alert|EOF"):
        door.get("/healthz", pair=other.pairs["bank-a"])


def test_a_port_in_use_is_named(door):
    address = f"localhost:{door.page.port}"
    with (
        pytest.raises(ConfigError, match=r"service\.page"),
        opened(door.shown, door.folder, address),
    ):
        pass


def test_last_seen_outlives_the_page(tmp_path):
    with shown_in(STATES[0], tmp_path) as shown, opened(shown, tmp_path):
        pass
    assert read_seen(tmp_path / "seen.json") == shown.partners
    (tmp_path / "seen.json").write_text("[1]")
    assert read_seen(tmp_path / "seen.json") == {}


def test_token_is_made_once_for_its_owner_alone(tmp_path):
    path = tmp_path / "page.token"
    token = token_in(path)
    assert (path.stat().st_mode & 0o777, len(token)) == (0o600, 43)
    assert token_in(path) == token
    path.chmod(0o644)
    with pytest.raises(IdentityError, match="chmod"):
        token_in(path)
