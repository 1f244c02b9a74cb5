"""Best responses by Stable-Baselines3's PPO and SAC, which the paper used; needs the extra `rl`.

Both see the game as `mfglib.adapters.gym` shows it. A fit starts from the weights of the last best response, with fresh
optimisers
and an empty replay buffer: a checkpoint of fictitious play is weights and memory, nothing else.
"""

import contextlib
import copy
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mfglib.adapters.gym import Agents, PredictPolicy
from mfglib.checks import integer, require_finite, require_positive
from mfglib.learn.networks import Networks
from mfglib.policies import MeanPolicy
from mfglib.protocols import Game, ModuleState, Population
from mfglib.schedules import budget
from mfglib.seeds import Random

try:
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("this needs Stable-Baselines3, of the extra `rl`: pip install 'deda-fp[rl]'") from error


@dataclass(frozen=True)
class SB3Config:
    """Which algorithm, and how much of it."""

    algorithm: str = "sac"
    """"sac" or "ppo\""""
    first_steps: int = 64_000
    """steps of single agents for the first best response; the next ones have 2/(k + 1) as many"""
    steps: int = 16_000
    """for each later one: at least so many"""
    agents: int = 64
    """side by side, in one environment"""
    learning_rate: float = 1e-3
    batch: int = 256
    """of SAC; PPO's is a quarter of a roll-out of one episode"""
    gradient_steps: int = 8
    """of SAC, after each step of all agents"""
    action_limit: float = 3.0
    """largest action in units of action, where the game has no bound: SAC needs one"""

    def __post_init__(self) -> None:
        if self.algorithm not in ("sac", "ppo"):
            raise ValueError(f'SB3Config.algorithm: expected "sac" or "ppo", got {self.algorithm!r}')
        require_positive(self, *(name for name in self.__dataclass_fields__ if name != "algorithm"))


class SB3Policy(PredictPolicy, nn.Module):
    """A network of Stable-Baselines3 as a policy of `game`.

    Args:
        unit: (k,) of actions. hidden: layers of actor and critic.
    """

    def __init__(self, game: Game, unit: Tensor, hidden: tuple[int, ...], config: SB3Config) -> None:
        nn.Module.__init__(self)
        bounded = getattr(game, "a_bound", None) is not None
        self.register_buffer("scale", (unit if bounded else config.action_limit * unit).clone())
        self.horizon, self.hidden, self.config = game.horizon, tuple(hidden), config
        self.model = self.learner(game, None, 4, 0).policy

    def learner(self, game: Game, population: Population | None, agents: int, seed: int, device: str = "cpu") -> Any:
        """A fresh SB3 model in an environment of so many agents; draws its weights from torch's global generator."""
        env, config = AgentsEnv(game, population, agents, self.scale, seed), self.config
        common = dict(learning_rate=config.learning_rate, gamma=1.0, device=device)
        layers = dict(net_arch=list(self.hidden))
        if config.algorithm == "sac":
            options = dict(learning_starts=agents * game.horizon, batch_size=config.batch)
            options |= dict(gradient_steps=config.gradient_steps, buffer_size=config.first_steps)
            return SAC("MlpPolicy", env, policy_kwargs=layers, **options, **common)
        layers |= dict(log_std_init=math.log(0.5 / config.action_limit))
        batch = agents * game.horizon // (1 if agents % 4 else 4)
        options = dict(n_steps=game.horizon, batch_size=batch, n_epochs=4, gae_lambda=0.9)
        return PPO("MlpPolicy", env, policy_kwargs=layers, **options, **common)


def fit_sb3(
    game: Game, population: Population, policy: SB3Policy, config: SB3Config, seed: int, *, steps: int
) -> dict[str, float]:
    """The best response to the fixed `population`, in place, from the last one; returns its last losses (NaN if so few
    steps that nothing was learned). Raises DivergenceError if a weight is not finite."""
    with _global_generators(seed):
        learner = policy.learner(game, population, config.agents, seed, str(policy.scale.device))
        learner.policy.load_state_dict(policy.model.state_dict())
        learner.learn(steps, log_interval=10**9)  # never printed, so the last losses stay in the logger
        policy.model.load_state_dict(learner.policy.state_dict())
    require_finite("best response", policy)
    logged = {name.removeprefix("train/"): float(value) for name, value in learner.logger.name_to_value.items()}
    names = {"policy_loss": ("actor_loss", "policy_gradient_loss"), "critic_loss": ("critic_loss", "value_loss")}
    return {name: next((logged[n] for n in known if n in logged), math.nan) for name, known in names.items()}


@contextlib.contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """SB3 draws from the global generators of Python, numpy and torch: seed them, and put them back as they were."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


class AgentsEnv(VecEnv):
    """n agents against a fixed population as one vectorised environment of SB3, which does not take those of Gymnasium
    (`BestResponseVectorEnv`): no loop over agents.

    Args: see `BestResponseEnv`; seed: of initial states and noise.
    """

    def __init__(
        self, game: Game, population: Population | None, n: int, action_scale: Any = None, seed: int = 0
    ) -> None:
        self.agents = Agents(game, population, action_scale)
        super().__init__(integer("n", n, at_least=1), *self.agents.spaces())
        self.action_space.seed(seed)  # SAC's first actions
        self.seeds = np.random.default_rng(seed)

    def reset(self) -> np.ndarray:
        return self.agents.start(self.num_envs, self.seeds)

    def step_async(self, actions: np.ndarray) -> None:
        self.actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict]]:
        reward, over = self.agents.step(self.actions), self.agents.over
        infos: list[dict] = [{} for _ in range(self.num_envs)]
        observation = self.agents.observation()
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


class SB3(ModuleState, nn.Module):
    """Best responses by Stable-Baselines3, trained on from one iteration to the next; they act by their mean."""

    Config = SB3Config

    def __init__(self, game: Game, networks: Networks | None = None, config: SB3Config | None = None) -> None:
        super().__init__()
        self.game, self.config, self.faced = game, config or SB3Config(), None
        net = networks or Networks(game)
        self.actor = SB3Policy(game, net.unit, net.hidden, self.config)
        self.to(net.device)

    @property
    def policy(self) -> MeanPolicy:
        return MeanPolicy(self.actor)

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]:
        """Paper, Algo. 3: π*_k against Ḡ_{k−1}, from π*_{k−1}; returns the last losses."""
        self.faced, steps = population, budget(k, self.config.first_steps, self.config.steps)
        seed = random.integer("best response")
        return fit_sb3(self.game, population, self.actor, self.config, seed, steps=steps)

    def kept(self) -> nn.Module:
        return copy.deepcopy(self.policy)
