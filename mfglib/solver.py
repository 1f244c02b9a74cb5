"""Solve a game: fictitious play over the learners of a recipe, certificates, and a directory that resumes."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from mfglib.arguments import checked
from mfglib.certificates import COLUMNS, Certify, CertifyConfig
from mfglib.checks import DivergenceError, integer
from mfglib.fictitious_play import Step, fictitious_play
from mfglib.files import read_table
from mfglib.judge import certifiable, require_certifiable
from mfglib.presets import Sizes, configured
from mfglib.protocols import Average, BestResponse, Game, Policy, Population, PopulationModel
from mfglib.recipes import Recipe, recipe_of
from mfglib.runs.directory import RunDirectory
from mfglib.runs.identity import modules_of, settings_of
from mfglib.runs.replay import at_rest, recipe_in, steps
from mfglib.runs.saved import Kept, kept_in, save
from mfglib.schedules import Averaging
from mfglib.seeds import torch_defaults
from mfglib.sources import fingerprint


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
    kept: Kept | None = field(default=None, repr=False, compare=False)
    """what `save` writes"""

    def save(self, folder: str | Path) -> None:
        """Write it to a folder: settings.json, history.csv and the last learners as safetensors. These are data, and
        open nothing but data. ValueError if the folder holds something else."""
        if self.kept is None:
            raise ValueError(
                "solution: expected one whose learners are at hand, got one that was opened from a longer or packed "
                "run: its directory is such a folder, to be opened by the same call of `solve`"
            )
        save(Path(folder).expanduser(), self.kept, self.history)

    @classmethod
    @checked
    def load(cls, game: Game, folder: str | Path, **own: Any) -> "Solution":
        """The solution of `game` that `save` wrote.

        Args:
            own: the objects of one's own that it was made with: best_response, average, population, averaging,
                initial_policy.

        Raises ValueError if there is none, if it is one of another game, or without an object that it needs.
        """
        folder = Path(folder).expanduser()
        recipe, length = recipe_in(game, folder, own)
        kept = kept_in(folder, recipe, length - 1)
        return _solution(kept, length - 1, read_table(folder / "history.csv"))


@torch_defaults()
@checked
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
    sizes: Sizes | None = None,
    directory: str | Path | None = None,
    overwrite: bool = False,
    certify: bool | None = None,
    progress: bool = True,
    device: str = "cpu",
    initial_policy: Policy | None = None,
    callback: Callable[[Step], Any] | None = None,
) -> Solution:
    """Approximate the mean field equilibrium of `game` by deep fictitious play.

    Args:
        algorithm: "deda-fp" (paper, Algo. 3), or the baselines "algo-1" and "algo-2": names of the three learners.
        iterations: K, the number of best responses.
        averaging: "uniform" (the paper's steps 1/k), "linear" (2/(k+1)), "geometric" (constant 1/2), an object with
            `weights(k)`, such as `mfglib.schedules.constant(0.3)`, or "corrective": the weights of an equilibrium of
            the game restricted to the best responses so far, in columns weight_1, ... of `history`; for bounded games
            whose moves ignore the population and whose rewards are a function of (t, x, a) plus one of (t, x, μ)
            (`mfglib.learn.corrective`). For the same games "mirror", mirror descent with momentum, averages values and
            not policies: best response and average of the algorithm give way to "mirror" and "last"
            (`mfglib.learn.mirror`).
        best_response: "ppo", "look-ahead" or "mirror" (bounded games), or "sb3-sac", "sb3-ppo" of Stable-Baselines3
            (extra `rl`); None looks ahead where the game can be looked ahead, else takes PPO.
        average: "cloned", "episodes" or "last". population: "flow" or "agents". None: those of the algorithm.
            Each of the three may be an object instead (`mfglib.protocols`), which is trained in place.
        preset: sizes and budgets, "smoke", "lecture" or "paper"; None takes MFGLIB_PRESET if set, else "lecture".
        sizes: changes to the preset's table, e.g. {"ppo": {"temperature": 0.1}} (`mfglib.presets.sizes`).
        directory: where to checkpoint after each iteration. The same call finds it there and goes on, bit for bit
            as if it had never stopped; a longer run is not shortened, its first iterations are returned. ValueError if
            it holds another run or a damaged one, unless `overwrite` (which deletes that, and no other files), or if
            another process writes to it.
        certify: measure exploitability at each iteration; None does so if an exact solver knows the game.
        initial_policy: the policy of iteration 0, a warm start; None for the average's own, which is noise. The first
            population is fitted to its agents, and the first row of `history` is of it: what is said relative to the
            first exploitability is relative to this policy's. As ever, policy 0 is no part of the average, and networks
            begin untrained. It is not stored: a run in a `directory` knows it by its class, tensors and actions, and
            goes on, or is replayed, with the same one only.
        callback: called with each iteration of this call, once it is stored: a `mfglib.fictitious_play.Step` that later
            iterations leave alone, so that `steps.append` keeps them all. `mfglib.replay` yields those of a directory.

    Raises ValueError or TypeError for bad arguments, DivergenceError (naming iteration, learner and last good
    checkpoint) when a learner's numbers stop being finite.
    """
    integer("iterations", iterations, at_least=1)
    learning = dict(averaging=averaging, best_response=best_response, average=average, population=population)
    learning["initial_policy"] = initial_policy
    recipe = recipe_of(game, algorithm, seed=seed, preset=preset, sizes=sizes, device=device, **learning)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: expected None or a function, got {callback!r}")
    if certify:
        require_certifiable(game)  # now, not after the first fit
    judge, certificate = None, None
    if certify or (certify is None and certifiable(game)):
        judge = Certify(game, configured(CertifyConfig, recipe.sizes["certify"]), recipe.seed, recipe.device)
    learners = recipe.build()
    if directory is None:
        return _solve(recipe, learners, judge, None, iterations, algorithm, progress, callback)
    if judge:
        code = fingerprint(["mfglib.certificates", *modules_of(game)])
        certificate = dict(config=asdict(judge.config), code=code)
    settings = settings_of(recipe, learners) | dict(algorithm=algorithm, certificate=certificate)
    with contextlib.closing(RunDirectory(directory, settings, iterations, overwrite=overwrite)) as run:
        return _solve(recipe, learners, judge, run, iterations, algorithm, progress, callback)


def _solve(
    recipe: Recipe,
    learners: dict[str, Any],
    judge: Certify | None,
    run: RunDirectory | None,
    iterations: int,
    name: str,
    progress: bool,
    callback: Callable[[Step], Any] | None,
) -> Solution:
    state, rows = (run.state, run.rows) if run else ({}, [])
    if rows and (judge or len(rows) <= iterations) and run.certified != run.settings["certificate"]:
        if judge:
            first = 0 if run.kept is None else len(rows) - 1  # that can be measured again
            rows = [row if row["iteration"] >= first else row | dict(stale=True) for row in rows]
            for step in steps(recipe, run.path, len(rows), first):
                rows[step.k] |= _certified(judge, step)
        run.certify(state, rows)
    if len(rows) > iterations + 1 or (run and run.kept is not None):  # a longer run: its first iterations
        last = next(steps(recipe, run.path, iterations + 1, first=iterations))
        return Solution(last.policy, last.population, last.best_response, pd.DataFrame(rows[: iterations + 1]))
    for part, learner in learners.items() if rows else ():
        learner.load(state.get(part, {}))
    faced = copy.deepcopy(learners["population"]) if "faced" in state else None
    if faced is not None:
        faced.load(state["faced"])
        learners["best_response"].faced = faced
    hidden = {} if progress else {"disable": True}  # so that the environment variable TQDM_DISABLE counts too
    with tqdm(total=iterations, initial=max(0, len(rows) - 1), desc=name, **hidden) as bar:
        loop = _loop(recipe, learners, len(rows))
        for k in range(len(rows), iterations + 1):
            try:
                step = next(loop)
                faced = step.faced
                rows.append(_row(step) | _certified(judge, step))
            except DivergenceError as error:
                last = run.latest() if run else None
                raise DivergenceError(f"iteration {k}, {error}; last good checkpoint: {last}") from error
            if run:
                run.save(learners, faced, rows)
            if callback:
                callback(at_rest(step))
            if k > 0:
                bar.update()
            if math.isfinite(rows[-1]["exploitability"]):
                bar.set_postfix(exploitability=f"{rows[-1]['exploitability']:.3g}")
    if run:
        run.finish(rows)
    return _solution(Kept(recipe, name, learners, faced), iterations, pd.DataFrame(rows))


def _loop(recipe: Recipe, learners: dict[str, Any], start: int) -> Iterator[Step]:
    """Fictitious play from iteration `start` on; an initial policy stands in for the average in iteration 0."""
    options = dict(seed=recipe.seed, device=recipe.device)
    if start == 0 and recipe.initial_policy is not None:
        begun = learners | dict(average=SimpleNamespace(policy=recipe.initial_policy))
        yield next(fictitious_play(*begun.values(), **options))
        start = 1
    yield from fictitious_play(*learners.values(), **options, start=start)


def _solution(kept: Kept, iterations: int, history: pd.DataFrame) -> Solution:
    response, average, population = kept.learners.values()
    last = at_rest(Step(iterations, response.policy, average.policy, population, kept.faced, {}, {}))
    return Solution(last.policy, last.population, last.best_response, history, kept)


def _row(step: Step) -> dict[str, Any]:
    seconds = {f"seconds_{part}": step.seconds.get(part, 0.0) for part in ("best_response", "cloning", "population")}
    return dict(iteration=step.k) | seconds | step.losses


def _certified(judge: Certify | None, step: Step) -> dict[str, float]:
    begin = time.perf_counter()
    row = judge(step) if judge else dict.fromkeys(COLUMNS, math.nan)
    return row | dict(seconds_judge=time.perf_counter() - begin)
