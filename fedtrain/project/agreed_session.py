"""The numbers of secure aggregation that the sections of an approved plan give."""

from collections.abc import Mapping
from typing import Any

from fedtrain.core.errors import ConfigError
from fedtrain.project.read import checked_config
from fedtrain.project.secure_session import served_session
from fedtrain.secagg.parameters import Parameters


def agreed_session(sections: Mapping[str, Any]) -> Parameters:
    """The parameters of a session of all clients, or of a whole cohort.

    Args:
      sections: Of a plan: those of a project file that define the round.

    Raises:
      ConfigError: If there is no secure aggregation in them.
    """
    config = checked_config(dict(sections), file="the plan")
    session = served_session(config)
    if session is None:
        raise ConfigError(
            "The sections of the plan have no secure aggregation, but the aggregator "
            "asks for it. Nothing was sent; tell the operator."
        )
    return session
