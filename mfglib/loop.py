"""The loop of fictitious play: what Algo. 1, Algo. 2 and DEDA-FP carry from one iteration to the next."""

import copy
import dataclasses
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mfglib.adapters.sb3 import SB3Config, SB3Policy, fit_sb3
from mfglib.checks import require_finite
from mfglib.judge import best_response_gap, exploitability
from mfglib.learn.cloning import Memory, clone
from mfglib.learn.densities import GaussianPolicy, MixturePolicy
from mfglib.learn.flow import TimeFlow, fit_flow
from mfglib.learn.lookahead import LookaheadConfig, LookaheadPolicy, PostDecisionValues, can_look_ahead, fit_values
from mfglib.learn.networks import Place
from mfglib.learn.ppo import Critic, best_response
from mfglib.policies import Greedy, Still, UniformMixture
from mfglib.populations import Particles
from mfglib.presets import Config
from mfglib.protocols import Game, Policy, Population
from mfglib.rollout import rollout
from mfglib.schedules import averaging_weights
from mfglib.seeds import derive, generator, isolated


class FictitiousPlay(nn.Module):
    """The networks and the memory of the loop, and one iteration of it; `state` is what a checkpoint holds."""

    def __init__(
        self,
        game: Game,
        algorithm: str,
        config: Config,
        averaging: str,
        step: float,
        seed: int,
        certify: bool,
        device: str,
    ) -> None:
        super().__init__()
        self.game, self.algorithm, self.config, self.averaging, self.step = game, algorithm, config, averaging, step
        self.seed, self.certify, self.device = seed, certify, device
        T, d, k = game.horizon, game.state_dim, game.action_dim
        bound = getattr(game, "a_bound", None)
        scale = config.action_scale or (1.0 if bound is None else bound)
        unit = torch.as_tensor(scale, dtype=torch.float32).expand(k)
        centre, spread = self._typical_states()
        response, widths = config.best_response, config.hidden
        self.looks_ahead = isinstance(response, LookaheadConfig)
        if self.looks_ahead and not can_look_ahead(game):
            raise ValueError(
                "config.best_response: expected a PPOConfig for this game, got a LookaheadConfig, which asks for "
                "bounded states, at most two bounded actions and `BoundedGame.step`"
            )
        options = dict(waves=config.waves, edges=self._edges())
        with isolated(seed, "parameters"):
            if self.looks_ahead:
                self.values = PostDecisionValues(T, Place(centre, spread, **options), widths)
            elif isinstance(response, SB3Config):
                self.policy = SB3Policy(game, unit, widths, response)
            else:
                own = dict(min_std=response.exploration_std, max_std=response.max_std, bound=bound is not None)
                self.policy = GaussianPolicy(T, centre, spread, unit, widths, **own, **options)
                self.critic = Critic(T, centre, spread, widths, **options)
            average = MixturePolicy if config.average == "mixture" else GaussianPolicy
            self.cloned = average(T, centre, spread, unit, widths, initial_std=config.initial_std, **options)
            self.flow = TimeFlow(T, d, config.flow, getattr(game, "domain", None))
        self.past = nn.ModuleList()  # Algo. 1: all best responses
        self.to(device)
        self.memory = Memory(d, k, config.cloning.capacity, device)
        self._average: Policy | None = Still(unit.to(device) * config.initial_std)  # π̄_0, no part of later ones
        self._agents: Particles | None = None

    def iterate(self, k: int) -> dict[str, Any]:
        """Iteration k of Algo. 1, 2 or 3, in place: π*_k against the population before, then π̄_k, then its
        population. Iteration 0 is that of a ~ N(0, std²), which is not part of the average. Returns a row of the
        history."""
        row: dict[str, Any] = {"iteration": k, "best_response_gap": float("nan")}
        clock = _Clock(row)
        if k > 0:
            row |= self.fit_best_response(k)
            clock.split("best_response")
            row["cloning_loss"] = self.fit_average(k)
            clock.split("cloning")
            if self._certifies(k):
                random, cells = self._generator(k, "gap"), self.config.judge_cells
                options = dict(cells=cells)
                if self.looks_ahead:  # which is dear
                    options = dict(cells=cells and cells // 2, samples=4)
                gap = best_response_gap(self.game, self.response, self.population, random, **options)
                row["best_response_gap"] = gap
            clock.split("judge")
        row["flow_loss"] = self.fit_population(k)
        clock.split("population")
        row |= self._judge(k)
        clock.split("judge")
        return row

    def _certifies(self, k: int) -> bool:
        return self.certify and k % self.config.judge_every == 0

    @property
    def average(self) -> Policy:
        """π̄_k."""
        return self.cloned if self._average is None else self._average

    @property
    def population(self) -> Population:
        """What best responses play against: the flow Ḡ_k, or simulated agents."""
        return self.flow if self._agents is None else self._agents

    @property
    def response(self) -> Policy:
        """π*_k as it acts: with its noise if that is what it was trained for (temperature > 0), else by its mean."""
        config = self.config.best_response
        if self.looks_ahead:
            return LookaheadPolicy(self.game, self.population, self.values, config.acting)
        return self.policy if config.temperature else Greedy(self.policy)

    def fit_best_response(self, k: int) -> dict[str, float]:
        """π*_k against the population before, from π*_{k−1}, by the configuration's learner; returns its losses."""
        config, random, faced = self.config.best_response, self._generator(k, "best response"), self.population
        temperature = config.temperature / k
        if self.looks_ahead:
            options = dict(steps=_budget(k, config.first_steps, config.steps), temperature=temperature)
            return fit_values(self.game, faced, self.values, config, random, **options)
        if isinstance(config, SB3Config):
            steps, seed = _budget(k, config.first_steps, config.steps), derive(self.seed, k, "best response")
            return fit_sb3(self.game, faced, self.policy, config, seed, steps=steps)
        options = dict(updates=_budget(k, config.first_updates, config.updates), temperature=temperature)
        return best_response(self.game, faced, self.policy, self.critic, config, random, **options)

    def fit_average(self, k: int) -> float:
        """N_sa triples of π*_k go into M_SL, and π̄_k is cloned from all of that, from π̄_{k−1}; returns the loss.
        Algo. 1: π*_k joins the past; if it looks ahead, which is dear, as a network cloned from its own triples."""
        weights = averaging_weights(k, self.averaging, self.step)
        past = self.algorithm == "algo-1"
        if past and not self.looks_ahead:
            self.past.append(copy.deepcopy(self.policy))
            self._mix(weights)
            return float("nan")
        config, random = self._settled(self.config.cloning, k), self._generator(k, "memory")
        play = rollout(self.game, self.response, self.population, n=config.agents, generator=random, rewards=False)
        require_finite("cloning: the best response's roll-out", play.x, play.a)
        if past:
            self.memory.clear()
        self.memory.add(play.x, play.a, k, self._generator(k, "memory keys"))
        loss = clone(self.cloned, self.memory, weights, config, self._generator(k, "cloning"))
        self._average = None
        if past:
            self.past.append(copy.deepcopy(self.cloned))
            self._mix(weights)
        return loss

    def fit_population(self, k: int) -> float:
        """N agents follow π̄_k. DEDA-FP: Ḡ_k by maximum likelihood on their states, from Ḡ_{k−1}; returns the loss.
        Else they are the population themselves."""
        config, random = self._settled(self.config.flow, k), self._generator(k, "population")
        play = rollout(self.game, self.average, n=self.config.agents, generator=random, rewards=False)
        if self.algorithm == "deda-fp":
            steps = _budget(k, config.first_steps, config.steps)
            return fit_flow(self.flow, play.x, config, self._generator(k, "flow"), steps=steps)
        require_finite("population", play.x)
        self._agents = Particles(play.x, self.config.bandwidth)
        return float("nan")

    def _settled(self, config: Any, k: int) -> Any:
        """A configuration of π̄ or Ḡ with its learning rate of iteration k."""
        settle = self.config.settle or k
        return config if k <= settle else dataclasses.replace(config, learning_rate=config.learning_rate * settle / k)

    def _judge(self, k: int) -> dict[str, float]:
        names = {"exploitability": "value", "exploitability_error": "error", "policy_value": "policy_value"}
        if not self._certifies(k):
            return dict.fromkeys(names, float("nan"))
        options = dict(n=self.config.judge_agents, cells=self.config.judge_cells, error=False)
        e = exploitability(self.game, self.average, seed=self.seed, device=self.device, **options)
        return {name: getattr(e, part) for name, part in names.items()}

    def _typical_states(self) -> tuple[Tensor, Tensor]:
        """Centre and scale (d,) of the networks' inputs: of the domain, or of agents that do not act."""
        domain = getattr(self.game, "domain", None)
        if domain is not None:
            lower, upper = (torch.as_tensor(v, dtype=torch.float32) for v in (domain.lower, domain.upper))
            return (lower + upper) / 2, (upper - lower) / 2
        still, random = Still(torch.zeros(self.game.action_dim)), self._generator(0, "normalisation")
        x = rollout(self.game, still, n=2000, generator=random, rewards=False).x.flatten(0, 1).cpu()
        return x.mean(0), x.std(0).clamp_min(1e-6)

    def _edges(self) -> list[Tensor]:
        """Where faces of walls cut each coordinate; nothing without walls."""
        domain = getattr(self.game, "domain", None)
        return [] if domain is None or not len(domain.walls) else [torch.from_numpy(e).float() for e in domain.edges]

    def _mix(self, weights: np.ndarray) -> None:
        noisy = self.looks_ahead or self.config.best_response.temperature > 0
        self._average = UniformMixture([p if noisy else Greedy(p) for p in self.past], weights)

    def state(self) -> dict[str, Tensor]:
        """All that later iterations depend on: weights, M_SL, simulated agents. Random numbers derive from seed and
        iteration."""
        state = {f"weights.{name}": value.contiguous() for name, value in self.state_dict().items()}
        state |= {f"memory.{name}": getattr(self.memory, name) for name in Memory.FIELDS}
        return state if self._agents is None else state | {"agents": self._agents.x}

    def load_state(self, state: dict[str, Tensor], k: int) -> None:
        """Take over what `state` returned after iteration k."""
        self.load_weights(state, k)
        for name in Memory.FIELDS:
            setattr(self.memory, name, state[f"memory.{name}"])
        if "agents" in state:
            self._agents = Particles(state["agents"], self.config.bandwidth)

    def load_weights(self, state: dict[str, Tensor], k: int) -> None:
        """The networks of `state` after iteration k, without the memory: enough to look at them, not to go on."""
        weights = {name.removeprefix("weights."): v for name, v in state.items() if name.startswith("weights.")}
        if self.algorithm == "algo-1" and k > 0:
            kind = self.cloned if self.looks_ahead else self.policy
            self.past.extend(copy.deepcopy(kind) for _ in range(k))
            self._mix(averaging_weights(k, self.averaging, self.step))
        elif k > 0:
            self._average = None
        self.load_state_dict(weights)

    def _generator(self, k: int, purpose: str) -> torch.Generator:
        return generator(self.seed, k, purpose, device=self.device)


def _budget(k: int, first: int, later: int) -> int:
    """Steps of iteration k: `first` for 0 and 1, then falling like 1/k, as the population's own steps do, to `later`.
    What the first best responses and flows get wrong weighs on every later average."""
    return max(later, round(2 * first / (max(k, 1) + 1)))


class _Clock:
    """Wall time of each step, added up in a row of the history."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        for step in ("best_response", "cloning", "population", "judge"):
            row[f"seconds_{step}"] = 0.0
        self.last = time.perf_counter()

    def split(self, step: str) -> None:
        now = time.perf_counter()
        self.row[f"seconds_{step}"] += now - self.last
        self.last = now
