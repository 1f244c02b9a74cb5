"""Fictitious play with learned best responses, average policy and population: DEDA-FP (paper, Algo. 3)."""

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mfglib import runs
from mfglib.checks import DivergenceError, require_finite
from mfglib.cloning import Memory, clone
from mfglib.exact.lq import require_unbounded
from mfglib.exploitability import best_response_gap, certifiable, exploitability
from mfglib.flow import TimeFlow, fit_flow
from mfglib.games.base import Game, Population, check_game, integer
from mfglib.policy import GaussianPolicy, Greedy, Policy, averaging_weights
from mfglib.presets import Config, preset_config, resolve_preset
from mfglib.rl import Critic, best_response
from mfglib.rollout import rollout
from mfglib.seeds import generator, isolated

ALGORITHMS = ("deda-fp",)


@dataclass(frozen=True)
class Solution:
    """The last average policy π̄_K and population Ḡ_K, and a row of measurements for each iteration 0..K.

    Columns of `history`: iteration; exploitability of π̄ as it acts, exploitability_error (one standard error),
    policy_value and best_response_gap (of π*_k against Ḡ_{k−1}), all NaN where no exact solver certifies them;
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
        algorithm: "deda-fp" (paper, Algo. 3).
        iterations: K, the number of best responses.
        averaging: "uniform" (the paper's steps 1/k), "linear" (2/(k+1)) or "geometric" (constant `step`).
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
    config = config or preset_config(preset or resolve_preset("lecture"))
    if certify:
        require_unbounded(game)  # now, not after the first fit
    certify = certifiable(game) if certify is None else certify
    loop = FictitiousPlay(game, config, averaging, step, seed, certify, device)
    settings = dict(algorithm=algorithm, averaging=averaging, step=step, seed=seed, certify=certify, device=device)
    settings |= dict(config=dataclasses.asdict(config), game=runs.describe(game))
    run = runs.RunDirectory(directory, settings, overwrite=overwrite) if directory is not None else None
    state, rows = run.load(device) if run else ({}, [])
    if state:
        loop.load_state(state)
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
            bar.set_postfix(exploitability=f"{rows[-1]['exploitability']:.3g}")
    if run:
        run.finish(rows)
    loop.requires_grad_(False).eval()
    return Solution(loop.average, loop.flow, Greedy(loop.policy), pd.DataFrame(rows))


class FictitiousPlay(nn.Module):
    """The networks and the memory of the loop, and one iteration of it; `state` is what a checkpoint holds."""

    def __init__(
        self, game: Game, config: Config, averaging: str, step: float, seed: int, certify: bool, device: str
    ) -> None:
        super().__init__()
        self.game, self.config, self.averaging, self.step = game, config, averaging, step
        self.seed, self.certify, self.device = seed, certify, device
        T, d, k = game.horizon, game.state_dim, game.action_dim
        scale = config.action_scale or getattr(game, "a_bound", None)
        unit = torch.as_tensor(1.0 if scale is None else scale, dtype=torch.float32).expand(k)
        random = self._generator(0, "normalisation")
        start = rollout(game, Still(k), n=2000, generator=random, rewards=False).x.flatten(0, 1).cpu()
        centre, spread = start.mean(0), start.std(0).clamp_min(1e-6)
        with isolated(seed, "parameters"):
            exploration = config.best_response.exploration_std
            self.policy = GaussianPolicy(T, centre, spread, unit, config.hidden, min_std=exploration)
            self.critic = Critic(T, centre, spread, config.hidden)
            self.average = GaussianPolicy(T, centre, spread, unit, config.hidden, initial_std=config.initial_std)
            self.flow = TimeFlow(T, d, config.flow)
        self.to(device)
        self.memory = Memory(d, k, config.cloning.capacity, device)

    def iterate(self, k: int) -> dict[str, Any]:
        """Iteration k of Algo. 3, in place: π*_k against Ḡ_{k−1}, then π̄_k, then Ḡ_k. Iteration 0 fits Ḡ_0 to the
        first policy, a ~ N(0, std²), which is not part of the average. Returns a row of the history."""
        row: dict[str, Any] = {"iteration": k, "best_response_gap": float("nan")}
        clock = _Clock(row)
        if k > 0:
            row |= self.fit_best_response(k)
            clock.split("best_response")
            row["cloning_loss"] = self.fit_average(k)
            clock.split("cloning")
            if self.certify:
                gap = best_response_gap(self.game, Greedy(self.policy), self.flow, self._generator(k, "gap"))
                row["best_response_gap"] = gap
            clock.split("judge")
        row["flow_loss"] = self.fit_population(k)
        clock.split("population")
        row |= self._judge(k)
        clock.split("judge")
        return row

    def fit_best_response(self, k: int) -> dict[str, float]:
        """π*_k by PPO against Ḡ_{k−1}, from π*_{k−1}; returns its losses."""
        config = self.config.best_response
        updates = config.first_updates if k == 1 else config.updates
        random = self._generator(k, "best response")
        return best_response(self.game, self.flow, self.policy, self.critic, config, random, updates=updates)

    def fit_average(self, k: int) -> float:
        """N_sa triples of π*_k into M_SL, then π̄_k cloned from all of it, from π̄_{k−1}; returns the loss."""
        config = self.config.cloning
        random, greedy = self._generator(k, "memory"), Greedy(self.policy)
        play = rollout(self.game, greedy, self.flow, n=config.agents, generator=random, rewards=False)
        require_finite("cloning: the best response's roll-out", play.x, play.a)
        self.memory.add(play.x, play.a, k, self._generator(k, "memory keys"))
        weights = averaging_weights(k, self.averaging, self.step)
        return clone(self.average, self.memory, weights, config, self._generator(k, "cloning"))

    def fit_population(self, k: int) -> float:
        """Ḡ_k by maximum likelihood on the states of agents who follow π̄_k, from Ḡ_{k−1}; returns the loss."""
        config = self.config.flow
        random = self._generator(k, "population")
        play = rollout(self.game, self.average, n=config.agents, generator=random, rewards=False)
        return fit_flow(self.flow, play.x, config, self._generator(k, "flow"))

    def _judge(self, k: int) -> dict[str, float]:
        names = {"exploitability": "value", "exploitability_error": "error", "policy_value": "policy_value"}
        if not self.certify:
            return dict.fromkeys(names, float("nan"))
        n = self.config.judge_agents
        e = exploitability(self.game, self.average, n=n, seed=self.seed, device=self.device)
        return {name: getattr(e, part) for name, part in names.items()}

    def state(self) -> dict[str, Tensor]:
        """All that later iterations depend on: weights and M_SL. Random numbers derive from seed and iteration."""
        memory = {f"memory.{name}": getattr(self.memory, name) for name in Memory.FIELDS}
        return {f"weights.{name}": value.contiguous() for name, value in self.state_dict().items()} | memory

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` returned."""
        weights = {name.removeprefix("weights."): v for name, v in state.items() if name.startswith("weights.")}
        self.load_state_dict(weights)
        for name in Memory.FIELDS:
            setattr(self.memory, name, state[f"memory.{name}"])

    def _generator(self, k: int, purpose: str) -> torch.Generator:
        return generator(self.seed, k, purpose, device=self.device)


class Still:
    """The policy that never acts."""

    def __init__(self, action_dim: int) -> None:
        self.action_dim = action_dim

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x.new_zeros(len(x), self.action_dim)


class _Clock:
    """Wall time of each step, added up in a row of the history."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        for step in ("best_response", "cloning", "population", "judge"):
            row[f"seconds_{step}"] = 0.0
        self.last = time.perf_counter()

    def split(self, step: str) -> None:
        now = time.perf_counter()
        self.row[f"seconds_{step}"] += now - self.last
        self.last = now
