"""The numbers of secure aggregation that a project file asks for."""

from fedtrain.core.errors import ConfigError
from fedtrain.project.config import ProjectConfig
from fedtrain.secagg.parameters import Parameters, parameters_for


def session_of(config: ProjectConfig, num_clients: int) -> Parameters | None:
    """The parameters of every round's session; None without secure aggregation.

    As many honest survivors are counted on as the threshold leaves: a higher threshold
    tolerates fewer losses, and needs less noise of each client.

    Args:
      config: Whose ``[rounds]`` are read.
      num_clients: Of the whole federation.

    Raises:
      ConfigError: If so many clients, such a threshold or so many colluders leave no
        session; with the numbers that would.
    """
    rounds = config.rounds
    if not rounds.secure_aggregation:
        return None
    cohort_size = num_clients if rounds.sampler == "full" else rounds.cohort_size or 0
    if rounds.threshold is None:
        return parameters_for(cohort_size, num_colluding=rounds.num_colluding)
    if rounds.threshold <= rounds.num_colluding:
        raise ConfigError(
            f"rounds.threshold is {rounds.threshold} and rounds.num_colluding is "
            f"{rounds.num_colluding}: of the clients that answer none need be honest. "
            "Raise the threshold, or expect fewer colluders."
        )
    return Parameters(
        num_clients=cohort_size,
        threshold=rounds.threshold,
        num_colluding=rounds.num_colluding,
        num_honest_survivors=rounds.threshold - rounds.num_colluding,
    )


def served_session(config: ProjectConfig) -> Parameters | None:
    """``session_of`` the partners that ``[service]`` names."""
    return session_of(config, len(config.service.clients) if config.service else 0)


def words_of(session: Parameters) -> str:
    """What the session costs and withstands, for a plan."""
    surplus = session.num_clients / session.num_honest_survivors
    losses = session.num_tolerated_losses
    return (
        f"Secure aggregation: {session.num_clients} clients, of whom "
        f"{session.threshold} must answer to the end (it tolerates the loss of "
        f"{losses or 'none'}) and at most {session.num_colluding} may work with the "
        f"aggregator. Each adds 1/{session.num_honest_survivors} of the needed noise, "
        f"so a sum of all has {surplus:.3g} times its variance."
    )
