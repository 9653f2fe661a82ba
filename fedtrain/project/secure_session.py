"""The numbers of secure aggregation that a project file asks for."""

from typing import NamedTuple

from fedtrain.core.errors import ConfigError
from fedtrain.project.config import ProjectConfig
from fedtrain.secagg.parameters import Parameters, parameters_for
from fedtrain.secagg.regions import Regions, regions_for

TOP = ""


class ServedSession(NamedTuple):
    """One session of a served run.

    Attributes:
      parameters: Its numbers.
      members: Who may be in it: partners, or the regional aggregators.
    """

    parameters: Parameters
    members: tuple[str, ...]


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


def served_sessions(config: ProjectConfig) -> dict[str, ServedSession]:
    """The sessions of each round, by who runs them: ``TOP``, and each region by name.

    None without secure aggregation, and only that of ``TOP`` without regions.

    Raises:
      ConfigError: If so many partners have no session, or one is called as a region is.
    """
    clients = tuple(config.service.clients) if config.service else ()
    found = session_of(config, len(clients))
    if found is None:
        return {}
    if not isinstance(found, Regions):
        return {TOP: ServedSession(found, clients)}
    members = found.members(clients)
    if members.keys() & set(clients):
        raise ConfigError(
            f"service.clients names {', '.join(sorted(members.keys() & set(clients)))},"
            " which regional aggregators are called. Rename these partners."
        )
    regions = zip(found.sessions, members.values(), strict=True)
    return {
        TOP: ServedSession(found.top, tuple(members)),
        **dict(zip(members, map(ServedSession._make, regions), strict=True)),
    }


def partners_sessions(config: ProjectConfig) -> list[ServedSession]:
    """The sessions of ``served_sessions`` whose members are partners."""
    sessions = served_sessions(config)
    return [sessions[name] for name in sessions if name or len(sessions) == 1]


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
