"""From names to learners: what `solve` trains, made again and again with the same parameters."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from mfglib import presets
from mfglib.arguments import checked
from mfglib.checks import device_name, integer
from mfglib.games.base import known_moves
from mfglib.learn.corrective import Corrective
from mfglib.learn.networks import NetworkConfig, Networks
from mfglib.protocols import Game, Policy
from mfglib.rollout import rollout
from mfglib.schedules import Averaging, averaging_of, constant
from mfglib.seeds import Random, isolated, torch_defaults
from mfglib.trial import check_game

PARTS = ("best_response", "average", "population")
SCHEMES = {"corrective": Corrective, "mirror": lambda: constant(1.0)}  # averagings beside the schedules


@dataclass(frozen=True)
class Recipe:
    """What makes the learners of a run: `wanted`, a name or an object for each of `PARTS`, and sizes by name;
    `initial_policy` is that of iteration 0, in the place of the average's first."""

    game: Game
    wanted: dict[str, Any]
    averaging: Averaging
    sizes: presets.Sizes
    seed: int
    device: str
    initial_policy: Policy | None = None

    def build(self) -> dict[str, Any]:
        """The three learners. A named one is given what its constructor asks for by name, of game, config, networks,
        averaging, device, and the learners before it; its parameters are drawn under one seed. A class that is named by
        its path, "module:Class", has the sizes of its configuration's defaults."""
        given = dict(game=self.game, averaging=self.averaging, device=self.device)
        config = presets.configured(NetworkConfig, self.sizes["networks"])
        given["networks"] = Networks.of(self.game, config, seed=self.seed, device=self.device)
        with isolated(self.seed, "parameters"):
            for part in PARTS:
                learner = self.wanted[part]
                if isinstance(learner, str):
                    kind = presets.learner_class(part, learner)
                    asked = inspect.signature(kind).parameters
                    if "config" in asked:
                        given["config"] = presets.configured(kind.Config, self.sizes.get(learner, {}))
                    learner = kind(**{name: value for name, value in given.items() if name in asked})
                given[part] = learner
        return {part: given[part] for part in PARTS}


@checked
def recipe_of(
    game: Game,
    algorithm: str = "deda-fp",
    *,
    averaging: str | Averaging = "uniform",
    seed: int = 0,
    preset: str | None = None,
    sizes: presets.Sizes | None = None,
    device: str = "cpu",
    initial_policy: Policy | None = None,
    **wanted: Any,
) -> Recipe:
    """What `solve` would train for the same arguments, `wanted` being its best_response, average and population; the
    learners are `recipe_of(game).build()`."""
    check_game(game)
    if algorithm not in presets.ALGORITHMS:
        raise ValueError(f"algorithm: expected one of {tuple(presets.ALGORITHMS)}, got {algorithm!r}")
    names = presets.ALGORITHMS[algorithm] | dict(best_response="look-ahead" if known_moves(game) else "ppo")
    wanted = names | {part: learner for part, learner in wanted.items() if learner is not None}
    scheme = averaging if isinstance(averaging, str) else "corrective" if isinstance(averaging, Corrective) else ""
    averaging = SCHEMES[scheme]() if isinstance(averaging, str) and scheme in SCHEMES else averaging_of(averaging)
    others = presets.AVERAGES.get(scheme, {})
    wanted = {part: others.get(it, it) if isinstance(it, str) else it for part, it in wanted.items()}
    preset = presets.resolve_preset("lecture") if preset is None else preset
    table = presets.sizes(preset, game, sizes, averaging=scheme)
    seed, device = integer("seed", seed, at_least=0, at_most=None), device_name("device", device)
    if initial_policy is not None:
        _try(game, initial_policy, device)
    return Recipe(game, wanted, averaging, table, seed, device, initial_policy)


AGENTS = 64


def _try(game: Game, policy: Policy, device: str) -> None:
    """Raise TypeError or ValueError unless some agents can follow an initial policy."""
    try:
        with torch_defaults(), torch.no_grad():
            play = rollout(game, policy, n=AGENTS, generator=Random(0, 0, device)("initial policy"), rewards=False)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise type(error)(f"initial_policy: expected one that agents of {game!r} can follow: {error}") from error
    if not (play.x.isfinite().all() and play.a.isfinite().all()):
        raise ValueError("initial_policy: expected finite actions, got others")
