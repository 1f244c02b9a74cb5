"""What a stored run had learned, iteration by iteration."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from mfglib import presets
from mfglib.fictitious_play import Step
from mfglib.learn.networks import NetworkConfig
from mfglib.protocols import Average, BestResponse, Game, PopulationModel
from mfglib.recipes import PARTS, Recipe
from mfglib.runs.directory import read_learners
from mfglib.runs.identity import describe
from mfglib.schedules import Averaging, Steps
from mfglib.seeds import Random
from mfglib.sources import PACKAGES


def replay(
    game: Game,
    directory: str | Path,
    *,
    averaging: Averaging | None = None,
    best_response: BestResponse | None = None,
    average: Average | None = None,
    population: PopulationModel | None = None,
) -> Iterator[Step]:
    """The steps 0..K of a finished run of `game` that `solve` has kept in `directory`: policies, population and the
    population before, not losses. Simulated agents are simulated again.

    Learners and an averaging that were objects of one's own are passed again; those of this library need not be.

    Raises ValueError if there is no such run, or if it is one of another game; FileNotFoundError, naming the file, if
    an iteration's learners are missing.
    """
    directory = Path(directory)
    if not (directory / "history.csv").exists():
        raise ValueError(f"directory: expected a finished run, got {directory}, which has no history.csv")
    settings = json.loads((directory / "settings.json").read_text(encoding="utf-8"))
    if settings["game"] != json.loads(json.dumps(describe(game))):
        raise ValueError(f"directory: expected a run of {game!r}, got one of {settings['game']['class']}")
    given = dict(zip(PARTS, (best_response, average, population), strict=True))
    makers = {part: given[part] or _stored_maker(part, settings["learners"][part]) for part in PARTS}
    averaging = averaging or Steps(**settings["averaging"]["attributes"])
    networks = presets.configured(NetworkConfig, settings["networks"])
    recipe = Recipe(game, makers, averaging, networks, settings["seed"], settings["device"], {})
    return steps(recipe, directory, len(pd.read_csv(directory / "history.csv")))


def steps(recipe: Recipe, directory: Path, iterations: int, first: int = 0) -> Iterator[Step]:
    """The steps `first`..iterations − 1 that a run directory has kept, at rest."""
    learners = copy.deepcopy(recipe).build()  # objects of the caller's stay as they are
    response, average, population = learners.values()
    faced = None
    for k in range(iterations):
        stored = read_learners(directory, k, recipe.device)
        for part, learned in stored.items():
            learners[part].load(learned)
        if "population" not in stored and k >= first - 1:  # simulated again
            population.fit(average.policy, k, Random(recipe.seed, k, recipe.device))
        response.faced = faced
        if k >= first:
            yield at_rest(Step(k, response.policy if k else None, average.policy, population, faced, {}, {}))
        faced = copy.deepcopy(population)


def _stored_maker(part: str, described: dict[str, Any]) -> Any:
    path = described["class"]
    if path.split(".")[0] not in PACKAGES:
        raise ValueError(f"{part}: expected the object that the run was made with, a {path}; pass {part}=...")
    kind = presets.learner_class(part, path)
    return kind, presets.configured(kind.Config, described["config"])


def at_rest(step: Step) -> Step:
    """A copy that later iterations leave alone, without gradients."""
    step = copy.deepcopy(step)
    things = [thing for thing in (step.policy, step.population, step.best_response) if thing is not None]
    for thing in things:
        for module in (thing, *vars(thing).values()):
            if isinstance(module, nn.Module):
                module.requires_grad_(False).eval()
    return step
