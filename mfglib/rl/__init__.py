"""Best responses by deep reinforcement learning."""

from mfglib.rl.lookahead import LookaheadConfig, LookaheadPolicy, PostDecisionValues, can_look_ahead, fit_values
from mfglib.rl.ppo import Critic, PPOConfig, best_response

__all__ = [
    "Critic",
    "LookaheadConfig",
    "LookaheadPolicy",
    "PPOConfig",
    "PostDecisionValues",
    "best_response",
    "can_look_ahead",
    "fit_values",
]
