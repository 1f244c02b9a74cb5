import math

import pytest

from mfglib.presets import PRESETS, Config, resolve_preset


def sizes(config):
    learners = (config.best_response.agents, config.cloning.agents, config.agents, config.flow.steps)
    return (*config.hidden, *learners, config.best_response.updates, config.judge_agents)


def test_presets_grow():
    assert list(PRESETS) == ["smoke", "lecture", "paper"]
    smoke, lecture, paper = (sizes(PRESETS[name]) for name in PRESETS)
    assert all(a < b < c for a, b, c in zip(smoke, lecture, paper, strict=True))
    assert PRESETS["lecture"] == Config()
    assert PRESETS["paper"].hidden == (256, 256)  # stated in the paper


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
        (dict(action_scale=0.0), "action_scale"),
    ],
    ids=str,
)
def test_configuration_validates_itself(given, name):
    with pytest.raises(ValueError, match=rf"Config\.{name}: expected > 0, got "):
        Config(**given)
