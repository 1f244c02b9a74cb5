"""Best responses by deep reinforcement learning."""

from mfglib.rl.lookahead import LookaheadConfig, LookaheadPolicy, PostDecisionValues, can_look_ahead, fit_values
from mfglib.rl.ppo import Critic, PPOConfig, best_response
from mfglib.rl.sb3 import SB3Config, SB3Policy, fit_sb3

__all__ = [
    "Critic",
    "LookaheadConfig",
    "LookaheadPolicy",
    "PPOConfig",
    "PostDecisionValues",
    "SB3Config",
    "SB3Policy",
    "best_response",
    "can_look_ahead",
    "fit_sb3",
    "fit_values",
]
