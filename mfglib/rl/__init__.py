"""Best responses by deep reinforcement learning."""

from mfglib.rl.ppo import Critic, PPOConfig, best_response

__all__ = ["Critic", "PPOConfig", "best_response"]
