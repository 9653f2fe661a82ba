"""Keys of ``[evaluation]`` and ``[stop]`` that contradict the rest of a file."""

from collections.abc import Iterator

from fedtrain.project.config import ProjectConfig
from fedtrain.project.findings import superfluous
from fedtrain.project.problems import Problem


def evaluation_contradictions(config: ProjectConfig) -> Iterator[Problem]:
    """What cannot be paid for, or cannot end a run."""
    section, privacy = config.evaluation, config.privacy
    for key in ("epsilon", "noise_multiplier"):
        value = getattr(section, key)
        if value is None:
            continue
        if section.held_out_fraction is None:
            why = "it pays for evaluation.held_out_fraction, which is not given"
            yield superfluous(f"evaluation.{key}", value, why)
        elif privacy is None:
            why = "without [privacy] sums are exact and nothing is paid for"
            yield superfluous(f"evaluation.{key}", value, why)
        elif privacy.trust != "local":
            yield Problem(
                key=f"evaluation.{key}",
                text="each client adds the noise of its own counts, which is trust "
                f'"local"; privacy.trust is "{privacy.trust}"',
                value=value,
                allowed="leave out held_out_fraction and this; public test rows "
                "(data.test_path) cost nothing",
            )
    if section.epsilon is not None and section.noise_multiplier is not None:
        yield superfluous(
            "evaluation.noise_multiplier",
            section.noise_multiplier,
            "evaluation.epsilon decides the noise",
        )
    if config.stop is not None and config.compression is not None:
        yield superfluous(
            "stop.metric",
            config.stop.metric,
            "the rounds of [compression] come after a number of rounds that is fixed",
        )
