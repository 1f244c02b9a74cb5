"""Files that are whole or not there, and known by a digest: written beside, flushed to the disk, then renamed."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

Parts = dict[str, dict[str, Tensor]]  # of each learner


class DamagedFile(ValueError):
    """A file that is not what was written. The message names it, and what to do."""

    def __init__(self, file: Path, reason: object) -> None:
        super().__init__(
            f"{file}: expected a file as it was written, got a damaged or edited one ({reason}); delete the run's "
            f"directory, or pass overwrite=True, to make the run anew"
        )


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside `file` to write to, which then takes its place: a reader never sees half a file, and after a power
    cut it is the old one or the new one. An OSError, such as a full disk, names the file."""
    temporary = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, file)
        if os.name == "posix":
            _flush(file.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from error


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(file: Path, text: str) -> None:
    """Write a text by `replacing`. An unchanged file keeps its time, as Snakemake asks."""
    if file.exists() and file.read_bytes() == text.encode():
        return
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_table(file: Path, table: pd.DataFrame) -> None:
    """A table as CSV, and its digest beside it, first: a table without one is not whole."""
    text = table.to_csv(index=False, lineterminator="\n")
    write(file.with_name(f"{file.name}.digest"), _digest(text.encode()))
    write(file, text)


def read_table(file: Path) -> pd.DataFrame:
    """A table of `write_table`; raises DamagedFile, or FileNotFoundError."""
    data, beside = file.read_bytes(), file.with_name(f"{file.name}.digest")
    if not beside.exists() or beside.read_bytes().decode(errors="replace") != _digest(data):
        raise DamagedFile(file, "its digest beside it is missing or another")
    return pd.read_csv(StringIO(data.decode()))


def write_parts(file: Path, parts: Parts, k: int, rows: list[dict[str, Any]] | None = None) -> None:
    """The tensors of learners after iteration k, and the history so far, as safetensors with a digest of all that."""
    tensors = {f"{part}.{name}": value.contiguous() for part, state in parts.items() for name, value in state.items()}
    metadata = {"k": str(k), "history": json.dumps(rows)}
    metadata["digest"] = _digest_of(tensors, metadata)
    with replacing(file) as temporary:
        temporary.write_bytes(safetensors.torch.save(tensors, metadata))


def read_parts(file: Path, k: int, device: str = "cpu") -> tuple[Parts, list[dict[str, Any]]]:
    """What `write_parts` wrote for iteration k; raises DamagedFile for anything else, FileNotFoundError for nothing."""
    try:
        with safetensors.safe_open(file, framework="pt", device="cpu") as stored:
            metadata = dict(stored.metadata() or {})
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a dict)
        if metadata.pop("digest", None) != _digest_of(tensors, metadata):
            raise DamagedFile(file, "its digest is missing or another")
        if metadata["k"] != str(k):
            raise DamagedFile(file, f"it is of iteration {metadata['k']}, not {k}")
    except FileNotFoundError:
        raise FileNotFoundError(f"{file} is missing: the run has kept nothing of iteration {k}") from None
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise error if isinstance(error, DamagedFile) else DamagedFile(file, error) from error
    parts: Parts = {}
    for name, value in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value.to(device)
    return parts, json.loads(metadata["history"])


def _digest(*data: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in data:
        digest.update(part)
    return digest.hexdigest()


def _digest_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    described = [(name, str(value.dtype), list(value.shape)) for name, value in sorted(tensors.items())]
    head = json.dumps([described, sorted(metadata.items())]).encode()
    return _digest(head, *(tensors[name].cpu().numpy().tobytes() for name, *_ in described))
