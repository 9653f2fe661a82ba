"""Keys of ``[compression]`` that contradict each other or the rest of a file."""

from collections.abc import Iterator

from fedtrain.project.config import CompressionSection, ProjectConfig
from fedtrain.project.findings import missing, superfluous
from fedtrain.project.problems import Problem


def compression_contradictions(config: ProjectConfig) -> Iterator[Problem]:
    """What cannot be done as the section says, or without the section."""
    section = config.compression
    if section is None:
        yield from _needs_section(config)
        return
    if config.service is not None:
        yield superfluous(
            "compression",
            section.model_dump(exclude_defaults=True),
            "the service has no fine-tuning rounds yet; simulate without [service]",
        )
    yield from _pruning(section)
    prunes = section.prune_sparsity is not None or section.prune_pattern != "any"
    if not (prunes or section.num_clusters or section.quantize):
        yield missing(
            "compression.prune_sparsity",
            "the section asks for nothing; give this, num_clusters or quantize = true",
        )


def _needs_section(config: ProjectConfig) -> Iterator[Problem]:
    asked = [
        v for v in config.export.edge_variants or () if v.startswith("compressed_")
    ]
    if asked:
        yield Problem(
            key="export.edge_variants",
            text=f"{asked[0]} needs to know how to compress",
            value=asked,
            allowed="others, or add [compression] with fine_tuning_rounds",
        )


def _pruning(section: CompressionSection) -> Iterator[Problem]:
    fixed = section.prune_pattern == "2_of_4"
    if fixed and section.prune_sparsity is not None:
        yield superfluous(
            "compression.prune_sparsity",
            section.prune_sparsity,
            'prune_pattern = "2_of_4" makes half of the weights zero',
        )
    if section.prune_sparsity is None and section.prune_scope == "global":
        yield superfluous(
            "compression.prune_scope", "global", "it goes with prune_sparsity"
        )
    if section.prune_sparsity is None and section.prune_steps > 1:
        yield superfluous(
            "compression.prune_steps",
            section.prune_steps,
            "it goes with prune_sparsity",
        )
    if section.prune_steps > 1 and section.num_clusters is not None:
        yield superfluous(
            "compression.prune_steps",
            section.prune_steps,
            "num_clusters makes weights equal, and equal ones cannot be told apart in "
            "the next step",
        )
    if section.prune_steps > max(section.fine_tuning_rounds, 1):
        yield Problem(
            key="compression.prune_steps",
            text="the last zeros would come after the last fine-tuning round",
            value=section.prune_steps,
            allowed=f"at most fine_tuning_rounds ({section.fine_tuning_rounds})",
        )
