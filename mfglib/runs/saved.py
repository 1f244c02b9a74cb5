"""A solution in a folder, and out of it again: its history and its last learners, as data."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mfglib.files import Parts, write, write_parts, write_table
from mfglib.recipes import Recipe
from mfglib.runs.directory import WRITTEN, learners_file, read_learners, read_settings
from mfglib.runs.identity import settings_of


@dataclass
class Kept:
    """What `save` writes of a solution of K iterations: what made its learners, and their tensors after iteration K;
    `faced` is of the population that the last best response was trained against."""

    recipe: Recipe
    algorithm: str
    learners: dict[str, Any]
    faced: Any
    parts: Parts = field(init=False)

    def __post_init__(self) -> None:
        read = {part: getattr(learner, "learned", learner.state)() for part, learner in self.learners.items()}
        # Of averages and populations all that acts, and not only what is new: there are no earlier iterations to read.
        for part in ("average", "population"):
            read[part] = {n: v for n, v in self.learners[part].state().items() if not n.startswith("memory.")}
        self.parts = copy.deepcopy(read | {"faced": {} if self.faced is None else self.faced.state()})


def save(folder: Path, kept: Kept, history: pd.DataFrame) -> None:
    """Write a packed run (`mfglib.runs.pack`), in the place of one that is there.

    Raises ValueError if the folder holds something else.
    """
    others = [file for file in folder.glob("*") if not any(file.match(pattern) for pattern in WRITTEN)]
    if others or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"folder: expected a new one, or one of a solution, got {folder}, which holds something else")
    for old in [file for pattern in WRITTEN for file in folder.glob(pattern)]:
        old.unlink()
    K, parts = len(history) - 1, dict(kept.parts)
    write_parts(learners_file(folder, K - 1), {"population": parts.pop("faced")}, K - 1)
    write_parts(learners_file(folder, K), parts, K)
    write_table(folder / "history.csv", history)
    settings = settings_of(kept.recipe, kept.learners) | dict(algorithm=kept.algorithm, certificate=None, kept=K - 1)
    write(folder / "settings.json", json.dumps(settings, indent=1))


def kept_in(folder: Path, recipe: Recipe, iterations: int) -> Kept:
    """What `save` wrote, from the folder."""
    learners, faced = copy.deepcopy(recipe).build(), None
    before = read_learners(folder, iterations - 1, recipe.device).get("population")
    if before:
        faced = copy.deepcopy(learners["population"])
        faced.load(before)
    for part, tensors in read_learners(folder, iterations, recipe.device).items():
        learners[part].load(tensors)
    learners["best_response"].faced = faced
    return Kept(recipe, read_settings(folder)["algorithm"], learners, faced)
