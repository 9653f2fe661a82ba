from fedtrain.project.report_page import headlines


def test_infinite_epsilon_is_shown_as_json_writes_it() -> None:
    privacy = {"epsilon": "Infinity", "delta": 1e-5, "unit": "client"}
    summary = {"rounds": 3, "test": None, "metric": None, "privacy": privacy}
    shown = {headline.label: headline.value for headline in headlines(summary)}
    assert shown == {"Rounds": "3", "Epsilon": "inf"}
