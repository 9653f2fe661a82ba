import json
import tracemalloc

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtrain.core.errors import WireError
from fedtrain.wire.arrays import ArraySpec
from fedtrain.wire.plan import MOST_PLAN_BYTES, Plan
from fedtrain.wire.plan_words import in_words

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)


def changed(plan, **values):
    return Plan(
        **{**{name: getattr(plan, name) for name in type(plan).model_fields}, **values}
    )


def test_a_plan_is_read_back_with_the_same_hash(plan):
    again = Plan.from_bytes(plan.canonical())
    assert again == plan
    assert again.sha256 == plan.sha256
    assert again.contribution[0] == ArraySpec((3, 2), "float32")


def test_any_change_is_another_plan(plan):
    assert changed(plan, num_rounds=6).sha256 != plan.sha256
    assert changed(plan, deadline_s=60.001).sha256 != plan.sha256
    assert changed(plan, simulation_seed=0).sha256 != plan.sha256


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"num_rounds":5,', b'"num_rounds":"5",', "num_rounds"),
        (b'"num_rounds":5,', b'"num_rounds":0,', "num_rounds"),
        (b'"delta":1e-05', b'"delta":NaN', "delta"),
        (b'"epsilon":2.0', b'"epsilon":2', "canonical"),
        (b'"epsilon":2.0', b'"epsilon":Infinity', "epsilon"),
        (b'"format":1', b'"format":1,"format":1', "canonical"),
        (b'"format":1', b'"format":2', "format"),
        (b'"format":1', b'"extra":1,"format":1', "extra"),
        (b'"task":{', b'"task":{"code":"x",', "task.code"),
        (b'"dtype":"float32"', b'"dtype":"object"', "broadcast.0.dtype"),
        (b'"shape":[3,2]', b'"shape":[3,-2]', "broadcast.0"),
        (b'"shape":[3,2]', b'"shape":[3.0,2]', "broadcast.0.shape"),
        (b'"fed_avg"', b"NaN", "JSON"),
        (b"Example Credit", b"\\u001b[2J Credit", "operator"),
        (b"Example Credit", b"\\u202eExample", "operator"),
        (b'"least_reports":2', b'"least_reports":4', "least_reports is above"),
        (b'"noise_multiplier"', b'"\\u001b"', "mechanism"),
    ],
)
def test_what_is_no_plan_is_refused_with_the_reason(plan, old, new, reason):
    data = plan.canonical()
    assert old in data
    with pytest.raises(WireError, match=reason):
        Plan.from_bytes(data.replace(old, new, 1))


def test_a_long_or_deep_document_is_refused(plan):
    with pytest.raises(WireError, match="are allowed"):
        Plan.from_bytes(b" " * (MOST_PLAN_BYTES + 1))
    with pytest.raises(WireError, match="no plan"):
        Plan.from_bytes(b"[" * MOST_PLAN_BYTES)
    task = {"sections": {"model": {"text": "x" * MOST_PLAN_BYTES}}, "schema": {}}
    with pytest.raises(WireError, match="fewer categories"):
        changed(plan, task=task).canonical()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_document_is_a_plan_or_refused(plan, data):
    """Fields replaced at random, then a byte: a plan or its error comes out."""
    content = json.loads(plan.canonical())
    for name in data.draw(st.sets(st.sampled_from(sorted(content)), max_size=2)):
        content[name] = data.draw(json_values)
    text = bytearray(
        json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    )
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place] = data.draw(st.integers(0, 255))
    tracemalloc.start()
    try:
        found = Plan.from_bytes(bytes(text))
        assert found.canonical() == bytes(text)
        assert in_words(found).isprintable() or "\n" in in_words(found)
    except WireError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1_000_000


def test_a_plan_cannot_be_changed(plan):
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        plan.num_rounds = 6


def test_words_say_task_epsilon_what_leaves_and_to_whom(plan):
    words = in_words(plan)
    for said in (
        plan.sha256,
        "fed_avg: 5 rounds",
        'name "dense_classifier", hidden [8]',
        "Columns age; learns to predict default.",
        "The noised update of the model's weights.",
        "receive 2 arrays, 32 bytes and send 2 arrays, 32 bytes",
        "at most 160 bytes",
        "sees your contribution by itself",
        "epsilon 2 at delta 1e-05",
        "one row; neighbours differ by adding or removing one",
        "Your own machine adds all the noise",
        "PLD of dp-accounting 0.6.0",
        "no amplification by sampling is claimed",
        "Example Credit Bureau",
        "least 2 after 60 s",
        "A round that is repeated",
    ):
        assert said in " ".join(words.split()), said


def test_words_count_further_attempts(plan):
    more = plan.privacy.model_copy(update={"further_attempts": 2})
    words = " ".join(in_words(changed(plan, privacy=more)).split())
    assert "all 5 rounds and 2 further attempts at a round together" in words
    assert "at most 224 bytes" in words


def test_words_warn_where_nothing_protects(plan):
    unprotected = " ".join(in_words(changed(plan, privacy=None)).split())
    assert "NO PRIVACY GUARANTEE" in unprotected
    assert "in all 160 bytes, if none is repeated" in unprotected
    assert "A SIMULATION" in in_words(changed(plan, simulation_seed=3))
    central = plan.privacy.model_copy(update={"trust": "central"})
    assert "RECEIVES EXACT" in in_words(changed(plan, privacy=central))
    together = in_words(changed(plan, secure_aggregation=True))
    assert "sees only the sum" in together
    assert "kB of keys and shares" in " ".join(together.split())


def test_a_crowded_plan_still_fits_one_screen_and_moves_no_cursor(plan):
    columns = [{"name": f"column {i} \x1b[2J"} for i in range(900)]
    section = {f"key {i}": "x" * 500 + "\x1b" for i in range(500)}
    crowded = changed(
        plan,
        task={
            "sections": {"model": section, "client": section, "rounds": {}},
            "schema": {"features": columns, "label": 7},
            "model_sha256": "0" * 64,
        },
        leaves=("A line of what leaves. " * 8,) * 8,
        evaluation=(ArraySpec((), "float32"),),
    )
    lines = in_words(crowded).splitlines()
    assert all(line.isprintable() and len(line) <= 88 for line in lines if line)
    assert "and 484 more" in in_words(crowded)
    assert len(in_words(plan).splitlines()) <= 24
    assert len(lines) <= 100
