"""Time to a best response within 1% of optimal: our PPO, Stable-Baselines3 PPO and SAC, on the same game and network.

The game is the unbounded LQ game against its equilibrium population; optimal is exact (Riccati), and the gap is exact
for the policy's mean action, judged every few thousand steps, off the clock. Default: 3 seeds, SAC cut off at 60 s
(about 6 minutes). `--full`: 5 seeds, SAC cut off at 180 s. Needs the extra `rl` (the lock file has it).
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from _table import report, row
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback

from mfglib.adapters.gym import PredictPolicy
from mfglib.adapters.sb3 import AgentsEnv
from mfglib.exact import lq_equilibrium
from mfglib.games import LinearQuadratic
from mfglib.judge import best_response_gap
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.ppo import Critic, PPOConfig, fit_ppo
from mfglib.policies import MeanPolicy
from mfglib.populations import MeanPath
from mfglib.rollout import rollout
from mfglib.seeds import generator, isolated

HIDDEN, GOAL = (64, 64), 0.01
REACH = 2.0  # of SB3's actions, in units of action: SAC needs bounds
# The lecture preset's PPO, with half the agents and twice the rate: quickest to 1% for both PPOs.
FAST = PPOConfig(agents=256, learning_rate=2e-3)
PLANS = (6, 8, 10, 12, 14, 16, 20, 24, 28, 36, 48, 64)  # numbers of updates


class Until(BaseCallback):
    """Stop at the goal or the time limit; judging is off the clock."""

    def __init__(self, judge: Callable[[], float], every: int, limit: float) -> None:
        super().__init__()
        self.judge, self.every, self.limit = judge, every, limit
        self.off, self.gap, self.seconds = 0.0, np.inf, np.inf

    def _on_training_start(self) -> None:
        self.start = time.perf_counter()

    def _on_step(self) -> bool:
        if self.n_calls % self.every:
            return True
        now = time.perf_counter()
        self.gap = self.judge()
        elapsed = now - self.start - self.off
        self.off += time.perf_counter() - now
        if self.gap <= GOAL:
            self.seconds = elapsed
        return self.gap > GOAL and elapsed < self.limit


def ours(game, population, value: float, seed: int, limit: float) -> tuple[float, float]:
    """Seconds of the shortest training that reaches the goal (inf if none does) and its gap.

    Its learning rate falls over a planned number of updates, so each plan is a training of its own, from nothing.
    """
    config = FAST
    still = rollout(game, Zero(), population, n=2000, generator=generator(seed, "start")).x.flatten(0, 1)
    for updates in PLANS:
        with isolated(seed, "ours"):
            sizes = (game.horizon, still.mean(0), still.std(0))
            policy = GaussianPolicy(*sizes, torch.ones(1), HIDDEN, min_std=config.exploration_std)
            critic = Critic(*sizes, HIDDEN)
        start = time.perf_counter()
        fit_ppo(game, population, policy, critic, config, generator(seed, "play"), updates=updates)
        seconds = time.perf_counter() - start
        gap = best_response_gap(game, MeanPolicy(policy), population, generator(0, "judge")) / value
        if gap <= GOAL or seconds > limit:
            break
    return (seconds if gap <= GOAL else np.inf), gap


class Zero:
    def sample(self, t, x, generator=None):
        return torch.zeros(len(x), 1)


def sb3(kind: str, game, population, value: float, seed: int, limit: float) -> tuple[float, float]:
    """The same for Stable-Baselines3. PPO: the agents, epochs, batches and rates of ours; SAC: 64 agents and a gradient
    step for every two transitions."""
    n = FAST.agents if kind == "ppo" else 64
    env = AgentsEnv(game, population, n, REACH, seed)
    common = {"policy_kwargs": {"net_arch": list(HIDDEN)}, "gamma": 1.0, "seed": seed, "device": "cpu"}
    if kind == "ppo":
        rates = {"learning_rate": FAST.learning_rate, "gae_lambda": FAST.gae_lambda}
        batches = {"n_steps": game.horizon, "batch_size": n * game.horizon // FAST.minibatches, "n_epochs": FAST.epochs}
        model = PPO("MlpPolicy", env, **rates, **batches, **common)
    else:
        budget = {"learning_starts": 2 * n * game.horizon, "batch_size": 256, "gradient_steps": n // 2}
        model = SAC("MlpPolicy", env, learning_rate=3e-4, **budget, **common)

    def judge() -> float:
        return best_response_gap(game, MeanPolicy(PredictPolicy(model, env)), population, generator(0, "judge")) / value

    until = Until(judge, every=game.horizon * (4 if kind == "ppo" else 1), limit=limit)
    model.learn(10**9, callback=until)
    return until.seconds, until.gap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="5 seeds, and three times as long for SAC")
    parser.add_argument("--json", help="write the table's rows to this file")
    arguments = parser.parse_args()
    seeds, limit = (5, 180.0) if arguments.full else (3, 60.0)
    torch.set_num_threads(2)
    game = LinearQuadratic()
    truth = lq_equilibrium(game)
    population, value = MeanPath(truth.mean.float()), abs(truth.value)
    methods = {
        "PPO, ours": lambda seed: ours(game, population, value, seed, limit),
        "PPO, Stable-Baselines3": lambda seed: sb3("ppo", game, population, value, seed, limit),
        "SAC, Stable-Baselines3": lambda seed: sb3("sac", game, population, value, seed, limit),
    }
    times = {name: [] for name in methods}
    gaps = {name: [] for name in methods}
    for seed in range(seeds):  # methods in turn, so that a slow minute of the machine hits all
        for name, run in methods.items():
            seconds, gap = run(seed)
            times[name].append(seconds)
            gaps[name].append(100 * gap)
            print(f"  seed {seed}, {name}: {seconds:.2f} s to 1%, last gap {100 * gap:.2f}%", flush=True)
    table = []
    for name in methods:
        table.append(
            row(f"{name}: seconds to a 1% gap, median of {seeds} seeds", min(np.median(times[name]), limit), "s")
        )
        table.append(row(f"{name}: seeds that reached it within {limit:.0f} s", np.isfinite(times[name]).sum()))
        table.append(row(f"{name}: last gap, median", np.median(gaps[name]), "%"))
    mine, theirs = (np.minimum(times[name], limit) for name in list(methods)[:2])
    table.append(
        row("speed-up over Stable-Baselines3 PPO, median of ratios by seed", np.median(theirs / mine), "x", ">= 5")
    )
    report(table, arguments.json)


if __name__ == "__main__":
    main()
