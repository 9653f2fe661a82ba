"""Writes the reference pages from the docstrings, one page for each package.

    uv run python docs/reference.py [OUTPUT_DIR]

Reads the sources without importing them. Fails, and writes nothing, when a public name
has no docstring, or when an ``Attributes`` section leaves out a required field or
describes what is not there.
"""

import argparse
import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fedtrain"
OUTPUT = ROOT / "docs" / "_build" / "reference"

Definition = ast.FunctionDef | ast.ClassDef
_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Guarantees")


def main(output_dir: Path = OUTPUT) -> int:
    """Writes all pages; returns the exit code."""
    modules = read_modules(PACKAGE)
    problems = [p for name, tree in modules.items() for p in undocumented(name, tree)]
    if problems:
        sys.stderr.write("\n".join([*problems, f"{len(problems)} problems.\n"]))
        return 1
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, text in pages(modules).items():
        (output_dir / f"{name}.md").write_text(text, encoding="utf-8")
    return 0


def read_modules(package_dir: Path) -> dict[str, ast.Module]:
    """Syntax trees of the package's public modules by dotted name."""
    modules = {}
    for path in sorted(package_dir.rglob("*.py")):
        parts = path.relative_to(package_dir.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        text = path.read_text(encoding="utf-8")
        if text.strip() and not any(part.startswith("_") for part in name.split(".")):
            modules[name] = ast.parse(text)
    return modules


def undocumented(module: str, tree: ast.Module) -> list[str]:
    """What is missing in a module, one sentence each."""
    problems = [] if ast.get_docstring(tree) else [f"{module} has no docstring."]
    for node in public(tree):
        name = f"{module}.{node.name}"
        if not ast.get_docstring(node):
            problems.append(f"{name} has no docstring.")
        if isinstance(node, ast.ClassDef):
            problems += _undocumented_members(name, node)
    return problems


def public(tree: ast.Module | ast.ClassDef) -> list[Definition]:
    """The public functions and classes directly in ``tree``, overloads once."""
    nodes = {
        node.name: node
        for node in tree.body
        if isinstance(node, Definition) and not node.name.startswith("_")
    }
    return list(nodes.values())


def fields(node: ast.ClassDef) -> dict[str, str]:
    """A value class's public fields, with types and defaults."""
    return {
        item.target.id: ast.unparse(item.annotation)
        + (f" = {ast.unparse(item.value)}" if item.value else "")
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
    }


def pages(modules: dict[str, ast.Module]) -> dict[str, str]:
    """Markdown by page name: an index, and a page for each package."""
    packages: dict[str, list[str]] = defaultdict(list)
    for name, tree in modules.items():
        page = ".".join(name.split(".")[:2])
        packages[page].append(_module_text(name, tree))
    rows = [f"- [{page}]({page}.md)" for page in packages if page != PACKAGE.name]
    index = "# Reference\n\n" + "\n".join(rows) + "\n\n"
    index += "".join(packages.pop(PACKAGE.name, []))
    texts = {
        page: f"# {page}\n\n" + "\n".join(parts) for page, parts in packages.items()
    }
    return {"index": index, **texts}


def markdown(docstring: str) -> str:
    """A Google-style docstring as Markdown."""
    lines = []
    in_section = False
    for line in docstring.replace("``", "`").splitlines():
        title = line.strip().removesuffix(":")
        if title in _SECTIONS and line.endswith(":"):
            in_section = True
            lines += [f"**{title}**", ""]
        elif in_section and line and not line.startswith(" "):
            in_section = False
            lines.append(line)
        elif in_section and (item := re.match(r"  (\w+): (.*)", line)):
            lines.append(f"- `{item[1]}`: {item[2]}")
        else:
            lines.append(line.strip() if in_section else line)
    return "\n".join(lines)


def _undocumented_members(name: str, node: ast.ClassDef) -> list[str]:
    described = _described_attributes(node)
    bare = [
        method.name
        for method in public(node)
        if not ast.get_docstring(method) and method.name not in described
    ]
    problems = [f"{name}.{member} has no docstring." for member in bare]
    if described:
        absent = described - _members(node)
        problems += [f"{name} describes {n}, which it has not." for n in sorted(absent)]
        missing = [field for field in _required(node) if field not in described]
        problems += [f"{name}.{field} is not described." for field in missing]
    return problems


def _described_attributes(node: ast.ClassDef) -> set[str]:
    docstring = ast.get_docstring(node) or ""
    section = re.search(r"^Attributes:\n((?:  .*\n?|\n)+)", docstring, re.MULTILINE)
    names = re.findall(r"^  (\w+):", section[1], re.MULTILINE) if section else []
    return set(names)


def _members(node: ast.ClassDef) -> set[str]:
    """Fields, methods, properties, class attributes and what is set on ``self``."""
    names = {method.name for method in public(node)} | set(fields(node))
    for item in ast.walk(node):
        if isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Store):
            names.add(item.attr)
        if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store):
            names.add(item.id)
    return names


def _required(node: ast.ClassDef) -> list[str]:
    """Fields without a default: nobody can use the class without knowing them."""
    bare = {
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign)
        and isinstance(item.target, ast.Name)
        and item.value is None
    }
    return [name for name in fields(node) if name in bare]


def _module_text(name: str, tree: ast.Module) -> str:
    parts = [f"## {name}\n\n{markdown(ast.get_docstring(tree) or '')}\n"]
    for node in public(tree):
        parts.append(_definition_text(node, heading="###"))
        if isinstance(node, ast.ClassDef):
            parts += [
                _definition_text(method, heading="####", owner=f"{node.name}.")
                for method in public(node)
            ]
    return "\n".join(parts)


def _definition_text(node: Definition, *, heading: str, owner: str = "") -> str:
    docstring = markdown(ast.get_docstring(node) or "")
    return (
        f"{heading} {owner}{node.name}\n\n"
        f"```python\n{_signature(node)}\n```\n\n{docstring}\n"
    )


def _signature(node: Definition) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        lines = [f"class {node.name}({bases}):" if bases else f"class {node.name}:"]
        lines += [f"    {name}: {type_}" for name, type_ in fields(node).items()]
        return "\n".join(lines)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    short = f"def {node.name}({ast.unparse(node.args)}){returns}"
    if len(short) <= 88:
        return short
    arguments = ast.unparse(node.args).replace(", ", ",\n    ")
    return f"def {node.name}(\n    {arguments},\n){returns}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output_dir", nargs="?", type=Path, default=OUTPUT)
    raise SystemExit(main(parser.parse_args().output_dir))
