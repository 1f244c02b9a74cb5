"""Names and sizes (`mfglib.presets`)."""

import importlib
import math

import pytest

from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.presets import ALGORITHMS, LEARNERS, PRESETS, configured, learner_class, resolve_preset, sizes
from mfglib.recipes import PARTS, recipe_of

BOUNDED = [BeachBar(), FourRooms(), LinearQuadratic.paper()]
FREE = [LinearQuadratic(), LinearQuadratic(a_bound=0.1), LinearQuadratic(x_bound=1.0), None]
KNOWN = {
    "networks",
    "ppo",
    "look-ahead",
    "mirror",
    "last",
    "sb3",
    "cloned",
    "flow",
    "agents",
    "certify",
    "episodes",
    "cloned-corrective",
    "episodes-corrective",
    "sb3-ppo",
    "sb3-sac",
}


def configs(preset, game=None):
    """The configurations of all learners that need no extra, by name."""
    table = sizes(preset, game)
    known = [(part, name) for part in LEARNERS for name in LEARNERS[part] if "sb3" not in name]
    return {name: configured(learner_class(part, name).Config, table[name]) for part, name in known}


def numbers(preset, game=None):
    c, table = configs(preset, game), sizes(preset, game)
    hidden = table["networks"].get("hidden", (64, 64))
    learners = c["ppo"].agents, c["cloned"].agents, c["agents"].agents, c["flow"].steps, c["ppo"].updates
    return *hidden, *learners, table["certify"].get("agents", 20_000)


def test_presets_grow():
    assert list(PRESETS) == ["smoke", "lecture", "paper"]
    smoke, lecture, paper = map(numbers, PRESETS)
    assert all(a < b < c for a, b, c in zip(smoke, lecture, paper, strict=True))
    assert PRESETS["lecture"] == {} and PRESETS["paper"]["networks"]["hidden"] == (256, 256)  # stated in the paper


@pytest.mark.parametrize("game", BOUNDED, ids=lambda g: type(g).__name__)
def test_bounded_games_look_ahead_and_grow_with_the_preset(game):
    every = [configs(name, game) for name in PRESETS]
    responses = [c["look-ahead"] for c in every]
    growing = [(r.states, r.first_steps, r.steps) for r in responses]
    assert all(a < b < c for a, b, c in zip(*growing, strict=True))
    details = [(r.batch, r.candidates, r.acting_candidates) for r in responses]
    assert all(a <= b <= c for a, b, c in zip(*details, strict=True))
    for name, c in zip(PRESETS, every, strict=True):
        plain = configs(name)
        assert recipe_of(game, preset=name).wanted["best_response"] == "look-ahead"
        assert c["cloned"].components > 1 == plain["cloned"].components and c["episodes"] == c["cloned"]
        assert c["agents"].agents == c["flow"].agents <= plain["flow"].agents
        smoothed = c["look-ahead"].temperature > 0
        assert smoothed == (not isinstance(game, LinearQuadratic))  # no density in its reward


@pytest.mark.parametrize("game", FREE, ids=repr)
def test_other_games_get_the_preset_as_it_is(game):
    for name in PRESETS:
        table = sizes(name, game)
        assert table == sizes(name) and set(table) == KNOWN
        assert game is None or recipe_of(game, preset=name).wanted["best_response"] == "ppo"


def test_bounded_games_of_three_dimensions_have_sizes():
    game = LinearQuadratic(B=[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], x_bound=1.0, a_bound=0.1)
    assert all(configs(name, game)["cloned"].components == 12 for name in PRESETS)


def test_changes_lie_on_top_and_name_what_they_change():
    table = sizes("smoke", BeachBar(), {"ppo": dict(agents=3), "cloned": dict(steps=7), "sb3": dict(steps=9)})
    assert table["ppo"] == dict(PRESETS["smoke"]["ppo"], agents=3)
    assert table["episodes"]["steps"] == table["cloned"]["steps"] == 7
    for kind in ("ppo", "sac"):
        assert table[f"sb3-{kind}"]["steps"] == 9 and table[f"sb3-{kind}"]["algorithm"] == kind
    with pytest.raises(ValueError, match="sizes: expected names among .*'look-ahead'.*, got judge, lookahead"):
        sizes("smoke", None, {"lookahead": {}, "judge": {}})
    with pytest.raises(ValueError, match="preset: expected one of .*'lecture'.*got 'huge'"):
        sizes("huge")


def test_every_name_has_a_class_and_sizes():
    for part, learners in LEARNERS.items():
        for name in learners:
            if "sb3" in name:
                pytest.importorskip("stable_baselines3")
            kind = learner_class(part, name)
            assert configured(kind.Config, sizes("smoke")[name]) and learner_class(part, LEARNERS[part][name]) is kind
    assert list(LEARNERS) == list(PARTS)
    for names in ALGORITHMS.values():
        assert all(name in LEARNERS[part] for part, name in names.items())
    with pytest.raises(ValueError, match="average: expected a learner or one of .*'cloned'.*, got 'ppo'"):
        learner_class("average", "ppo")


def test_a_configuration_comes_back_from_a_table_and_from_json():
    kind = learner_class("population", "flow").Config
    assert configured(kind, dict(hidden=[8, 8])) == kind(hidden=(8, 8))
    with pytest.raises(ValueError, match=r"FlowConfig: expected fields among \('bins', .*got \['bin', 'layers'\]"):
        configured(kind, dict(layers=3, bin=4))


def test_environment_decides_the_preset(monkeypatch):
    for value, expected in ((None, "paper"), ("smoke", "smoke"), ("", "paper")):
        monkeypatch.delenv("MFGLIB_PRESET", raising=False)
        if value is not None:
            monkeypatch.setenv("MFGLIB_PRESET", value)
        assert resolve_preset("paper") == expected
    monkeypatch.setenv("MFGLIB_PRESET", "huge")
    with pytest.raises(ValueError, match="preset: expected one of .*'lecture'.*got 'huge'"):
        resolve_preset("smoke")


FREE_FIELDS = (
    "temperature",
    "decay",
    "uniform_share",
    "beta",
    "bandwidth",
    "cells",
    "frequencies",
)  # 0 or None may be meant
CONFIGS = {path for part in LEARNERS.values() for path in part.values()}
CONFIGS |= {"mfglib.learn.networks:NetworkConfig", "mfglib.certificates:CertifyConfig"}


@pytest.mark.parametrize("path", sorted(CONFIGS))
def test_every_configuration_names_what_is_not_positive(path):
    if "sb3" in path:
        pytest.importorskip("stable_baselines3")
    module, _, name = path.partition(":")
    kind = getattr(importlib.import_module(module), name)
    kind = getattr(kind, "Config", kind)
    for field, default in vars(kind()).items():
        if isinstance(default, str) or field in FREE_FIELDS:
            continue
        wrong = (0, -1, math.nan, "many", *(() if default is None else (None,)))
        for value in [*wrong, *[(*default, v) for v in wrong if isinstance(default, tuple)]]:
            with pytest.raises(ValueError, match=rf"{kind.__name__}\.{field}: expected .*> 0, got "):
                kind(**{field: value})
        if isinstance(default, int):
            with pytest.raises(ValueError, match=rf"{kind.__name__}\.{field}: expected an integer > 0, got 1.5"):
                kind(**{field: 1.5})


@pytest.mark.parametrize(
    ("path", "given", "named"),
    [
        ("ppo", dict(temperature=-1.0), "PPOConfig.temperature: expected a number >= 0, got -1.0"),
        ("ppo", dict(max_std=0.05), "PPOConfig: expected exploration_std <= max_std, got 0.1 and 0.05"),
        ("look-ahead", dict(temperature=math.inf), "LookaheadConfig.temperature: expected finite"),
        (
            "look-ahead",
            dict(uniform_share=1.5),
            "LookaheadConfig.uniform_share: expected .* <= 1, got 1.5",
        ),
        ("look-ahead", dict(states=1), "LookaheadConfig.states: expected at least 2, got 1"),
        ("sb3-sac", dict(algorithm="a2c"), 'SB3Config.algorithm: expected "sac" or "ppo", got \'a2c\''),
        ("cloned", dict(beta=1.5), r"CloningConfig.beta: expected a number >= 0 and <= 1, got 1.5"),
        ("cloned", dict(beta=math.nan), r"CloningConfig.beta: expected finite numbers, got nan"),
    ],
    ids=lambda v: v if isinstance(v, str) and " " not in v else "",
)
def test_other_limits_are_named_too(path, given, named):
    if "sb3" in path:
        pytest.importorskip("stable_baselines3")
    part = next(part for part in LEARNERS if path in LEARNERS[part])
    with pytest.raises(ValueError, match=named):
        learner_class(part, path).Config(**given)
