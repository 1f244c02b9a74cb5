"""Scripts of web pages, from npm: pages that have them beside them need no net when they are opened."""

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

MATHJAX = "mathjax@3.2.2"
TEX = "es5/tex-svg-full.js"  # with all its extensions and no fonts: it asks for no other file


def fetch(package: str, kept: Mapping[str, Path]) -> None:
    """Of a package, as "name@version", keep files and folders: path in the package -> where it should be. Does nothing
    if all are there; SystemExit without npm."""
    if all(target.exists() for target in kept.values()):
        return
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(f"error: expected npm, for {package}; on Debian and Ubuntu: sudo apt-get install npm")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([npm, "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        for name, target in kept.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(Path(folder, "package", name), target)
