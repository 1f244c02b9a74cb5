"""From names to a solution: learners by name, fictitious play, certificates, and a directory that resumes."""

import copy
import inspect
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn
from tqdm.auto import tqdm

from mfglib import presets, runs
from mfglib.certificates import COLUMNS, Certify, CertifyConfig
from mfglib.checks import DivergenceError, integer
from mfglib.fictitious_play import Step, fictitious_play
from mfglib.games.base import known_moves
from mfglib.judge import certifiable, require_certifiable
from mfglib.learn.networks import NetworkConfig, Networks
from mfglib.protocols import Average, BestResponse, Game, Policy, Population, PopulationModel, check_game
from mfglib.schedules import Averaging, Steps, averaging_of
from mfglib.seeds import Random, isolated
from mfglib.sources import PACKAGES, fingerprint

PARTS = ("best_response", "average", "population")


@dataclass(frozen=True)
class Solution:
    """The last average policy π̄_K and population (the flow Ḡ_K, or simulated agents), the last best response, and a
    row of measurements for each iteration 0..K.

    Columns of `history`: iteration; exploitability of π̄ as it acts, exploitability_error (one standard error; NaN on
    grids, where `mfglib.exploitability` measures it on demand),
    policy_value and best_response_gap (of π*_k against the population before), all NaN where nobody certifies them,
    and at iterations between two certificates;
    policy_loss, critic_loss, cloning_loss, flow_loss; and seconds of best_response, cloning, population, judge.
    """

    policy: Policy
    population: Population
    best_response: Policy
    history: pd.DataFrame


def solve(
    game: Game,
    algorithm: str = "deda-fp",
    *,
    iterations: int = 20,
    averaging: str | Averaging = "uniform",
    best_response: str | BestResponse | None = None,
    average: str | Average | None = None,
    population: str | PopulationModel | None = None,
    seed: int = 0,
    preset: str | None = None,
    sizes: presets.Sizes | None = None,
    directory: str | Path | None = None,
    overwrite: bool = False,
    certify: bool | None = None,
    progress: bool = True,
    device: str = "cpu",
) -> Solution:
    """Approximate the mean field equilibrium of `game` by deep fictitious play.

    Args:
        algorithm: "deda-fp" (paper, Algo. 3), or the baselines "algo-1" and "algo-2": names of the three learners.
        iterations: K, the number of best responses.
        averaging: "uniform" (the paper's steps 1/k), "linear" (2/(k+1)), "geometric" (constant 1/2), or an object with
            `weights(k)`, such as `mfglib.schedules.constant(0.3)`.
        best_response: "ppo", "look-ahead" (bounded games), or "sb3-sac", "sb3-ppo" of Stable-Baselines3 (extra `rl`);
            None looks ahead where the game can be looked ahead, else takes PPO.
        average: "cloned" or "episodes". population: "flow" or "agents". None: those of the algorithm.
            Each of the three may be an object instead (`mfglib.protocols`), which is trained in place.
        preset: sizes and budgets, "smoke", "lecture" or "paper"; None takes MFGLIB_PRESET if set, else "lecture".
        sizes: changes to the preset's table, e.g. {"ppo": {"temperature": 0.1}} (`mfglib.presets.sizes`).
        directory: where to checkpoint after each iteration. The same call finds it there and goes on, bit for bit
            as if it had never stopped. ValueError if it holds another run, unless `overwrite` (which deletes that).
        certify: measure exploitability at each iteration; None does so if an exact solver knows the game.

    Raises ValueError or TypeError for bad arguments, DivergenceError (naming iteration, learner and last good
    checkpoint) when a learner's numbers stop being finite.
    """
    integer("iterations", iterations, at_least=1)
    options = dict(averaging=averaging, best_response=best_response, average=average, population=population)
    options |= dict(seed=seed, preset=preset, sizes=sizes, device=device)
    recipe = recipe_of(game, algorithm, **options)
    if certify:
        require_certifiable(game)  # now, not after the first fit
    judge = None
    if certify or (certify is None and certifiable(game)):
        judge = Certify(game, presets.configured(CertifyConfig, recipe.sizes["certify"]), seed, device)
    learners = recipe.build()
    run = _directory(directory, recipe, learners, algorithm, judge, overwrite) if directory is not None else None
    state, rows = run.load(device) if run else ({}, [])
    for part, stored in state.items():
        learners[part].load(stored)
    if len(rows) > iterations + 1:
        raise ValueError(f"iterations: the run in {directory} has {len(rows) - 1} already, more than {iterations}")
    if rows and run.certified != run.settings["certificate"]:
        stored = zip(rows, recipe.replay(run.path, len(rows)), strict=True)
        rows = [row | _certified(judge, step) for row, step in stored]
        run.certify(state, rows)
    step = None
    hidden = {} if progress else {"disable": True}  # so that the environment variable TQDM_DISABLE counts too
    with tqdm(total=iterations, initial=max(0, len(rows) - 1), desc=algorithm, **hidden) as bar:
        steps = fictitious_play(*learners.values(), seed=seed, device=device, start=len(rows))
        for k in range(len(rows), iterations + 1):
            try:
                step = next(steps)
                rows.append(_row(step) | _certified(judge, step))
            except DivergenceError as error:
                last = run.latest() if run else None
                raise DivergenceError(f"iteration {k}, {error}; last good checkpoint: {last}") from error
            if run:
                run.save(_states(learners), _learned(learners), rows)
            if k > 0:
                bar.update()
            if math.isfinite(rows[-1]["exploitability"]):
                bar.set_postfix(exploitability=f"{rows[-1]['exploitability']:.3g}")
    if run:
        run.finish(rows)
    if step is None:  # the run was finished before
        step = next(recipe.replay(run.path, iterations + 1, first=iterations))
    step = _at_rest(step)
    return Solution(step.policy, step.population, step.best_response, pd.DataFrame(rows))


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
    if settings["game"] != json.loads(json.dumps(runs.describe(game))):
        raise ValueError(f"directory: expected a run of {game!r}, got one of {settings['game']['class']}")
    given = dict(zip(PARTS, (best_response, average, population), strict=True))
    makers = {part: given[part] or _stored_maker(part, settings["learners"][part]) for part in PARTS}
    averaging = averaging or Steps(**settings["averaging"]["attributes"])
    networks = presets.configured(NetworkConfig, settings["networks"])
    recipe = Recipe(game, makers, averaging, networks, settings["seed"], settings["device"], {})
    return recipe.replay(directory, len(pd.read_csv(directory / "history.csv")))


@dataclass(frozen=True)
class Recipe:
    """What makes the learners of a run: objects, or classes with their configuration, in the order of `PARTS`."""

    game: Game
    makers: dict[str, Any]
    averaging: Averaging
    networks: NetworkConfig
    seed: int
    device: str
    sizes: presets.Sizes

    def build(self) -> dict[str, Any]:
        """The three learners. A class is given what its constructor asks for by name, of game, config, networks,
        averaging, device, and the learners before it; its parameters are drawn under one seed."""
        given = dict(game=self.game, averaging=self.averaging, device=self.device)
        given |= dict(networks=Networks(self.game, self.networks, seed=self.seed, device=self.device))
        with isolated(self.seed, "parameters"):
            for part, maker in self.makers.items():
                if isinstance(maker, tuple):
                    kind, config = maker
                    asked = inspect.signature(kind).parameters
                    maker = kind(**{n: v for n, v in (given | dict(config=config)).items() if n in asked})
                given[part] = maker
        return {part: given[part] for part in PARTS}

    def replay(self, directory: Path, iterations: int, first: int = 0) -> Iterator[Step]:
        """The steps `first`..iterations − 1 that a run directory has kept, at rest."""
        learners = copy.deepcopy(self).build()  # objects of the caller's stay as they are
        response, average, population = learners.values()
        faced = None
        for k in range(iterations):
            stored = runs.read_learners(directory, k, self.device)
            for part, learned in stored.items():
                learners[part].load(learned)
            if "population" not in stored and k >= first - 1:  # simulated again
                population.fit(average.policy, k, Random(self.seed, k, self.device))
            response.faced = faced
            if k >= first:
                yield _at_rest(Step(k, response.policy if k else None, average.policy, population, faced, {}, {}))
            faced = copy.deepcopy(population)


def recipe_of(
    game: Game,
    algorithm: str = "deda-fp",
    *,
    averaging: str | Averaging = "uniform",
    best_response: str | BestResponse | None = None,
    average: str | Average | None = None,
    population: str | PopulationModel | None = None,
    seed: int = 0,
    preset: str | None = None,
    sizes: presets.Sizes | None = None,
    device: str = "cpu",
) -> Recipe:
    """The learners that `solve` would train for the same arguments: `recipe_of(game).build()`."""
    check_game(game)
    if algorithm not in presets.ALGORITHMS:
        raise ValueError(f"algorithm: expected one of {tuple(presets.ALGORITHMS)}, got {algorithm!r}")
    table = presets.sizes(preset or presets.resolve_preset("lecture"), game, sizes)
    given = dict(zip(PARTS, (best_response, average, population), strict=True))
    wanted = presets.ALGORITHMS[algorithm] | {part: learner for part, learner in given.items() if learner is not None}
    wanted["best_response"] = wanted["best_response"] or ("look-ahead" if known_moves(game) else "ppo")
    makers = {part: _maker(part, wanted[part], table) for part in PARTS}
    networks, seed = presets.configured(NetworkConfig, table["networks"]), integer("seed", seed, at_least=0)
    return Recipe(game, makers, averaging_of(averaging), networks, seed, str(device), table)


def _maker(part: str, wanted: Any, table: presets.Sizes) -> Any:
    """An object as it is; of a name, the class and its configuration."""
    if not isinstance(wanted, str):
        return wanted
    kind = presets.learner_class(part, wanted)
    return kind, presets.configured(kind.Config, table[wanted])


def _stored_maker(part: str, described: dict[str, Any]) -> Any:
    path = described["class"]
    if path.split(".")[0] not in PACKAGES:
        raise ValueError(f"{part}: expected the object that the run was made with, a {path}; pass {part}=...")
    kind = presets.learner_class(part, path)
    return kind, presets.configured(kind.Config, described["config"])


def _directory(
    directory: str | Path,
    recipe: Recipe,
    learners: dict[str, Any],
    algorithm: str,
    judge: Certify | None,
    overwrite: bool,
) -> runs.RunDirectory:
    certificate = None
    if judge:
        code = fingerprint(["mfglib.certificates", *runs.modules_of(recipe.game)])
        certificate = dict(config=asdict(judge.config), code=code)
    settings = dict(algorithm=algorithm, seed=recipe.seed, device=recipe.device)
    settings |= dict(networks=asdict(recipe.networks), certificate=certificate)
    settings = runs.settings_of(recipe.game, learners, recipe.averaging, [Recipe.build], **settings)
    return runs.RunDirectory(directory, settings, overwrite=overwrite)


def _states(learners: dict[str, Any]) -> runs.Parts:
    return {part: learner.state() for part, learner in learners.items()}


def _learned(learners: dict[str, Any]) -> runs.Parts:
    return {part: getattr(learner, "learned", learner.state)() for part, learner in learners.items()}


def _row(step: Step) -> dict[str, Any]:
    seconds = {f"seconds_{part}": step.seconds.get(part, 0.0) for part in ("best_response", "cloning", "population")}
    return dict(iteration=step.k) | seconds | step.losses


def _certified(judge: Certify | None, step: Step) -> dict[str, float]:
    begin = time.perf_counter()
    row = judge(step) if judge else dict.fromkeys(COLUMNS, math.nan)
    return row | dict(seconds_judge=time.perf_counter() - begin)


def _at_rest(step: Step) -> Step:
    """A copy that later iterations leave alone, without gradients."""
    step = copy.deepcopy(step)
    things = [thing for thing in (step.policy, step.population, step.best_response) if thing is not None]
    for thing in things:
        for module in (thing, *vars(thing).values()):
            if isinstance(module, nn.Module):
                module.requires_grad_(False).eval()
    return step
