"""What a result follows from: the files of this project that some modules import, hashed. Needs no torch."""

import ast
import hashlib
import importlib
import io
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("mfglib", "deda_fp")
ROOT = Path(__file__).resolve().parents[1]


def on_demand(package: str, homes: dict[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that imports a module when it is asked for one of the names
    that live there: homes maps modules to their names, with spaces between."""
    modules = _by_name(homes)

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return load, lambda: sorted(modules), sorted(modules)


def _by_name(homes: dict[str, str]) -> dict[str, str]:
    return {name: module for module, names in homes.items() for name in names.split()}


# --- which files


def sources(modules: Iterable[str], root: Path = ROOT) -> list[Path]:
    """The files under `root` of the project's modules, given by their dotted names, and of all that they import,
    directly or not, sorted.

    A package that loads on demand (`on_demand`) is no file of its own: what counts is where the name comes from.
    Names of other packages, and of a module's members, are passed over.
    """
    found: set[Path] = set()
    names, seen = list(modules), set()
    while names:
        name = names.pop()
        if name in seen or name.split(".")[0] not in PACKAGES:
            continue
        seen.add(name)
        if name.endswith(".*"):  # any name of a package
            name = name.removesuffix(".*")
            names += [name, *_homes(_file(name, root)).values()]
            continue
        parent = name.rpartition(".")[0]
        file = _file(name, root)
        if file is None:  # perhaps a name that the package before it loads on demand
            names += [home for member, home in _homes(_file(parent, root)).items() if f"{parent}.{member}" == name]
            continue
        homes = _homes(file)
        if not homes:
            found.add(file)
            names += _imported(_text(file))
        if parent:  # importing a module runs the packages that it lies in
            seen.add(parent) if _homes(_file(parent, root)) else names.append(parent)
    return sorted(found)


def imports(tree: ast.AST) -> Iterator[str]:
    """What may be modules of the project, or names that its packages load on demand, in the imports of a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (f"{alias.name}.*" for alias in node.names)  # and what is asked of it cannot be seen here
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def libraries(files: Iterable[Path], trees: Iterable[ast.AST] = ()) -> dict[str, str]:
    """The distributions of other people that files, and syntax trees, import directly, and their installed versions,
    without the label of a build: torch 2.13.0+cpu is torch 2.13.0."""
    every = [*(_imported(_text(file)) for file in files), *map(imports, trees)]
    names = {name.split(".")[0] for found in every for name in found}
    known = _distributions()
    used = {d for name in names - set(PACKAGES) - sys.stdlib_module_names for d in known.get(name, ())}
    return {name: metadata.version(name).partition("+")[0] for name in sorted(used)}


def _file(name: str, root: Path) -> Path | None:
    if not name:
        return None
    path = root.joinpath(*name.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def _homes(file: Path | None) -> dict[str, str]:
    """The table of a package that loads on demand; empty for any other file."""
    if file is None or file.name != "__init__.py":
        return {}
    for node in ast.walk(_parsed(_text(file))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "on_demand":
            return _by_name(ast.literal_eval(node.args[1]))
    return {}


_READ: dict[Path, str] = {}


def remember() -> None:
    """Read all files of the project now: later edits on disk do not change what this process says that it runs."""
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            _READ.setdefault(file, file.read_text(encoding="utf-8"))


def _text(file: Path) -> str:
    return _READ[file] if file in _READ else file.read_text(encoding="utf-8")


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def _imported(text: str) -> list[str]:
    return list(imports(_parsed(text)))


@cache
def _distributions() -> dict[str, list[str]]:
    return {name: list(found) for name, found in metadata.packages_distributions().items()}


# --- their hash


def fingerprint(modules: Iterable[str], root: Path = ROOT, texts: Iterable[str] = ()) -> str:
    """Hash of the code, without comments and bare strings such as docstrings, of modules and of all that they import,
    and of further source texts; the same under every Python from 3.11 on."""
    files = [(path.relative_to(root).as_posix(), _text(path)) for path in sources(modules, root)]
    digest = hashlib.blake2b(digest_size=8)
    for name, text in [*files, *(("", text) for text in texts)]:
        digest.update(f"{name}\n{stripped(text)}\n".encode())
    return digest.hexdigest()


@cache
def stripped(text: str) -> str:
    """Source text without comments, bare strings and blank lines, cut out by position: neither syntax trees nor tokens
    are written the same way by all Pythons, f-strings least of all."""
    lines = text.splitlines()
    cuts = []  # (line, column), from and to, 0-based
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            ends = ((node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset))
            cuts.append([(line - 1, len(lines[line - 1].encode()[:byte].decode())) for line, byte in ends])
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            cuts.append([(token.start[0] - 1, token.start[1]), (token.end[0] - 1, token.end[1])])
    for (first, start), (last, end) in sorted(cuts, reverse=True):
        lines[first : last + 1] = [lines[first][:start] + lines[last][end:]] + [""] * (last - first)
    return "\n".join(line.rstrip() for line in lines if line.strip())
