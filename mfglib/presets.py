"""Names and sizes: which learners make an algorithm, and how large they are. Needs no torch.

A size is a table: learner -> what its configuration says other than by default. `smoke` is for tests, `lecture` for a
class, `paper` for full size.
"""

import importlib
import os
from typing import Any

ALGORITHMS = {  # best response None: looking ahead where the game can be, else PPO
    "deda-fp": dict(best_response=None, average="cloned", population="flow"),
    "algo-2": dict(best_response=None, average="cloned", population="agents"),
    "algo-1": dict(best_response=None, average="episodes", population="agents"),
}

LEARNERS = {  # loaded when named; a new one is a line here, or an object passed to `solve`
    "best_response": {
        "ppo": "mfglib.learn.ppo:PPO",
        "look-ahead": "mfglib.learn.lookahead:Lookahead",
        "sb3-ppo": "mfglib.adapters.sb3:SB3",
        "sb3-sac": "mfglib.adapters.sb3:SB3",
    },
    "average": {
        "cloned": "mfglib.learn.cloning:ClonedAverage",
        "episodes": "mfglib.learn.episodes:EpisodeAverage",
    },
    "population": {
        "flow": "mfglib.learn.flow:FlowPopulation",
        "agents": "mfglib.learn.agents:SimulatedAgents",
    },
}

Sizes = dict[str, dict[str, Any]]

PRESETS: dict[str, Sizes] = {
    "smoke": {
        "networks": dict(hidden=(16, 16)),
        "ppo": dict(agents=64, first_updates=3, updates=2),
        "look-ahead": dict(first_steps=20, steps=10, states=256, batch=128, candidates=9, acting_candidates=9),
        "sb3": dict(first_steps=400, steps=200, agents=8, gradient_steps=2),
        "cloned": dict(agents=100, steps=20, batch=512),
        "flow": dict(agents=500, steps=10, first_steps=10, batch=64),
        "agents": dict(agents=500),
        "certify": dict(agents=1000),
    },
    "lecture": {},
    "paper": {
        "networks": dict(hidden=(256, 256)),
        "ppo": dict(agents=2048, first_updates=40, updates=20),
        "look-ahead": dict(first_steps=1500, steps=200, states=16_384, batch=4096, candidates=49, acting_candidates=49),
        "sb3": dict(first_steps=1_000_000, steps=200_000),
        "cloned": dict(agents=5000, steps=500, batch=4096),
        "flow": dict(agents=50_000, bins=16, hidden=(128, 128), steps=300, first_steps=600, batch=1024),
        "agents": dict(agents=50_000),
        "certify": dict(agents=100_000),
    },
}

# Bounded games of one coordinate, and of two, at any preset; then at `lecture`.
BOUNDED: dict[int, Sizes] = {
    1: {"look-ahead": dict(temperature=0.2), "certify": dict(cells=200)},
    # 4-rooms, iteration 50, with the second look at actions: exploitability 1.8 and 1.9 instead of 2.1 and 2.6. On
    # the beach, where best responses are far from the average, an average that lags swings (0.26 to 0.79 at 30).
    2: {
        "cloned": dict(decay_after=5),
        "look-ahead": dict(temperature=0.5),
        "flow": dict(decay_after=5),
        "certify": dict(cells=40),
    },
}
LECTURE: dict[int, Sizes] = {
    # The errors of the density add up. Beach bar, 20 iterations: exploitability 0.39, with 10,000 agents,
    # 60 steps and 1000 agents in M_SL 0.7 to 1.4. 12 bins: total variation to the population that it is shown
    # 0.013, with 8 bins 0.026, with 24 0.019. With the rates of 2-D the average does not settle (0.3 to 1.8).
    1: {
        "look-ahead": dict(first_steps=300, steps=50, learning_rate=4e-3),
        "cloned": dict(agents=3000),
        "flow": dict(agents=20_000, steps=120, batch=512, bins=12),
        "agents": dict(agents=20_000),
        "certify": dict(every=5),
    },
    # The errors of the clone move the crowd. A rate of 3e-3 is too slow for it: 1500 steps from nothing,
    # total variation to the population of what it clones 0.10 instead of 0.06.
    # Twice the steps, states and batch: exploitability 6.9% of the first instead of 6.4%, in 293 s instead of 199
    # (two seeds, benchmarks/training.py). The average forgives rough best responses.
    2: {
        "look-ahead": dict(first_steps=250, steps=20, states=2048, batch=512),
        "cloned": dict(agents=2000, steps=320, batch=1024, learning_rate=1e-2),
        "flow": dict(agents=20_000, steps=60, batch=512),
        "agents": dict(agents=20_000),
        "certify": dict(every=5),
    },
}


def resolve_preset(preset: str) -> str:
    """A default: the environment variable MFGLIB_PRESET if set, else `preset`; ValueError if unknown."""
    name = os.environ.get("MFGLIB_PRESET") or preset
    if name not in PRESETS:
        raise ValueError(f"preset: expected one of {tuple(PRESETS)}, got {name!r}")
    return name


def sizes(preset: str, game: Any = None, changes: Sizes | None = None) -> Sizes:
    """The sizes of a preset for `game`, with `changes` on top: learner, "networks" or "certify" -> fields.

    "cloned" also sizes Algo. 1's clones, and "sb3" both algorithms of Stable-Baselines3.
    Raises ValueError for an unknown preset or name.
    """
    from mfglib.games.base import known_moves

    if preset not in PRESETS:
        raise ValueError(f"preset: expected one of {tuple(PRESETS)}, got {preset!r}")
    known = ("networks", "ppo", "look-ahead", "sb3", "cloned", "flow", "agents", "certify")
    if unknown := sorted(set(changes or {}) - set(known)):
        raise ValueError(f"sizes: expected names among {known}, got {', '.join(unknown)}")
    layers = [PRESETS[preset]]
    if game is not None and known_moves(game):
        dimension, components = min(game.state_dim, 2), 5 if game.action_dim == 1 else 12
        layers += [{"networks": dict(frequencies=4), "cloned": dict(components=components, min_std=1e-2)}]
        layers += [BOUNDED[dimension]]
        layers += [LECTURE[dimension]] if preset == "lecture" else []
        if not getattr(game, "uses_density", True):  # plain best responses do not jump, and runs are short
            layers += [{"look-ahead": dict(temperature=0.0), "certify": dict(every=1)}]
    layers += [changes or {}]
    table = {name: {k: v for layer in layers for k, v in layer.get(name, {}).items()} for name in known}
    table["episodes"] = table["cloned"]
    return table | {f"sb3-{a}": table["sb3"] | dict(algorithm=a) for a in ("ppo", "sac")}


def learner_class(part: str, name: str) -> type:
    """The class of a learner by its name in `LEARNERS[part]`, or by its path "module:Class"; ValueError if unknown."""
    path = LEARNERS[part].get(name, name)
    if ":" not in path:
        raise ValueError(f"{part}: expected a learner or one of {tuple(LEARNERS[part])}, got {name!r}")
    module, _, qualified = path.partition(":")
    return getattr(importlib.import_module(module), qualified)


def configured(kind: type, fields: dict[str, Any]) -> Any:
    """A frozen configuration from a table, as written or as JSON has it; ValueError names a field that it lacks."""
    if unknown := sorted(set(fields) - set(kind.__dataclass_fields__)):
        raise ValueError(f"{kind.__name__}: expected fields among {tuple(kind.__dataclass_fields__)}, got {unknown}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()})
