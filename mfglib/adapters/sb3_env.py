"""n agents against a fixed population as one vectorised environment of Stable-Baselines3: no loop over agents."""

from typing import Any

import numpy as np

from mfglib.adapters.gym import Play
from mfglib.checks import integer
from mfglib.protocols import Game, Population

try:
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("this needs Stable-Baselines3, of the extra `rl`: pip install 'deda-fp[rl]'") from error

__all__ = ["PPO", "SAC", "Agents"]


class Agents(VecEnv):
    """`BestResponseVectorEnv` for SB3, which does not take the vectorised environments of Gymnasium.

    Args: see `BestResponseEnv`; seed: of initial states and noise.
    """

    def __init__(
        self, game: Game, population: Population | None, n: int, action_scale: Any = None, seed: int = 0
    ) -> None:
        self.play = Play(game, population, action_scale)
        super().__init__(integer("n", n, at_least=1), *self.play.spaces())
        self.action_space.seed(seed)  # SAC's first actions
        self.seeds = np.random.default_rng(seed)

    def reset(self) -> np.ndarray:
        return self.play.start(self.num_envs, self.seeds)

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        reward, over = self.play.step(self.actions), self.play.over
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        observation = self.play.observation()
        if over:
            infos = [{"terminal_observation": last, "TimeLimit.truncated": False} for last in observation]
            observation = self.reset()
        return observation, reward.astype(np.float32), np.full(self.num_envs, over), infos

    def close(self) -> None: ...

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None: ...

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **options: Any) -> list[Any]:
        return [None] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs
