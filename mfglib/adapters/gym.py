"""A Gymnasium view of "best respond to this population in this game", for anybody's reinforcement learning library.

An observation is the state and t/T; an action in [−1, 1]^k is one of the game in units of `action_scale`; an episode
has T steps, and the reward of the last one contains that of the final state. Needs the extra `rl`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.checks import array, integer, require_time, vector
from mfglib.protocols import Game, Population
from mfglib.seeds import generator
from mfglib.trial import check_game

try:
    import gymnasium
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
except ImportError as error:
    raise ImportError("mfglib.adapters.gym needs Gymnasium, of the extra `rl`: pip install 'deda-fp[rl]'") from error


class Agents:
    """n agents of a game against a fixed population, all at the same time t."""

    def __init__(self, game: Game, population: Population | None, action_scale: Any) -> None:
        check_game(game)
        bound = getattr(game, "a_bound", None)
        scale = (1.0 if bound is None else bound) if action_scale is None else action_scale
        self.scale = torch.from_numpy(vector("action_scale", scale, game.action_dim)).float()
        if not (self.scale > 0).all():
            raise ValueError(f"action_scale: expected > 0, got {action_scale!r}")
        self.game, self.population = game, population
        self.random: torch.Generator | None = None

    def spaces(self) -> tuple[gymnasium.spaces.Box, gymnasium.spaces.Box]:
        """Of one agent's observations (d + 1,) and actions (k,)."""
        d, domain = self.game.state_dim, getattr(self.game, "domain", None)
        low, high = (np.full(d, -np.inf), np.full(d, np.inf)) if domain is None else (domain.lower, domain.upper)
        observations = gymnasium.spaces.Box(
            np.append(low, 0.0).astype(np.float32), np.append(high, 1.0).astype(np.float32), dtype=np.float32
        )
        return observations, gymnasium.spaces.Box(-1.0, 1.0, (self.game.action_dim,), np.float32)

    def start(self, n: int, random: np.random.Generator, seed: int | None = None) -> np.ndarray:
        """An episode of n agents. The first one, and one with a seed, take their generator from `random`."""
        if self.random is None or seed is not None:
            self.random = generator(int(random.integers(1 << 31)), "environment")
        self.t, self.x = 0, self.game.initial(n, self.random)
        return self.observation()

    def observation(self) -> np.ndarray:
        """(n, d + 1)."""
        return observed(self.t, self.x, self.game.horizon)

    @torch.no_grad()
    def step(self, action: np.ndarray) -> np.ndarray:
        """One step of all agents: actions (n, k) -> rewards (n,)."""
        if self.random is None:
            raise ValueError("step: expected an episode that was started, got none; call `reset` first")
        a = array("action", action)
        if a.size != len(self.x) * len(self.scale):
            raise ValueError(f"action: expected shape {(len(self.x), len(self.scale))}, got {a.shape}")
        a = torch.from_numpy(a).float().view(len(self.x), -1) * self.scale
        reward = self.game.reward(self.t, self.x, a, self.population)
        self.x = self.game.step(self.t, self.x, a, self.population, self.random)
        self.t += 1
        if self.over:
            reward = reward + self.game.reward(self.t, self.x, torch.zeros_like(a), self.population)
        return reward.double().numpy()

    @property
    def over(self) -> bool:
        return self.t == self.game.horizon


class BestResponseEnv(gymnasium.Env):
    """One agent of `game` against `population`; its best policy is the best response.

    Args:
        action_scale: number or (k,), the game's action at action 1; None for `a_bound`, or 1 where there is none.

    Raises TypeError or ValueError for what is no game, and for a scale that is not > 0.
    """

    metadata = {"render_modes": []}

    def __init__(self, game: Game, population: Population, action_scale: Any = None) -> None:
        self.agents = Agents(game, population, action_scale)
        self.observation_space, self.action_space = self.agents.spaces()

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.agents.start(1, self.np_random, seed)[0], {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        reward = float(self.agents.step(action)[0])
        return self.agents.observation()[0], reward, self.agents.over, False, {}


class BestResponseVectorEnv(VectorEnv):
    """n such agents, stepped together: all tensors, no loop over agents. Episodes end for all at once, and the next
    observation is then the first of the next episode, the last one in `info["final_obs"]`."""

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(self, game: Game, population: Population, n: int, action_scale: Any = None) -> None:
        self.agents, self.num_envs = Agents(game, population, action_scale), integer("n", n, at_least=1)
        self.single_observation_space, self.single_action_space = self.agents.spaces()
        self.observation_space = batch_space(self.single_observation_space, n)
        self.action_space = batch_space(self.single_action_space, n)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.agents.start(self.num_envs, self.np_random, seed), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        reward, info = self.agents.step(actions), {}
        ended = np.full(self.num_envs, self.agents.over)
        if self.agents.over:
            info = {"final_obs": self.agents.observation(), "_final_obs": ended}
            self.agents.start(self.num_envs, self.np_random)
        return self.agents.observation(), reward, ended, np.zeros(self.num_envs, bool), info


class PredictPolicy:
    """A model that was trained on one of these environments, as a policy of its game: actions in units of `scale`: (k,)
    come from `model.predict(observations, deterministic=...)`, as Stable-Baselines3 has it, and are 0 at t = T."""

    def __init__(self, model: Any, env: "BestResponseEnv | BestResponseVectorEnv") -> None:
        self.model, self.scale, self.horizon = model, env.agents.scale, env.agents.game.horizon

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(n, d) -> (n, k). The model draws from its own random numbers: `generator` is not used."""
        return self._act(t, x, False)

    def mean(self, t: int, x: Tensor) -> Tensor:
        return self._act(t, x, True)

    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        raise NotImplementedError("a model behind `predict` tells actions, not their density")

    def _act(self, t: int, x: Tensor, deterministic: bool) -> Tensor:
        if require_time(t, self.horizon) == self.horizon:
            return x.new_zeros(len(x), len(self.scale))
        action, _ = self.model.predict(observed(t, x, self.horizon), deterministic=deterministic)
        return torch.as_tensor(action).to(x) * self.scale.to(x)


def observed(t: int, x: Tensor, horizon: int) -> np.ndarray:
    """What agents in states x: (n, d) observe at t, the state and t/T: (n, d + 1)."""
    return torch.cat([x.float(), x.new_full((len(x), 1), t / horizon).float()], 1).cpu().numpy()
