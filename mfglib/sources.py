"""Which files of this package some of its modules depend on: what a result follows from, and nothing else."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "mfglib"


def sources(modules: Iterable[str], root: Path) -> list[Path]:
    """The files under `root` of the package's modules, given by their dotted names, and of all that they import,
    directly or not, sorted. Names of other packages, and of a module's members, are passed over."""
    found: set[Path] = set()
    names = list(modules)
    while names:
        name = names.pop()
        file = _file(name, root)
        if file is None or file in found:
            continue
        found.add(file)
        names += imports(ast.parse(file.read_text(encoding="utf-8")))
        if "." in name:
            names.append(name.rpartition(".")[0])  # importing a module runs the packages that it lies in
    return sorted(found)


def imports(tree: ast.AST) -> Iterator[str]:
    """What may be modules of the package in the import statements of a syntax tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file(name: str, root: Path) -> Path | None:
    if name.split(".")[0] != PACKAGE:
        return None
    path = root.joinpath(*name.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)
