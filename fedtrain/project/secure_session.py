"""The numbers of secure aggregation that a project file asks for."""

from fedtrain.project.config import ProjectConfig
from fedtrain.secagg.parameters import Parameters, parameters_for
from fedtrain.secagg.regions import Regions, regions_for


def session_of(config: ProjectConfig, num_clients: int) -> Parameters | Regions | None:
    """The sessions of every round, in one level or two; None without them.

    Args:
      config: Whose ``[rounds]`` are read.
      num_clients: Of the whole federation.

    Raises:
      ConfigError: If so many clients, such a threshold or so many colluders leave no
        session; with the numbers that would.
    """
    rounds = config.rounds
    if not rounds.secure_aggregation or rounds.num_regions is None:
        return _session(config, num_clients)
    return regions_for(
        num_clients,
        rounds.num_regions,
        num_colluding=rounds.num_colluding,
        threshold=rounds.threshold,
    )


def served_session(config: ProjectConfig) -> Parameters | None:
    """Of the partners that ``[service]`` names; they are in one region."""
    return _session(config, len(config.service.clients) if config.service else 0)


def words_of(session: Parameters | Regions) -> str:
    """What the sessions cost and withstand, and who sees which sum, for a plan."""
    if isinstance(session, Regions):
        return f"{_of_regions(session)} {_of_top(session)}"
    return (
        f"Secure aggregation: {session.num_clients} clients, of whom "
        f"{session.threshold} must answer to the end (it tolerates the loss of "
        f"{session.num_tolerated_losses or 'none'}) and at most "
        f"{session.num_colluding} may work with the aggregator. Each adds "
        f"1/{session.num_honest_survivors} of the needed noise, so a sum of all has "
        f"{_surplus(session):.3g} times its variance."
    )


def _session(config: ProjectConfig, num_clients: int) -> Parameters | None:
    rounds = config.rounds
    if not rounds.secure_aggregation:
        return None
    return parameters_for(
        num_clients if rounds.sampler == "full" else rounds.cohort_size or 0,
        num_colluding=rounds.num_colluding,
        threshold=rounds.threshold,
    )


def _of_regions(regions: Regions) -> str:
    kinds = [
        f"{regions.sessions.count(one)} with {one.num_clients} clients each, of whom "
        f"{one.threshold} must answer to the end (it tolerates the loss of "
        f"{one.num_tolerated_losses or 'none'})"
        for one in dict.fromkeys(regions.sessions)
    ]
    honest = regions.num_honest_survivors
    return (
        f"Secure aggregation in {len(regions.sessions)} regions: {'; '.join(kinds)}. "
        f"In each, at most {regions.top.num_colluding} may work with the region's "
        "aggregator, which sees its region's sum, and by the total that of the others "
        f"together. {honest} honest ones are counted on, so each client "
        f"adds 1/{honest} of the noise that a region's sum needs, and a sum of all has "
        f"{_surplus(regions):.3g} times its variance."
    )


def _of_top(regions: Regions) -> str:
    top = regions.top
    return (
        f"The regional sums are masked again: of the {top.num_clients} regional "
        f"aggregators {top.threshold} must answer to the end (it tolerates the loss of "
        f"{top.num_tolerated_losses or 'none'}) and at most {top.num_colluding} may "
        "work with the top aggregator, which by itself sees the total, as everybody "
        "does in the model's steps. Epsilon is that of the regional sums, for whoever "
        "sees all of them; never that of the total."
    )


def _surplus(session: Parameters | Regions) -> float:
    return session.num_clients / session.num_honest_survivors
