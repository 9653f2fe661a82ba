import pytest

from aggregator.home import Federation, current_run, federation_in, found
from fedtrain.core.errors import ConfigError


@pytest.fixture
def federation(tmp_path):
    made = Federation(tmp_path, tmp_path / "federation.toml", "the operator")
    found(made)
    return made


def test_a_federation_is_found_again(federation, tmp_path):
    again = federation_in(tmp_path)
    assert again == federation
    assert current_run(again) is None


@pytest.mark.parametrize("content", ["{bad", "[]", '{"project": "x"}'])
def test_a_damaged_file_is_named(federation, tmp_path, content):
    (tmp_path / "federation.json").write_text(content)
    with pytest.raises(ConfigError, match=r"federation\.json is not as"):
        federation_in(tmp_path)
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=r"run\.json is not as"):
        current_run(federation)


def test_a_project_file_that_is_gone_is_to_be_put_back(federation):
    with pytest.raises(ConfigError, match="Put it back"):
        federation.config()
