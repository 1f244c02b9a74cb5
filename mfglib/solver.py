"""Fictitious play with learned best responses: DEDA-FP, and the two baselines that lack what it adds (paper).

            average policy π̄                                        population
algo-1      each agent draws a past best response, every episode    simulated agents, Gaussian kernel
algo-2      one network, cloned from samples of all of them         simulated agents, Gaussian kernel
deda-fp     the same                                                time-conditioned normalizing flow
"""

import copy
import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from safetensors.torch import load_file
from tqdm.auto import tqdm

from mfglib import runs
from mfglib.checks import DivergenceError, integer
from mfglib.judge import certifiable, require_certifiable
from mfglib.loop import FictitiousPlay
from mfglib.presets import Config, learner_config, preset_config, resolve_preset, restored
from mfglib.protocols import Game, Policy, Population, check_game
from mfglib.schedules import averaging_weights

ALGORITHMS = ("deda-fp", "algo-1", "algo-2")


@dataclass(frozen=True)
class Solution:
    """The last average policy π̄_K and population (the flow Ḡ_K, or simulated agents), the last best response, and a
    row of measurements for each iteration 0..K.

    Columns of `history`: iteration; exploitability of π̄ as it acts, exploitability_error (one standard error; NaN on
    grids, where `mfglib.judge` measures it on demand),
    policy_value and best_response_gap (of π*_k against the population before), all NaN where nobody certifies them,
    and at iterations that are no multiple of `Config.judge_every`;
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
    averaging: str = "uniform",
    step: float = 0.5,
    best_response: str | None = None,
    seed: int = 0,
    preset: str | None = None,
    config: Config | None = None,
    directory: str | Path | None = None,
    overwrite: bool = False,
    certify: bool | None = None,
    progress: bool = True,
    device: str = "cpu",
) -> Solution:
    """Approximate the mean field equilibrium of `game` by deep fictitious play.

    Args:
        algorithm: "deda-fp" (paper, Algo. 3), or the baselines "algo-1" and "algo-2".
        iterations: K, the number of best responses.
        averaging: "uniform" (the paper's steps 1/k), "linear" (2/(k+1)) or "geometric" (constant `step`).
        best_response: "ppo", "look-ahead" (bounded games), or "sb3-sac", "sb3-ppo" of Stable-Baselines3 (extra `rl`);
            None takes the configuration's.
        preset: sizes and budgets, "smoke", "lecture" or "paper"; None takes MFGLIB_PRESET if set, else "lecture".
        config: replaces the preset's.
        directory: where to checkpoint after each iteration. The same call finds it there and goes on, bit for bit
            as if it had never stopped. ValueError if it holds another run, unless `overwrite` (which deletes that).
        certify: measure exploitability at each iteration; None does so if an exact solver knows the game.

    Raises ValueError or TypeError for bad arguments, DivergenceError (naming iteration, learner and last good
    checkpoint) when a learner's numbers stop being finite.
    """
    check_game(game)
    integer("iterations", iterations, at_least=1)
    seed, device = integer("seed", seed, at_least=0), str(device)
    averaging_weights(1, averaging, step)
    if algorithm not in ALGORITHMS:
        raise ValueError(f"algorithm: expected one of {ALGORITHMS}, got {algorithm!r}")
    preset = preset or resolve_preset("lecture")
    config = config or preset_config(preset, game)
    if best_response is not None:
        config = dataclasses.replace(config, best_response=learner_config(best_response, preset))
    if certify:
        require_certifiable(game)  # now, not after the first fit
    certify = certifiable(game) if certify is None else certify
    loop = FictitiousPlay(game, algorithm, config, averaging, step, seed, certify, device)
    settings = dict(algorithm=algorithm, averaging=averaging, step=step, seed=seed, certify=certify, device=device)
    settings |= dict(config=dataclasses.asdict(config), game=runs.describe(game))
    run = runs.RunDirectory(directory, settings, overwrite=overwrite) if directory is not None else None
    state, rows = run.load(device) if run else ({}, [])
    if state:
        loop.load_state(state, len(rows) - 1)
    if len(rows) > iterations + 1:
        raise ValueError(f"iterations: the run in {directory} has {len(rows) - 1} already, more than {iterations}")
    hidden = {} if progress else {"disable": True}  # so that the environment variable TQDM_DISABLE counts too
    with tqdm(total=iterations, initial=max(0, len(rows) - 1), desc=algorithm, **hidden) as bar:
        for k in range(len(rows), iterations + 1):
            try:
                rows.append(loop.iterate(k))
            except DivergenceError as error:
                last = run.latest() if run else None
                raise DivergenceError(f"iteration {k}, {error}; last good checkpoint: {last}") from error
            if run:
                run.save(loop.state(), rows)
            if k > 0:
                bar.update()
            if math.isfinite(rows[-1]["exploitability"]):
                bar.set_postfix(exploitability=f"{rows[-1]['exploitability']:.3g}")
    if run:
        run.finish(rows)
    loop.requires_grad_(False).eval()
    return Solution(loop.average, loop.population, loop.response, pd.DataFrame(rows))


@dataclass(frozen=True)
class Learners:
    """What iteration k of a run had learned: best_response π*_k (None for k = 0), policy π̄_k and population Ḡ_k."""

    iteration: int
    best_response: Policy | None
    policy: Policy
    population: Population


def replay(game: Game, directory: str | Path) -> Iterator[Learners]:
    """The learners of each iteration 0..K of a DEDA-FP run of `game` that `solve` has kept in `directory`.

    Raises ValueError if there is no such run, or if it is one of another game or algorithm; FileNotFoundError, naming
    the file, if an iteration's learners are missing.
    """
    directory = Path(directory)
    if not (directory / "history.csv").exists():
        raise ValueError(f"directory: expected a finished run, got {directory}, which has no history.csv")
    settings = json.loads((directory / "settings.json").read_text())
    if settings["game"] != json.loads(json.dumps(runs.describe(game))) or settings["algorithm"] != "deda-fp":
        found = settings["game"]["class"], settings["algorithm"]
        raise ValueError(f"directory: expected a deda-fp run of {game!r}, got one of {found[0]} by {found[1]}")
    names = ("averaging", "step", "seed", "certify", "device")
    loop = FictitiousPlay(game, "deda-fp", restored(settings["config"]), *(settings[name] for name in names))
    loop.requires_grad_(False).eval()
    for k in range(len(pd.read_csv(directory / "history.csv"))):
        faced = copy.deepcopy(loop.flow)
        loop.load_weights(load_file(runs.learners_file(directory, k), device=settings["device"]), k)
        now = copy.deepcopy(loop)
        loop.flow = faced  # what π*_k was trained against
        yield Learners(k, copy.deepcopy(loop).response if k else None, now.average, now.population)
        loop.flow = copy.deepcopy(now.flow)
