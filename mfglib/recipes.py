"""From names to learners: what `solve` trains, made again and again with the same parameters."""

import inspect
from dataclasses import dataclass
from typing import Any

from mfglib import presets
from mfglib.checks import integer
from mfglib.games.base import known_moves
from mfglib.learn.networks import NetworkConfig, Networks
from mfglib.protocols import Average, BestResponse, Game, PopulationModel, check_game
from mfglib.schedules import Averaging, averaging_of
from mfglib.seeds import isolated

PARTS = ("best_response", "average", "population")


@dataclass(frozen=True)
class Recipe:
    """What makes the learners of a run: objects, or classes with their configuration, in the order of `PARTS`."""

    game: Game
    makers: dict[str, Any]
    averaging: Averaging
    networks: NetworkConfig
    seed: int
    device: str
    sizes: presets.Sizes

    def build(self) -> dict[str, Any]:
        """The three learners. A class is given what its constructor asks for by name, of game, config, networks,
        averaging, device, and the learners before it; its parameters are drawn under one seed."""
        given = dict(game=self.game, averaging=self.averaging, device=self.device)
        given |= dict(networks=Networks(self.game, self.networks, seed=self.seed, device=self.device))
        with isolated(self.seed, "parameters"):
            for part, maker in self.makers.items():
                if isinstance(maker, tuple):
                    kind, config = maker
                    asked = inspect.signature(kind).parameters
                    maker = kind(**{n: v for n, v in (given | dict(config=config)).items() if n in asked})
                given[part] = maker
        return {part: given[part] for part in PARTS}


def recipe_of(
    game: Game,
    algorithm: str = "deda-fp",
    *,
    averaging: str | Averaging = "uniform",
    best_response: str | BestResponse | None = None,
    average: str | Average | None = None,
    population: str | PopulationModel | None = None,
    seed: int = 0,
    preset: str | None = None,
    sizes: presets.Sizes | None = None,
    device: str = "cpu",
) -> Recipe:
    """The learners that `solve` would train for the same arguments: `recipe_of(game).build()`."""
    check_game(game)
    if algorithm not in presets.ALGORITHMS:
        raise ValueError(f"algorithm: expected one of {tuple(presets.ALGORITHMS)}, got {algorithm!r}")
    table = presets.sizes(preset or presets.resolve_preset("lecture"), game, sizes)
    given = dict(zip(PARTS, (best_response, average, population), strict=True))
    wanted = presets.ALGORITHMS[algorithm] | {part: learner for part, learner in given.items() if learner is not None}
    wanted["best_response"] = wanted["best_response"] or ("look-ahead" if known_moves(game) else "ppo")
    makers = {part: _maker(part, wanted[part], table) for part in PARTS}
    networks, seed = presets.configured(NetworkConfig, table["networks"]), integer("seed", seed, at_least=0)
    return Recipe(game, makers, averaging_of(averaging), networks, seed, str(device), table)


def _maker(part: str, wanted: Any, table: presets.Sizes) -> Any:
    """An object as it is; of a name, the class and its configuration."""
    if not isinstance(wanted, str):
        return wanted
    kind = presets.learner_class(part, wanted)
    return kind, presets.configured(kind.Config, table[wanted])
