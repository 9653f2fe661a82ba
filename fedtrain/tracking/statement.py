"""No epsilon without the sentence that says what it means."""

from fedtrain.core.errors import ConfigError


def require_statement(epsilon: float | None, privacy_statement: str | None) -> None:
    """Raises ConfigError where an epsilon would be shown with no statement.

    A statement names unit, neighbouring relation, delta, trust, accountant and whether
    amplification is claimed; the figure alone says nothing.
    """
    if epsilon is not None and not privacy_statement:
        raise ConfigError(
            f"An epsilon of {epsilon:.3g} is to be shown but privacy_statement is "
            "missing; give the statement of the run's privacy report."
        )
