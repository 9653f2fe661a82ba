import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from fedtrain.core.errors import ConfigError
from fedtrain.tracking.html_report import (
    ComparisonRow,
    Headline,
    LabelCounts,
    ReportData,
    render_html_report,
    write_html_report,
)

NASTY = "<script>alert('$x$')</script> & co"
STATEMENT = "Simulated: epsilon at delta 1e-4, unit example, trust local, PLD."
HISTORY = [
    {
        "round_number": number,
        "metrics": {"loss": 1.0 - number / 4, "test_accuracy": 0.5 + number / 8},
        "spent_epsilon": 1.0 + number,
    }
    for number in range(3)
]
FULL = ReportData(
    title=NASTY,
    history=HISTORY,
    headlines=[Headline(label="Accuracy", value="75.0 %", note=NASTY)],
    comparison=[
        ComparisonRow(name="with privacy", value=0.751, epsilon=3.0),
        ComparisonRow(name="alone", value=0.402, low=0.1, high=0.6, note=NASTY),
    ],
    label_counts=LabelCounts(
        clients=[NASTY, "b"], labels=["0", "_1"], counts=[[3, 4], [5, 0]]
    ),
    client_accuracy={NASTY: 0.5, "b": 0.75},
    privacy_statement=STATEMENT,
    privacy_badge="Simulated",
    privacy_report={"noise_multiplier": 1.2345, "name": NASTY},
    target_epsilon=3.0,
    facts={"Seed": "17", NASTY: NASTY},
    command=f"fedtrain simulate {NASTY}",
    notes=[NASTY],
)


class Page(HTMLParser):
    """Tags, attributes, ids and text of a page; notes tags that do not match."""

    VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def text():
    return render_html_report(FULL)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_every_tag_is_closed_and_every_id_is_used_once(page):
    ids = [value for name, value in page.attributes if name == "id"]
    assert page.open == []
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_anywhere(text, page):
    targets = [v for k, v in page.attributes if k in ("src", "href", "xlink:href")]
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert "@import" not in text
    assert not re.search(r"https?:|url\((?!#)", text)


def test_references_inside_the_plots_lead_somewhere(text, page):
    ids = {value for name, value in page.attributes if name == "id"}
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert used
    assert used <= ids


def test_what_comes_from_the_run_is_escaped(text, page):
    assert "<script" not in text
    assert text.count(html.escape("<script>")) >= 8
    assert NASTY in page.text


def test_the_figures_are_there(page):
    for expected in ("75.1 %", "40.2 %", "10.0 to 60.0 %", "1.2345", "17", "75.0 %"):
        assert expected in page.text


def test_five_plots_say_what_they_show(page):
    labels = [value for name, value in page.attributes if name == "aria-label"]
    assert len(labels) == 5
    assert "epsilon over the rounds; at the end 3" in labels


def test_sections_without_data_are_left_out():
    bare = Page(render_html_report(ReportData(title="t", history=[])))
    assert "svg" not in bare.tags
    assert "promised" not in bare.text
    assert "The clients" not in bare.text


def test_every_epsilon_has_its_statement():
    for change in (
        {"comparison": None, "target_epsilon": None},
        {"comparison": None, "history": []},
        {"history": [], "target_epsilon": None},
    ):
        with pytest.raises(ConfigError, match="privacy_statement"):
            replace(FULL, privacy_statement=None, **change)


def test_many_clients_and_labels_become_a_heat_map():
    counts = LabelCounts(
        clients=[f"client-{i}" for i in range(80)],
        labels=[str(i) for i in range(12)],
        counts=[[i + j for j in range(12)] for i in range(80)],
    )
    accuracy = {f"client-{i}": i / 100 for i in range(80)}
    data = ReportData(
        title="t", history=[], label_counts=counts, client_accuracy=accuracy
    )
    text = render_html_report(data)
    assert "60 of 80 clients" in text
    assert "accuracy of 80 clients: lowest 0, median 0.395, highest 0.79" in text


def test_a_table_of_the_wrong_shape_is_refused():
    with pytest.raises(ConfigError, match="1 rows"):
        LabelCounts(clients=["a"], labels=["0", "1"], counts=[[1]])


def test_the_same_run_gives_the_same_bytes(text):
    assert render_html_report(FULL) == text


def test_a_name_in_any_script_is_drawn(tmp_path):
    data = ReportData(title="t", history=[], client_accuracy={"中国银行": 0.5})
    path = write_html_report(tmp_path / "report.html", data)
    assert "中国银行" in path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
