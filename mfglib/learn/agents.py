"""The population model of Algo. 1 and 2: simulated agents, with a Gaussian kernel for their density."""

import math
from dataclasses import dataclass

from torch import Tensor

from mfglib.checks import require_finite, require_positive
from mfglib.games.base import uses_actions
from mfglib.populations import Particles
from mfglib.protocols import Game, Policy
from mfglib.rollout import mean_action, rollout
from mfglib.seeds import Random


@dataclass(frozen=True)
class AgentsConfig:
    """How many agents are simulated, and how their density is estimated."""

    agents: int = 30_000
    """N, agents simulated for each population"""
    bandwidth: float | None = None
    """of the Gaussian kernel; see `mfglib.populations.Particles`"""

    def __post_init__(self) -> None:
        require_positive(self, "agents", *(["bandwidth"] if self.bandwidth is not None else []))


class SimulatedAgents(Particles):
    """The empirical measure of N agents that follow π̄_k (paper, Algo. 1 and 2)."""

    Config = AgentsConfig

    def __init__(self, game: Game, config: AgentsConfig | None = None) -> None:
        self.game, self.config = game, config or AgentsConfig()

    def fit(self, policy: Policy, k: int, random: Random) -> dict[str, float]:
        """Simulate the agents anew; there is no loss."""
        play = rollout(self.game, policy, n=self.config.agents, generator=random("population"), rewards=False)
        require_finite("population", play.x)
        actions = mean_action(self.game, play.a) if uses_actions(self.game) else None
        super().__init__(play.x, self.config.bandwidth, actions, getattr(self.game, "domain", None))
        return {"flow_loss": math.nan}

    def state(self) -> dict[str, Tensor]:
        return {"x": self.x} | ({} if self.actions is None else {"actions": self.actions})

    def load(self, state: dict[str, Tensor]) -> None:
        domain = getattr(self.game, "domain", None)
        super().__init__(state["x"], self.config.bandwidth, state.get("actions"), domain)

    def learned(self) -> dict[str, Tensor]:
        """Nothing: a replay simulates them again."""
        return {}
