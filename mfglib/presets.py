"""Names and sizes: which learners make an algorithm, and how large they are. Needs no torch.

A size is a table: learner -> what its configuration says other than by default. `smoke` is for tests, `lecture` for a
class, `paper` for full size.
"""

import importlib
import os
from typing import Any

ALGORITHMS = {  # their best responses look ahead where the game can be looked ahead; else they are PPO's
    "deda-fp": dict(average="cloned", population="flow"),
    "algo-2": dict(average="cloned", population="agents"),
    "algo-1": dict(average="episodes", population="agents"),
}

LEARNERS = {  # loaded when named; a new one is a line here, or an object passed to `solve`
    "best_response": {
        "ppo": "mfglib.learn.ppo:PPO",
        "look-ahead": "mfglib.learn.lookahead:Lookahead",
        "mirror": "mfglib.learn.mirror:Mirror",
        "sb3-ppo": "mfglib.adapters.sb3:SB3",
        "sb3-sac": "mfglib.adapters.sb3:SB3",
    },
    "average": {
        "cloned": "mfglib.learn.cloning:ClonedAverage",
        "episodes": "mfglib.learn.episodes:EpisodeAverage",
        "cloned-corrective": "mfglib.learn.corrective:CorrectiveAverage",
        "episodes-corrective": "mfglib.learn.corrective:CorrectiveEpisodes",
        "last": "mfglib.learn.mirror:LastResponse",
    },
    "population": {
        "flow": "mfglib.learn.flow:FlowPopulation",
        "agents": "mfglib.learn.agents:SimulatedAgents",
    },
}

# What other learners the averaging asks for in place of those of an algorithm.
AVERAGES = {
    "corrective": {"cloned": "cloned-corrective", "episodes": "episodes-corrective"},
    "mirror": {"look-ahead": "mirror", "ppo": "mirror", "cloned": "last", "episodes": "last"},
}

Sizes = dict[str, dict[str, Any]]

PRESETS: dict[str, Sizes] = {
    "smoke": {
        "networks": dict(hidden=(16, 16)),
        "ppo": dict(agents=64, first_updates=3, updates=2, later_learning_rate=1e-3),
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

# Bounded games of one coordinate, and of two, at any preset; then at `lecture`. Plain best responses jump, and so they
# are smoothed, by a temperature (decision S8).
BOUNDED: dict[int, Sizes] = {
    1: {"look-ahead": dict(temperature=0.2), "mirror": dict(temperature=3.2), "certify": dict(cells=200)},
    # Rates that fall make 4-rooms less exploitable. On the beach, where best responses are far from the average, an
    # average that lags behind swings (decision S2).
    2: {
        "cloned": dict(decay_after=5),
        "look-ahead": dict(temperature=0.5),
        "mirror": dict(temperature=4.0),
        "flow": dict(decay_after=5),
        "certify": dict(cells=40),
    },
}
LECTURE: dict[int, Sizes] = {
    # In one dimension the errors of the density add up: more agents and steps (decision S3), more bins (decision S4),
    # and lower rates, since with those of two dimensions the average does not settle (decision S5).
    1: {
        "look-ahead": dict(first_steps=300, steps=50, states=1024, batch=512, learning_rate=4e-3),
        "cloned": dict(agents=3000),
        "flow": dict(agents=20_000, steps=120, batch=512, bins=12),
        "agents": dict(agents=20_000),
        "certify": dict(every=5),
    },
    # In two dimensions the errors of the clone move the crowd, and the default learning rate is too slow for it
    # (decision S6). Best responses may be rough, because the average forgives it: a larger budget costs time and gains
    # nothing (decision S7). Fewer agents for Algo 1 and 2 would make them worse (decision S11).
    2: {
        "look-ahead": dict(first_steps=250, steps=20, states=1024, batch=512),
        "cloned": dict(agents=2000, steps=320, batch=1024, learning_rate=1e-2),
        "flow": dict(agents=20_000, steps=60, batch=512),
        "agents": dict(agents=20_000),
        "certify": dict(every=5),
    },
}
# On top of `LECTURE`, by averaging. With corrective weights rough first best responses are forgiven (decision S9). By
# mirror descent the policy is the last one, and errors of its values and of the flow before it count (decision S10).
AVERAGED: dict[str, dict[int, Sizes]] = {
    "corrective": {1: {"look-ahead": dict(first_steps=120)}, 2: {}},
    "mirror": {
        1: {"flow": dict(agents=8000, draws=4)},
        2: {
            "mirror": dict(steps=60, states=2048, acting_candidates=16),
            "flow": dict(steps=200, first_steps=400, batch=256),
        },
    },
}


def resolve_preset(preset: str) -> str:
    """A default: the environment variable MFGLIB_PRESET if set, else `preset`; ValueError if unknown."""
    name = os.environ.get("MFGLIB_PRESET") or preset
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset: expected one of {tuple(PRESETS)}, got {name!r}")
    return name


def sizes(preset: str, game: Any = None, changes: Sizes | None = None, *, averaging: str = "uniform") -> Sizes:
    """The sizes of a preset for `game`, with `changes` on top: learner, "networks" or "certify" -> fields.

    `averaging`: "corrective" and "mirror" have sizes of their own.

    "cloned" also sizes Algo. 1's clones, "sb3" both algorithms of Stable-Baselines3, and "look-ahead" whatever "mirror"
    does not say.
    Raises ValueError for an unknown preset or name.
    """
    from mfglib.games.base import known_moves

    if not isinstance(preset, str) or preset not in PRESETS:
        raise ValueError(f"preset: expected one of {tuple(PRESETS)}, got {preset!r}")
    changes = {} if changes is None else changes
    if not isinstance(changes, dict) or not all(isinstance(fields, dict) for fields in changes.values()):
        raise ValueError(f"sizes: expected a table, learner -> fields, got {changes!r}")
    known = ("networks", "ppo", "look-ahead", "mirror", "sb3", "cloned", "last", "flow", "agents", "certify")
    if unknown := sorted(set(changes) - set(known), key=str):
        raise ValueError(f"sizes: expected names among {known}, got {', '.join(map(str, unknown))}")
    layers = [PRESETS[preset]]
    if game is not None and known_moves(game):
        dimension, components = min(game.state_dim, 2), 5 if game.action_dim == 1 else 12
        layers += [{"networks": dict(frequencies=4), "cloned": dict(components=components, min_std=1e-2)}]
        layers += [BOUNDED[dimension]]
        if preset == "lecture":
            layers += [LECTURE[dimension], AVERAGED.get(averaging, {}).get(dimension, {})]
        if not getattr(game, "uses_density", True):  # plain best responses do not jump, and runs are short
            layers += [{"look-ahead": dict(temperature=0.0), "certify": dict(every=1)}]
    layers += [changes]
    table = {name: {k: v for layer in layers for k, v in layer.get(name, {}).items()} for name in known}
    table["mirror"] = table["look-ahead"] | table["mirror"]
    for name in ("episodes", *AVERAGES["corrective"].values()):
        table[name] = table["cloned"]
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
