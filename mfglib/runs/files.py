"""Files that are whole or not there: written beside, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, which then takes its place: a reader never sees half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.part")
    yield temporary
    os.replace(temporary, file)


def write(file: Path, text: str) -> None:
    """Write a text by `replacing`. An unchanged file keeps its time, as Snakemake asks."""
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
