"""The operator's page in a real browser: scripts, policy, and what a person sees."""

import shutil
from pathlib import Path

import pytest

from tests.integration import chromium
from tests.unit.aggregator.light_round import arrays_of, submit
from tests.unit.aggregator.shown_page import NAMES, STATES, shown_in
from tests.unit.aggregator.test_page import TOKEN, opened

pytestmark = pytest.mark.network
_PROGRAM = chromium.chromium_program()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if _PROGRAM is None:
        pytest.skip("NO BROWSER: install chromium or set FEDTRAIN_CHROMIUM")
    profile = tmp_path_factory.mktemp("browser")
    with chromium.opened(_PROGRAM, profile) as page:
        page.call("Security.setIgnoreCertificateErrors", ignore=True)
        page.call("Log.enable")
        yield page
    shutil.rmtree(profile, ignore_errors=True)


def test_page_is_opened_by_the_token_and_follows_the_round(browser, tmp_path: Path):
    with shown_in(STATES[1], tmp_path) as shown, opened(shown, tmp_path) as served:
        browser.call("Page.navigate", url=f"https://localhost:{served.port}/")
        browser.wait_for("document.querySelector('#token') !== null")
        browser.evaluate(
            f"document.querySelector('#token').value = '{TOKEN}';"
            "document.querySelector('form').requestSubmit(); 0"
        )
        browser.wait_for("document.querySelector('#live') !== null")
        assert "Round 3 of 5 waits for bank-c." in browser.text()
        # The policy let the style sheet through, and the page fits a phone.
        radius = "getComputedStyle(document.querySelector('.card')).borderRadius"
        assert browser.evaluate(radius) == "10px"
        browser.call(
            "Emulation.setDeviceMetricsOverride",
            width=360,
            height=740,
            deviceScaleFactor=1,
            mobile=True,
        )
        width = "document.documentElement.scrollWidth"
        assert browser.evaluate(width) <= 360
        assert browser.evaluate("document.cookie") == ""
        submit(shown.rounds, "bank-c", arrays_of("bank-c", 2), round_number=2)
        browser.wait_for("document.body.innerText.includes('closed with 3')")
        assert all(name in browser.text() for name in NAMES)
