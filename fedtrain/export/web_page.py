"""A page on which a person draws or types a row and sees what the model makes of it.

It is a folder for any static server, with TF.js in it; its content security policy lets
it load nothing from elsewhere, so what is typed cannot leave it.
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedtrain.core.files import write_atomically
from fedtrain.core.pages import page_environment
from fedtrain.data.examples import Array
from fedtrain.data.schema import Column
from fedtrain.export.node import WEB_TEMPLATES
from fedtrain.export.page import STATUS
from fedtrain.export.record import Release, Variant
from fedtrain.export.source import OUTPUTS, PROBABILITIES, Source
from fedtrain.export.tfjs_files import SCRIPTS, VERSION, write_tfjs
from fedtrain.export.web import MODEL

PAGE_FILES = ("style.css", "model.js", "encoding.js", "drawing.js", "page.js")
_MOST_FIELDS = 64
_SIDES = range(8, 65)
_MNIST_SIDE, _MNIST_BOX = 28, 20
_PREPARED = (
    "This data set came without a schema: these are the model's features as they were "
    "prepared for training (usually standardised), not the columns' own units."
)


def write_web_page(source: Source, release: Release, folder: Path) -> None:
    """Writes ``index.html`` and what it needs into ``folder``, beside the variants.

    It runs the recommended variant, and shows the release's status and statement.
    """
    (variant,) = (v for v in release.variants if v.target == "web" and v.recommended)
    write_tfjs(folder / "tfjs")
    for name in PAGE_FILES:
        shutil.copyfile(WEB_TEMPLATES / name, folder / name)
    write_atomically(folder / "index.html", page_text(source, release, variant))


def page_text(source: Source, release: Release, variant: Variant) -> str:
    """The page as HTML, with all that it knows of the model as JSON."""
    environment = page_environment("fedtrain.export", "templates/web")
    columns = page_columns(source)
    is_drawn = any("drawing" in column for column in columns)
    return environment.get_template("index.html.jinja").render(
        release=release,
        variant=variant,
        badge=STATUS[release.release_status],
        heading="Draw" if is_drawn else "One row",
        is_drawn=is_drawn,
        note="" if is_drawn or source.schema else _PREPARED,
        tfjs_version=VERSION,
        scripts=[*(f"tfjs/{name}" for name in SCRIPTS), *PAGE_FILES[1:]],
        facts={
            "columns": columns,
            "labels": source.label_names,
            "label": source.schema.label.name if source.schema else "",
            "output": PROBABILITIES if source.task == "classification" else OUTPUTS,
            "path": f"{variant.name}/{MODEL}",
        },
    )


def page_columns(source: Source) -> list[dict[str, Any]]:
    """The page's fields: the schema's columns, or the model's features as they are.

    An array of the shape of an image has a ``drawing``; a number has an ``example``.
    """
    if source.schema is not None:
        return [_described(column, column.shape) for column in source.schema.features]
    features = source.evaluation.features
    if isinstance(features, dict):
        return [
            _array(name, array, array.shape[1:]) for name, array in features.items()
        ]
    split = source.run.project().split
    names = split.feature_names
    if names and features.ndim == 2 and len(names) <= _MOST_FIELDS:
        return [_described(Column(name=name, kind="number"), ()) for name in names]
    return [_array("features", features, split.info.get("image_shape"))]


def _array(name: str, rows: Array, image: Sequence[int] | None) -> dict[str, Any]:
    is_whole, shape = rows.dtype.kind in "iu", rows.shape[1:]
    column = Column(name=name, kind="array", shape=shape, whole=is_whole)
    return _described(column, () if is_whole else image or shape)


def _described(column: Column, image: Sequence[int]) -> dict[str, Any]:
    described = column.model_dump(mode="json", exclude_none=True)
    if column.kind == "number":
        described["example"] = _example(column)
    if column.kind == "array":
        drawn = _drawing(image)
        described |= {"drawing": drawn} if drawn else {"example": _zeros(column)}
    return described


def _drawing(shape: Sequence[int]) -> Mapping[str, Any] | None:
    """How ink becomes an image: MNIST's way, or that of the small UCI digits.

    Source: https://yann.lecun.com/exdb/mnist/: 20 x 20 pixels of 28, centre of mass in
    the middle. UCI's digits fill the height.
    """
    sides, channels = tuple(shape[:2]), tuple(shape[2:])
    if len(sides) < 2 or channels not in {(), (1,)}:
        return None
    if any(side not in _SIDES for side in sides):
        return None
    height, width = sides
    share = _MNIST_BOX / _MNIST_SIDE
    is_small = min(sides) < _MNIST_BOX
    box = [height, 0.8 * width] if is_small else [share * height, share * width]
    pen = 0.11 if is_small else 0.085
    facts = {"height": height, "width": width, "box": box}
    return {**facts, "by_mass": not is_small, "pen": pen}


def _example(column: Column) -> str:
    """A typical value that the column allows, from nothing but its facts."""
    value, limits = 0.0, column.range
    if limits is not None:
        value = (limits.minimum + limits.maximum) / 2
    if column.moments is not None:
        value = column.moments.mean
    if limits is not None:
        value = min(max(value, limits.minimum), limits.maximum)
    return str(round(value)) if column.whole else f"{value:.4g}"


def _zeros(column: Column) -> str:
    return " ".join(["0"] * math.prod(column.shape))
