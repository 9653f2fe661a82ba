"""Options that several commands of ``fedtrain-aggregator`` share."""

from pathlib import Path
from typing import Annotated

import typer

from fedtrain.cli.output import Format

Home = Annotated[
    Path,
    typer.Option(
        "--home", envvar="FEDTRAIN_AGGREGATOR_HOME", help="The operator's folder."
    ),
]
AsFormat = Annotated[Format, typer.Option("--format", help="How to print the result.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
