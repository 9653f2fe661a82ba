"""The page of a release in headless Chromium, from a plain static server."""

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from fedtrain.data.examples import Examples
from fedtrain.data.schema_encoding import encoded
from fedtrain.export.source import Source
from fedtrain.export.web import write_web
from fedtrain.export.web_page import write_web_page
from fedtrain.rounds.evaluation import Evaluator
from tests.integration.chromium import Page, chromium_program, opened
from tests.unit.export.rows_of_a_table import SCHEMA, TABLE
from tests.unit.export.web_models import image_source, release_of, table_source

pytestmark = pytest.mark.network
_TYPE = """(() => {{
  const field = document.getElementById({id});
  field.value = {text};
  field.dispatchEvent(new Event(field.tagName === "SELECT" ? "change" : "input"));
}})()"""
_VALUES = "document.getElementById('result').dataset.values"
_STROKE = [(0.3, 0.2), (0.6, 0.15), (0.65, 0.35), (0.4, 0.5), (0.65, 0.7), (0.3, 0.85)]


@pytest.fixture(scope="module")
def program() -> str:
    found = chromium_program()
    if found is None:
        pytest.skip(
            "NO BROWSER: the page is not tested. Put chromium on the path, or name it: "
            "FEDTRAIN_CHROMIUM."
        )
    return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("site")
    for name, made in {"table": table_source(), "image": image_source()}.items():
        write_web(made, folder / name, variants=["float32"])
        write_web_page(made, release_of(name, "float32"), folder / name)
    handler = functools.partial(_Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def page(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with opened(program, tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_typed_row_gives_what_the_source_gives_for_the_encoded_one(
    page: Page, site: str
) -> None:
    page.open(f"{site}/table/")
    typed = {
        "monthly income": "",
        "region": "1",
        "age": "99",
        "job": "1",
        "score": "-1e-7",
    }
    for column, text in typed.items():
        _type(page, column, text)
    row = {name: values[1:2] for name, values in TABLE.items()}
    expected = _probabilities(table_source(), encoded(SCHEMA, row))
    shown = _shown(page)
    np.testing.assert_allclose(shown, expected[0], atol=1e-5)
    best = SCHEMA.label_names[int(np.argmax(shown))]
    assert page.evaluate("document.querySelector('.answer strong').innerText") == best


def test_refused_row_is_marked_and_nothing_is_shown_for_it(
    page: Page, site: str
) -> None:
    page.open(f"{site}/table/")
    _type(page, "age", "17")
    page.wait_for(f"{_VALUES} === 'null'")
    assert "Refused: it is outside the declared range 18 to 99." in page.text()
    _type(page, "age", "18")
    assert len(_shown(page)) == 2
    assert "Refused" not in page.text()


def test_page_shows_status_and_statement_and_names_as_text(
    page: Page, site: str
) -> None:
    page.open(f"{site}/table/")
    text = page.text()
    assert "SIMULATION" in text
    assert "No row stands out & none is named." in text
    assert "</script>" in text  # a category's name, not the end of a script


def test_page_may_connect_to_nothing_but_its_folder(page: Page, site: str) -> None:
    page.open(f"{site}/table/")
    other = "fetch('http://localhost:9/').then(() => 'sent', (error) => error.name)"
    assert page.evaluate(other) == "TypeError"
    refused = (
        "new Promise((done) => { document.addEventListener('securitypolicyviolation', "
        "(event) => done(event.effectiveDirective)); fetch('http://localhost:9/')"
        ".catch(() => {}); })"
    )
    assert page.evaluate(refused) == "connect-src"


def test_drawn_image_gives_what_the_source_gives_for_it(page: Page, site: str) -> None:
    page.open(f"{site}/image/")
    page.wait_for(f"{_VALUES} === 'null'")
    box = page.evaluate(
        "(({left, top, width}) => [left, top, width])"
        "(document.querySelector('canvas.square').getBoundingClientRect())"
    )
    places = [(box[0] + x * box[2], box[1] + y * box[2]) for x, y in _STROKE]
    _mouse(page, "mousePressed", places[0])
    for place in places:
        _mouse(page, "mouseMoved", place)
    _mouse(page, "mouseReleased", places[-1])
    shown = _shown(page)
    image = np.array(page.evaluate("readers.features.read()").split(), np.float32)
    image = image.reshape(1, 28, 28, 1)
    assert 0.05 < image.mean() < 0.4
    assert not image[0, :2].any()
    rows = Examples(features=image, labels=np.zeros(1, np.int32))
    np.testing.assert_allclose(
        shown, _probabilities(image_source(), rows)[0], atol=1e-5
    )


def _type(page: Page, column: str, text: str) -> None:
    identifier = json.dumps(f"field-{column}")
    page.evaluate(_TYPE.format(id=identifier, text=json.dumps(text)))


def _mouse(page: Page, kind: str, place: tuple[float, float]) -> None:
    point = {"x": place[0], "y": place[1], "button": "left", "buttons": 1}
    page.call("Input.dispatchMouseEvent", type=kind, clickCount=1, **point)


def _shown(page: Page) -> list[float]:
    """What the page shows once it has read the fields as they are now."""
    values: list[float] = json.loads(
        page.evaluate(f"update().then(() => {_VALUES})") or "null"
    )
    return values


def _probabilities(source: Source, rows: Examples) -> np.ndarray:
    logits = Evaluator(source.model).predict(source.weights, rows)
    return tf.nn.softmax(logits).numpy()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Nothing."""


def test_site_is_small_and_refers_to_nothing_outside(tmp_path: Path) -> None:
    made = table_source()
    write_web(made, tmp_path / "web", variants=["uint8"])
    write_web_page(made, release_of("small", "uint8"), tmp_path / "web")
    files = [path for path in (tmp_path / "web").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2e6
    own = [path for path in files if path.parent.name == "web"]
    assert not any("https://" in path.read_text("utf-8") for path in own)
