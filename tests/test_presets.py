import dataclasses
import json
import math

import pytest

from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.learn.lookahead import LookaheadConfig
from mfglib.learn.ppo import PPOConfig
from mfglib.presets import PRESETS, Config, preset_config, resolve_preset, restored


def sizes(config):
    learners = (config.best_response.agents, config.cloning.agents, config.agents, config.flow.steps)
    return (*config.hidden, *learners, config.best_response.updates, config.judge_agents)


def test_presets_grow():
    assert list(PRESETS) == ["smoke", "lecture", "paper"]
    smoke, lecture, paper = (sizes(PRESETS[name]) for name in PRESETS)
    assert all(a < b < c for a, b, c in zip(smoke, lecture, paper, strict=True))
    assert PRESETS["lecture"] == Config()
    assert PRESETS["paper"].hidden == (256, 256)  # stated in the paper


@pytest.mark.parametrize("game", [BeachBar(), FourRooms(), LinearQuadratic.paper()], ids=lambda g: type(g).__name__)
def test_bounded_games_look_ahead_and_grow_with_the_preset(game):
    configs = [preset_config(name, game) for name in PRESETS]
    responses = [config.best_response for config in configs]
    assert all(isinstance(response, LookaheadConfig) for response in responses)
    sizes = [(r.states, r.first_steps, r.steps) for r in responses]
    assert all(a < b < c for a, b, c in zip(*sizes, strict=True))
    details = [(r.batch, r.candidates, r.acting) for r in responses]
    assert all(a <= b <= c for a, b, c in zip(*details, strict=True))
    for preset, config in zip(PRESETS.values(), configs, strict=True):
        assert config.average == "mixture" and config.hidden == preset.hidden
        assert config.agents <= preset.agents and config.flow.first_steps >= preset.flow.first_steps
        smoothed = config.best_response.temperature > 0
        assert smoothed == (not isinstance(game, LinearQuadratic))  # no density in its reward


@pytest.mark.parametrize("game", [LinearQuadratic(), LinearQuadratic(a_bound=0.1), LinearQuadratic(x_bound=1.0), None],
                         ids=repr)  # fmt: skip
def test_other_games_get_the_preset_as_it_is(game):
    for name, preset in PRESETS.items():
        assert preset_config(name, game) is preset and isinstance(preset.best_response, PPOConfig)


def test_bounded_games_of_three_dimensions_have_a_preset():
    game = LinearQuadratic(B=[[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], x_bound=1.0, a_bound=0.1)
    assert all(isinstance(preset_config(name, game), Config) for name in PRESETS)


def test_environment_decides_the_preset(monkeypatch):
    monkeypatch.delenv("MFGLIB_PRESET", raising=False)
    assert resolve_preset("paper") == "paper"
    monkeypatch.setenv("MFGLIB_PRESET", "smoke")
    assert resolve_preset("paper") == "smoke"
    monkeypatch.setenv("MFGLIB_PRESET", "")
    assert resolve_preset("paper") == "paper"


@pytest.mark.parametrize("where", ["argument", "environment"])
def test_unknown_preset_is_named(monkeypatch, where):
    monkeypatch.delenv("MFGLIB_PRESET", raising=False)
    if where == "environment":
        monkeypatch.setenv("MFGLIB_PRESET", "huge")
    with pytest.raises(ValueError, match="preset: expected one of .*'lecture'.*got 'huge'"):
        resolve_preset("huge" if where == "argument" else "smoke")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (dict(hidden=()), "hidden"),
        (dict(hidden=(64, 0)), "hidden"),
        (dict(initial_std=0.0), "initial_std"),
        (dict(initial_std=math.nan), "initial_std"),
        (dict(judge_agents=-1), "judge_agents"),
        (dict(judge_every=0), "judge_every"),
        (dict(settle=0), "settle"),
        (dict(action_scale=0.0), "action_scale"),
    ],
    ids=str,
)
def test_configuration_validates_itself(given, name):
    with pytest.raises(ValueError, match=rf"Config\.{name}: expected > 0, got "):
        Config(**given)


@pytest.mark.parametrize("game", [BeachBar(), FourRooms(), LinearQuadratic()], ids=lambda g: type(g).__name__)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_comes_back_from_what_a_run_has_stored(game, preset):
    config = preset_config(preset, game)
    assert restored(json.loads(json.dumps(dataclasses.asdict(config)))) == config
