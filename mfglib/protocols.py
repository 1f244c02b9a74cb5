"""What a game, a policy, a population and a learner are: any object with these members will do."""

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from mfglib.checks import require_time
from mfglib.seeds import Random


class Population(Protocol):
    """What a game may ask of the population μ at time t, an integer 0..T.

    A game with `uses_actions = True` may also ask for `mean_action(t)`: (k,), the mean of the crowd's actions as they
    act, within the bounds; 0 at t = T (an extended mean field game).
    """

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor: ...  # (n, d)
    def log_prob(self, t: int, x: Tensor) -> Tensor: ...  # (n, d) -> (n,)
    def mean(self, t: int) -> Tensor: ...  # (d,)


class Policy(Protocol):
    """π_t(a|x), for t an integer 0..T, x: (n, d), a: (n, k)."""

    def sample(self, t: int, x: Tensor, generator: torch.Generator | None = None) -> Tensor: ...  # (n, k)
    def log_prob(self, t: int, x: Tensor, a: Tensor) -> Tensor: ...  # (n,)
    def mean(self, t: int, x: Tensor) -> Tensor: ...  # (n, k)


@runtime_checkable
class Game(Protocol):
    """A mean field game in discrete time. Any object with these members can be given to `mfglib.solve`.

    States x: (n, d), actions a: (n, k), time t an integer 0..horizon. The last reward, at t = horizon,
    is asked with a = 0. `population` answers `sample(t, n)`, `log_prob(t, x)` and `mean(t)`.

    Noise is each agent's own: a game with a shock that is common to all has a random population, and is not solved here
    (`check_game` refuses it). States are continuous: a population with a density smears a coordinate with few values,
    such as a type in {−1, 1}, which simulated agents (`population="agents"`) keep, but not their kernel density.
    A game may have bounds too: `domain` (`mfglib.games.Domain`) and `a_bound`, a number or (k,). One whose rewards or
    moves depend on what the others do, and not only on where they are, says `uses_actions = True`.
    """

    horizon: int
    state_dim: int
    action_dim: int

    def initial(self, n: int, generator: torch.Generator) -> Tensor: ...  # (n, d), drawn from μ_0
    def step(self, t: int, x: Tensor, a: Tensor, population: Population, generator: torch.Generator) -> Tensor: ...
    def reward(self, t: int, x: Tensor, a: Tensor, population: Population) -> Tensor: ...  # (n,)


# --- learners: what fictitious play is made of


class Learner(Protocol):
    """What a run stores of each of its three learners. The mixins below write these methods.

    A learner may also have `learned() -> dict[str, Tensor]`: what the last fit changed of its state, and what its
    policy or population needs, without memories that only later fits read. A run keeps that of each iteration, so that
    every iteration can be measured later; `load` takes it too. Without the method, `state` is kept.
    """

    def state(self) -> dict[str, Tensor]: ...  # all that later iterations depend on, by names of one's own
    def load(self, state: dict[str, Tensor]) -> None: ...


class BestResponse(Learner, Protocol):
    """π*_k against a fixed population, from π*_{k−1}: one object for the whole run (paper, Algo. 1, 2 and 3)."""

    policy: Policy  # as it acts, against the population that it was trained on
    faced: Population | None  # that population: `fit` sets it, and so does a replay, after `load`

    def fit(self, population: Population, k: int, random: Random) -> dict[str, float]: ...  # its losses
    def kept(self) -> nn.Module | None: ...  # a copy of `policy` for Algo. 1; None if it must be cloned first


class Average(Learner, Protocol):
    """π̄_k, from π̄_{k−1} and the best response π*_k to `population` (paper, Algo. 2 and 3)."""

    policy: Policy  # before the first update: the policy that iteration 1 responds to

    def update(
        self, response: BestResponse, population: Population, k: int, random: Random
    ) -> dict[str, float]: ...  # its losses


class PopulationModel(Learner, Population, Protocol):
    """The population of π̄_k, from that of π̄_{k−1} (paper, Algo. 3: Ḡ_k)."""

    def fit(self, policy: Policy, k: int, random: Random) -> dict[str, float]: ...  # its losses


class ModuleState:
    """A mixin: `state`, `load` and `learned` of a learner that is an `nn.Module`, by its parameters and buffers."""

    def state(self) -> dict[str, Tensor]:
        return {name: value.contiguous() for name, value in self.state_dict().items()}

    def load(self, state: dict[str, Tensor]) -> None:
        self.load_state_dict(state)

    def __setattr__(self, name: str, value: Any) -> None:
        """The population that a best response was trained against is no part of it, although it may be a module."""
        if name == "faced":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


class TensorState:
    """A mixin: `state`, `load` and `learned` of any other learner, by its attributes that are tensors."""

    def state(self) -> dict[str, Tensor]:
        return {name: value.contiguous() for name, value in vars(self).items() if isinstance(value, Tensor)}

    def load(self, state: dict[str, Tensor]) -> None:
        vars(self).update(state)


class KnowsActions:
    """A mixin: `mean_action`, by `actions`: (T, k), the mean of the crowd's actions at each time; None, or no such
    attribute, where they are not known."""

    def mean_action(self, t: int) -> Tensor:
        """(k,), 0 at t = T, where nobody acts; ValueError for a population that does not know it."""
        actions = getattr(self, "actions", None)
        if actions is None:
            raise ValueError(
                f"population: expected one that knows the mean action of its crowd, got a {type(self).__name__} "
                f"without `actions`; a game that asks for it says so by `uses_actions = True`"
            )
        return actions[t] if require_time(t, len(actions)) < len(actions) else torch.zeros_like(actions[0])


def known_actions(population: Population, horizon: int) -> Tensor | None:
    """The mean actions (T, k) of a population; None if it does not know them."""
    unknown = isinstance(population, KnowsActions) and getattr(population, "actions", None) is None
    if unknown or not hasattr(population, "mean_action"):
        return None
    return torch.stack([population.mean_action(t) for t in range(horizon)])


@dataclass(frozen=True)
class Exploitability:
    """E(π) = max_π' J_{μ^π}(π') − J_{μ^π}(π) and its parts; `value` = best_response_value − policy_value >= 0.

    `error` of `value`: 0 when exact, one standard error where agents are simulated, on grids that of the drawn actions
    with an estimate of the grid's own, NaN if not asked for. `method` says how it was obtained. `mean` is the mean path
    (T+1, d) of μ^π that it was judged against.
    """

    value: float
    best_response_value: float
    policy_value: float
    error: float
    method: str
    mean: np.ndarray

    def __str__(self) -> str:
        """In a line, as in "0.37 ± 0.01 (best response −4.1, policy −4.5; grid)"."""
        error = "" if math.isnan(self.error) else f" ± {self.error:.2g}"
        parts = f"best response {self.best_response_value:.4g}, policy {self.policy_value:.4g}"
        return f"{self.value:.3g}{error} ({parts}; {self.method})"
