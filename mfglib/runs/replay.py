"""What a stored run had learned, iteration by iteration."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

from mfglib.arguments import checked
from mfglib.fictitious_play import Step
from mfglib.files import read_table
from mfglib.learn.corrective import Corrective
from mfglib.protocols import Game
from mfglib.recipes import PARTS, Recipe
from mfglib.runs.directory import read_learners, read_settings
from mfglib.runs.identity import describe, describe_policy, same_policy
from mfglib.schedules import Steps
from mfglib.seeds import Random
from mfglib.trial import behaviour, same_behaviour


@checked
def replay(game: Game, directory: str | Path, **own: Any) -> Iterator[Step]:
    """The steps 0..K of a finished run of `game` that `solve` has kept in `directory`: policies, population and the
    population before, not losses. Simulated agents are simulated again.

    Args:
        own: the objects of one's own that the run was made with: best_response, average, population, averaging,
            initial_policy.

    Raises ValueError if there is no such run, if it is one of another game, or a packed one (`mfglib.runs.pack`), or
    without an object that it needs;
    FileNotFoundError, naming the file, if an iteration's learners are missing.
    """
    directory = Path(directory).expanduser()
    recipe, length = recipe_in(game, directory, own)
    if "kept" in read_settings(directory):
        raise ValueError(
            f"directory: expected a whole run, got a packed one, which keeps its last learners: {directory}"
        )
    return steps(recipe, directory, length)


def recipe_in(game: Game, directory: Path, own: dict[str, Any]) -> tuple[Recipe, int]:
    """The recipe of a finished run, by its settings and the objects that it was made with, and its K + 1; raises as
    `replay`."""
    if not (directory / "history.csv").exists():
        raise ValueError(f"directory: expected a finished run, got {directory}, which has no history.csv")
    settings, length = read_settings(directory), len(read_table(directory / "history.csv"))
    described = json.loads(json.dumps(describe(game)))
    if settings["game"] != described or not same_behaviour(settings["behaviour"], behaviour(game)):
        raise ValueError(f"directory: expected a run of {game!r}, got one of {settings['game']['class']}")
    wanted, learners = settings["wanted"] | {part: own[part] for part in PARTS if part in own}, settings["learners"]
    for part in [part for part in PARTS if wanted[part] is None]:
        raise ValueError(f"{part}: expected the object that the run was made with, a {learners[part]['class']}")
    kind = Corrective if settings["averaging"]["class"].endswith(":Corrective") else Steps
    averaging = own.get("averaging") or kind(**settings["averaging"]["attributes"])
    sizes = {settings["wanted"][part]: learners[part]["config"] for part in PARTS}
    sizes["networks"] = settings["networks"]
    policy, began = own.get("initial_policy"), settings.get("initial_policy")
    if began and policy is None:
        raise ValueError(f"initial_policy: expected the one that the run was made with, a {began['class']}")
    if not same_policy(began, None if policy is None else describe_policy(game, policy, settings["device"])):
        raise ValueError(f"initial_policy: expected the one that the run was made with, if any, got {policy!r}")
    return Recipe(game, wanted, averaging, sizes, settings["seed"], settings["device"], policy), length


def steps(recipe: Recipe, directory: Path, iterations: int, first: int = 0) -> Iterator[Step]:
    """The steps `first`..iterations − 1 that a run directory has kept, at rest."""
    learners = copy.deepcopy(recipe).build()  # objects of the caller's stay as they are
    response, average, population = learners.values()
    faced = None
    for k in range(read_settings(directory).get("kept", 0), iterations):
        stored = read_learners(directory, k, recipe.device)
        for part, learned in stored.items():
            learners[part].load(learned)
        begun = k == 0 and recipe.initial_policy is not None
        policy = recipe.initial_policy if begun else average.policy
        if "population" not in stored and k >= first - 1:  # simulated again
            population.fit(policy, k, Random(recipe.seed, k, recipe.device))
        response.faced = faced
        if k >= first:
            yield at_rest(Step(k, response.policy if k else None, policy, population, faced, {}, {}))
        faced = copy.deepcopy(population)


def at_rest(step: Step) -> Step:
    """A copy that later iterations leave alone, without gradients."""
    step = copy.deepcopy(step)
    things = [thing for thing in (step.policy, step.population, step.best_response) if thing is not None]
    for thing in [*things, *(member for owner in things for member in getattr(owner, "__dict__", {}).values())]:
        if isinstance(thing, nn.Module):
            thing.requires_grad_(False).eval()
    return step
