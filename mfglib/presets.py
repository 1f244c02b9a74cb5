"""Sizes of networks and budgets: `smoke` for tests, `lecture` for a class, `paper` for full size."""

import dataclasses
import os
from dataclasses import dataclass, field
from typing import Any

from mfglib.adapters.sb3 import SB3Config
from mfglib.checks import require_positive
from mfglib.games import LinearQuadratic
from mfglib.judge import CELLS
from mfglib.learn.cloning import CloningConfig
from mfglib.learn.flow import FlowConfig
from mfglib.learn.lookahead import LookaheadConfig, can_look_ahead
from mfglib.learn.ppo import PPOConfig


@dataclass(frozen=True)
class Config:
    """Everything that a run of fictitious play needs besides the game, the algorithm and the seed."""

    hidden: tuple[int, ...] = (64, 64)
    """hidden layers of policies and critic; the paper's is (256, 256)"""
    waves: int = 0
    """frequencies beside the state in their input; see `mfglib.learn.networks.Place`"""
    average: str = "gaussian"
    """π̄ of Algo. 2 and 3: "gaussian", the paper's, or "mixture", a mixture density network"""
    best_response: PPOConfig | LookaheadConfig | SB3Config = field(default_factory=PPOConfig)
    """its type decides the learner: PPO for any game, looking ahead for bounded games (`mfglib.learn.lookahead`), or
    Stable-Baselines3"""
    cloning: CloningConfig = field(default_factory=CloningConfig)
    agents: int = 30_000
    """N, agents simulated for each population: Ḡ is fitted to them; in Algo. 1 and 2 they are it. On LQ 4,000 left a
    W1 of 4% of the std, 40,000 of 2%"""
    flow: FlowConfig = field(default_factory=FlowConfig)
    bandwidth: float | None = None
    """of the Gaussian kernel of Algo. 1 and 2; see `mfglib.populations.Particles`"""
    action_scale: float | None = None
    """unit of actions; None takes the game's `a_bound`, or 1 where it has none"""
    initial_std: float = 0.1
    """standard deviation of the first policy, a ~ N(0, std²), in units of action"""
    settle: int | None = None
    """iteration from which the learning rates of π̄ and Ḡ fall like 1/k, as the steps of the average do; None for
    constant ones. What jumps from fit to fit, the best responses chase, and what they lose is never averaged out"""
    judge_every: int = 1
    """iterations from one certificate to the next: 0, judge_every, 2 judge_every, ... are measured"""
    judge_agents: int = 20_000
    """agents simulated to certify the exploitability of an iteration, where that needs any"""
    judge_cells: int | None = None
    """cells along the longest side of the grid that certifies each iteration, where that needs one; None for the
    default of `mfglib.judge`"""

    def __post_init__(self) -> None:
        require_positive(self, "hidden", "agents", "initial_std", "judge_every", "judge_agents")
        if self.settle is not None:
            require_positive(self, "settle")
        if self.average not in ("gaussian", "mixture"):
            raise ValueError(f'Config.average: expected "gaussian" or "mixture", got {self.average!r}')
        if self.action_scale is not None:
            require_positive(self, "action_scale")


PRESETS = {
    "smoke": Config(
        hidden=(16, 16),
        best_response=PPOConfig(agents=64, first_updates=3, updates=2),
        cloning=CloningConfig(agents=100, steps=20, batch=512),
        agents=500,
        flow=FlowConfig(steps=10, first_steps=10, batch=64),
        judge_agents=1000,
    ),
    "lecture": Config(),
    "paper": Config(
        hidden=(256, 256),
        best_response=PPOConfig(agents=2048, first_updates=40, updates=20),
        cloning=CloningConfig(agents=5000, steps=500, batch=4096),
        agents=50_000,
        flow=FlowConfig(bins=16, hidden=(128, 128), steps=300, first_steps=600, batch=1024),
        judge_agents=100_000,
    ),
}


LOOKAHEAD = {
    "smoke": dict(first_steps=20, steps=10, states=256, batch=128, candidates=9, acting=9),
    "lecture": {},
    "paper": dict(first_steps=1500, steps=200, states=16_384, batch=4096, candidates=49, acting=49),
}


SB3 = {
    "smoke": dict(first_steps=400, steps=200, agents=8, gradient_steps=2),
    "lecture": {},
    "paper": dict(first_steps=1_000_000, steps=200_000),
}


def learner_config(name: str, preset: str) -> PPOConfig | LookaheadConfig | SB3Config:
    """The learner of best responses by its name: "ppo", "look-ahead", "sb3-ppo" or "sb3-sac"; ValueError if unknown."""
    known = {
        "ppo": lambda: PRESETS[preset].best_response,
        "look-ahead": lambda: LookaheadConfig(**LOOKAHEAD[preset]),
        "sb3-ppo": lambda: SB3Config("ppo", **SB3[preset]),
        "sb3-sac": lambda: SB3Config("sac", **SB3[preset]),
    }
    if name not in known:
        raise ValueError(f"best_response: expected one of {tuple(known)}, got {name!r}")
    return known[name]()


def restored(stored: dict[str, Any]) -> Config:
    """A configuration from what `dataclasses.asdict` and JSON made of it."""
    own = {"acting": LookaheadConfig, "reach": SB3Config}
    learner = next((kind for name, kind in own.items() if name in stored["best_response"]), PPOConfig)
    parts = dict(best_response=learner, cloning=CloningConfig, flow=FlowConfig)
    made = {name: kind(**_tuples(stored[name])) for name, kind in parts.items()}
    return Config(**_tuples(stored) | made)


def _tuples(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


def resolve_preset(preset: str) -> str:
    """A default: the environment variable MFGLIB_PRESET if set, else `preset`; ValueError if unknown."""
    name = os.environ.get("MFGLIB_PRESET") or preset
    preset_config(name)
    return name


def preset_config(preset: str, game: object = None) -> Config:
    """The sizes of a preset, and what bounded games need beside them; ValueError if unknown."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {tuple(PRESETS)}, got {preset!r}")
    config = PRESETS[preset]
    if not can_look_ahead(game):
        return config
    line = game.state_dim == 1
    # Plain best responses jump; with no density in the reward there is nothing to smooth.
    temperature = 0.0 if isinstance(game, LinearQuadratic) else (0.2 if line else 0.5)
    response = LookaheadConfig(temperature=temperature, **LOOKAHEAD[preset])
    changes = dict(best_response=response, average="mixture", waves=4, judge_cells=CELLS.get(game.state_dim))
    if not line:
        # 4-rooms, iteration 50, with the second look at actions: exploitability 1.8 and 1.9 instead of 2.1 and 2.6. On
        # the beach, where best responses are far from the average, an average that lags swings (0.26 to 0.79 at 30).
        changes |= dict(settle=5)
    if preset == "lecture" and line:
        # The errors of the density add up. Beach bar, 20 iterations: exploitability 0.39, with 10,000 agents,
        # 60 steps and 1000 agents in M_SL 0.7 to 1.4. 12 bins: total variation to the population that it is shown
        # 0.013, with 8 bins 0.026, with 24 0.019. With the rates of 2-D the average does not settle (0.3 to 1.8).
        flow = dataclasses.replace(config.flow, steps=120, batch=512, bins=12)
        response = dataclasses.replace(response, first_steps=300, steps=50, learning_rate=4e-3)
        cloning = dataclasses.replace(config.cloning, agents=3000)
        changes |= dict(agents=20_000, flow=flow, best_response=response, cloning=cloning)
        changes |= dict(judge_every=1 if isinstance(game, LinearQuadratic) else 5)  # K is 10 there
    elif preset == "lecture":
        # The errors of the clone move the crowd. A rate of 3e-3 is too slow for it: 1500 steps from nothing,
        # total variation to the population of what it clones 0.10 instead of 0.06.
        flow = dataclasses.replace(config.flow, steps=60, batch=512)
        cloning = dataclasses.replace(config.cloning, agents=2000, steps=320, batch=1024, learning_rate=1e-2)
        # Twice the steps, states and batch: exploitability 6.9% of the first instead of 6.4%, in 293 s instead of 199
        # (two seeds, benchmarks/training.py). The average forgives rough best responses.
        response = dataclasses.replace(response, first_steps=250, steps=20, states=2048, batch=512)
        changes |= dict(agents=20_000, flow=flow, best_response=response, cloning=cloning, judge_every=5)
    return dataclasses.replace(config, **changes)
