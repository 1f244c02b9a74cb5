"""The average policy of Algo. 1: each agent draws a past best response, once per episode."""

import copy
import math

from torch import Tensor, nn

from mfglib.learn.cloning import ClonedAverage, CloningConfig
from mfglib.learn.networks import Networks
from mfglib.policies import EpisodeMixture
from mfglib.protocols import BestResponse, Game, Policy, Population
from mfglib.schedules import Averaging
from mfglib.seeds import Random


class EpisodeAverage:
    """π̄_k as the mixture of all best responses so far, drawn once per episode (paper, Algo. 1).

    A best response that is too slow to be played many times is first cloned, from its own samples, into a network.

    Args:
        best_response: the learner whose best responses these are, which makes stored ones again; None for that of the
            first update.
    """

    Config = CloningConfig

    def __init__(
        self,
        game: Game,
        networks: Networks | None = None,
        config: CloningConfig | None = None,
        averaging: Averaging | None = None,
        best_response: BestResponse | None = None,
    ) -> None:
        self.cloned = ClonedAverage(game, networks, config, averaging)
        self.config, self.averaging = self.cloned.config, self.cloned.averaging
        self.response, self.past = best_response, nn.ModuleList()

    @property
    def policy(self) -> Policy:
        n = len(self.past)
        return EpisodeMixture(self.past, self.averaging.weights(n)) if n else self.cloned.policy

    def update(self, response: BestResponse, population: Population, k: int, random: Random) -> dict[str, float]:
        """Append π*_k to the past best responses; returns the loss of cloning it, NaN if it need not be cloned."""
        self.response, kept, losses = response, response.kept(), {"cloning_loss": math.nan}
        if kept is None:
            self.cloned.memory.clear()
            losses = self.cloned.update(response, population, k, random)
        self._append(kept)
        return losses

    def _append(self, kept: nn.Module | None) -> nn.Module:
        new = copy.deepcopy(self.cloned.net) if kept is None else kept
        self.past.append(new.requires_grad_(False).eval())
        return new

    def state(self) -> dict[str, Tensor]:
        return self._named(range(len(self.past)))

    def learned(self) -> dict[str, Tensor]:
        """The newest best response; those before it are in what this returned after earlier iterations."""
        return self._named(range(len(self.past))[-1:])

    def _named(self, members: range) -> dict[str, Tensor]:
        named = {f"cloned.{name}": value for name, value in self.cloned.learned().items()}
        weights = {f"past.{i}.{name}": value for i in members for name, value in self.past[i].state_dict().items()}
        return named | {name: value.contiguous() for name, value in weights.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Go on from a `state`, or from a `learned` after those of all earlier iterations."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            part, _, rest = name.removeprefix("past.").partition(".")
            parts.setdefault(part, {})[rest] = value
        self.cloned.load(parts.pop("cloned"))
        for i in sorted(map(int, parts)):
            member = self.past[i] if i < len(self.past) else self._append(self.response.kept())
            member.load_state_dict(parts[str(i)])
