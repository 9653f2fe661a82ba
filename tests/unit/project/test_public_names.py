import importlib

import pytest

import fedtrain


@pytest.mark.parametrize("name", sorted(fedtrain._HOMES))
def test_every_public_name_is_at_home_and_is_what_is_loaded(name: str) -> None:
    home = importlib.import_module(fedtrain._HOMES[name])
    assert getattr(home, name).__module__ == fedtrain._HOMES[name]
    assert getattr(fedtrain, name) is getattr(home, name)


def test_a_name_that_is_not_there_is_said() -> None:
    with pytest.raises(AttributeError, match="no attribute 'federat'"):
        fedtrain.federat  # noqa: B018 - looking it up is the test
