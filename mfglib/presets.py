"""Sizes of networks and budgets: `smoke` for tests, `lecture` for a class, `paper` for full size."""

import os
from dataclasses import dataclass, field

from mfglib.checks import require_positive
from mfglib.cloning import CloningConfig
from mfglib.flow import FlowConfig
from mfglib.rl import PPOConfig


@dataclass(frozen=True)
class Config:
    """Everything that a run of fictitious play needs besides the game, the algorithm and the seed."""

    hidden: tuple[int, ...] = (64, 64)
    """hidden layers of policies and critic; the paper's is (256, 256)"""
    best_response: PPOConfig = field(default_factory=PPOConfig)
    cloning: CloningConfig = field(default_factory=CloningConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    action_scale: float | None = None
    """unit of actions; None takes the game's `a_bound`, or 1 where it has none"""
    initial_std: float = 0.1
    """standard deviation of the first policy, a ~ N(0, std²), in units of action"""
    judge_agents: int = 20_000
    """agents simulated to certify the exploitability of an iteration"""

    def __post_init__(self) -> None:
        require_positive(self, "hidden", "initial_std", "judge_agents")
        if self.action_scale is not None:
            require_positive(self, "action_scale")


PRESETS = {
    "smoke": Config(
        hidden=(16, 16),
        best_response=PPOConfig(agents=64, first_updates=3, updates=2),
        cloning=CloningConfig(agents=100, steps=20, batch=512),
        flow=FlowConfig(agents=500, steps=10, batch=64),
        judge_agents=1000,
    ),
    "lecture": Config(),
    "paper": Config(
        hidden=(256, 256),
        best_response=PPOConfig(agents=2048, first_updates=40, updates=20),
        cloning=CloningConfig(agents=5000, steps=500, batch=4096),
        flow=FlowConfig(bins=16, hidden=(128, 128), agents=50_000, steps=300, batch=1024),
        judge_agents=100_000,
    ),
}


def resolve_preset(preset: str) -> str:
    """A default: the environment variable MFGLIB_PRESET if set, else `preset`; ValueError if unknown."""
    name = os.environ.get("MFGLIB_PRESET") or preset
    preset_config(name)
    return name


def preset_config(preset: str) -> Config:
    """The sizes of a preset; ValueError if unknown."""
    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {tuple(PRESETS)}, got {preset!r}")
    return PRESETS[preset]
