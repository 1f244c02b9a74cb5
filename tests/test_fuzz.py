"""Random arguments for every public name: a right answer, or an error that names the argument.

`make test` tries 1,000 inputs, always the same. More: MFGLIB_FUZZ=5000 pytest tests/test_fuzz.py
"""

import importlib
import inspect
import math
import os
import re
import signal
import tempfile
import warnings
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import BAR, GAME, TINY, tiny

from deda_fp import deviators, distances, finite
from deda_fp.examples.congestion import Congestion
from deda_fp.examples.evacuation import Evacuation
from deda_fp.examples.flocking import Flocking
from deda_fp.view.overview import overview
from mfglib import best_response_gap, check_game, exploitability, recipes, replay, schedules, solve
from mfglib.adapters import gym
from mfglib.exact import (
    corrective,
    grid_equilibrium,
    grid_fictitious_play,
    lq_best_response,
    lq_equilibrium,
    lq_fictitious_play,
    lq_gap,
    lq_moments,
    methods,
)
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.games import BeachBar, BoundedGame, Domain, FourRooms, Law, LinearQuadratic, Market
from mfglib.learn.agents import AgentsConfig
from mfglib.learn.cloning import CloningConfig
from mfglib.learn.flow import FlowConfig
from mfglib.learn.lookahead import LookaheadConfig
from mfglib.learn.networks import NetworkConfig
from mfglib.learn.ppo import PPOConfig
from mfglib.policies import AffinePolicy, EpisodeMixture, MeanPolicy, NoisePolicy
from mfglib.populations import CellPopulation, GaussianPath, MeanPath, Particles
from mfglib.rollout import rollout

INPUTS = int(os.environ.get("MFGLIB_FUZZ", 1000))
SECONDS = 60  # of one call
SIZES = dict(preset="smoke", sizes=TINY, progress=False, iterations=1)


def gen():
    return torch.Generator().manual_seed(0)


@cache
def made():
    """Objects to call, made once."""
    solution, bar = tiny(), tiny(BAR)
    grid = Grid(BAR, 20)
    directory = tempfile.mkdtemp()
    tiny(directory=directory)
    equilibrium = lq_equilibrium(GAME)
    play = grid_evaluate(grid, NoisePolicy(torch.zeros(1)))
    return dict(
        solution=solution,
        bar=bar,
        grid=grid,
        directory=directory,
        play=play,
        equilibrium=equilibrium,
        policy=equilibrium.policy,
        particles=Particles(torch.rand(4, 50, 2, generator=gen())),
        response=lq_best_response(GAME, equilibrium.mean.numpy()),
        env=gym.BestResponseEnv(BAR, bar.population),
        envs=gym.BestResponseVectorEnv(BAR, bar.population, 5),
        domain=Domain([0.0, 0.0], [1.0, 1.0], [((0.4, 0.4), (0.6, 0.6))]),
        ring=Domain(0.0, 1.0, periodic=True),
        law=Law.box([0.0, 0.0], [1.0, 2.0]),
        mixture=EpisodeMixture([NoisePolicy(torch.ones(1)), equilibrium.policy]),
    )


def calls():
    """Public name -> what is called and right arguments."""
    m = made()
    s, bar, grid, play, eq = m["solution"], m["bar"], m["grid"], m["play"], m["equilibrium"]
    x, a = torch.rand(6, 1, generator=gen()), torch.rand(6, 1, generator=gen())
    K, k, mean = eq.K.numpy(), eq.k.numpy(), eq.mean.numpy()
    still = NoisePolicy(torch.zeros(1))
    table = {
        "mfglib.solve": (
            solve,
            dict(game=GAME, algorithm="deda-fp", averaging="uniform", seed=0, device="cpu", **SIZES)
            | dict(initial_policy=eq.policy),
        ),
        "mfglib.exploitability": (exploitability, dict(game=BAR, policy=still, cells=20, n=200, seed=0, device="cpu")),
        "mfglib.best_response_gap": (
            best_response_gap,
            dict(game=BAR, policy=still, population=bar.population, random=gen(), n=20, cells=20),
        ),
        "mfglib.check_game": (check_game, dict(game=GAME)),
        "mfglib.replay": (lambda **o: list(replay(**o)), dict(game=GAME, directory=m["directory"])),
        "mfglib.games.LinearQuadratic": (
            LinearQuadratic,
            dict(A=1.0, B=1.0, A_bar=0.1, c_x=1.0, c_a=1.0, c_m=1.0, x_target=0.5, horizon=3, initial_mean=0.0)
            | dict(initial_std=0.5, noise_std=0.1, x_bound=1.0, a_bound=1.0, h=0.1, c_T=2.0)
            | dict(initial_law="uniform", noise_law="gaussian"),
        ),
        "mfglib.games.BeachBar": (
            BeachBar,
            dict(c_x=1.0, c_m=1.0, c_a=1.0, bar=0.5, horizon=3, a_bound=0.3, noise_bound=0.1),
        ),
        "mfglib.games.FourRooms": (
            FourRooms,
            dict(c_a=1.0, c_m=1.0, epsilon=1.0, horizon=3, a_bound=0.1, noise_bound=0.1, walls=())
            | dict(start=((0.0, 0.0), (0.1, 0.1))),
        ),
        "mfglib.games.Market": (
            Market,
            dict(c_x=1.0, c_a=1.0, h=1.0, horizon=3, start=(0.0, 1.0), noise_std=0.1, x_bound=2.0, a_bound=0.5),
        ),
        "mfglib.games.Domain": (
            Domain,
            dict(lower=[0.0, 0.0], upper=[1.0, 1.0], walls=[((0.4, 0.4), (0.6, 0.6))]) | dict(periodic=(True, False)),
        ),
        "mfglib.games.Law": (Law, dict(name="gaussian", mean=0.0, std=1.0, size=1)),
        "Law.box": (Law.box, dict(lower=0.0, upper=1.0)),
        "Law.points": (Law.points, dict(points=[[0.0, 1.0], [1.0, -1.0]], weights=[1.0, 2.0])),
        "Law.points, draw": (Law.points([-1.0, 1.0]).draw, dict(n=5, generator=gen())),
        "Law.points, quantiles": (Law.points([-1.0, 1.0]).quantiles, dict(n=5)),
        "Law.draw": (m["law"].draw, dict(n=5, generator=gen())),
        "Law.quantiles": (m["law"].quantiles, dict(n=5)),
        "mfglib.games.BoundedGame": (lambda **o: check_game(type("Own", (Own,), o)()), dict(horizon=3, a_bound=0.3)),
        "Domain.contains": (m["domain"].contains, dict(x=torch.rand(5, 2))),
        "Domain.uniform": (m["domain"].uniform, dict(n=5, generator=gen())),
        "Domain.fold": (m["domain"].fold, dict(x=torch.rand(5, 2))),
        "Domain.shortest": (m["ring"].shortest, dict(displacement=torch.rand(5, 1))),
        "Domain.centre": (m["ring"].centre, dict(x=torch.rand(5, 1))),
        "Domain.move around": (m["ring"].move, dict(x=torch.zeros(5, 1), displacement=torch.rand(5, 1))),
        "Domain.move": (m["domain"].move, dict(x=torch.zeros(5, 2), displacement=torch.rand(5, 2))),
        "mfglib.exact.lq_equilibrium": (lq_equilibrium, dict(game=GAME)),
        "mfglib.exact.lq_best_response": (lq_best_response, dict(game=GAME, mean=mean)),
        "mfglib.exact.lq_moments": (lq_moments, dict(game=GAME, K=K, k=k, mean=mean, std=0.1)),
        "mfglib.exact.lq_gap": (
            lq_gap,
            dict(response=m["response"], K=K, k=k, own=mean, cov=eq.cov.numpy(), std=0.1),
        ),
        "mfglib.exact.lq_fictitious_play": (lq_fictitious_play, dict(game=GAME, iterations=2, averaging="uniform")),
        "mfglib.exact.grid_equilibrium": (
            grid_equilibrium,
            dict(game=BAR, cells=20, tolerance=0.2, iterations=50, progress=False)
            | dict(method="momentum", initial_policy=still),
        ),
        "mfglib.exact.grid_fictitious_play": (
            grid_fictitious_play,
            dict(game=BAR, iterations=2, method="smoothed", temperature=0.1, cells=20, every=1)
            | dict(initial_policy=still, start=1),
        ),
        "mfglib.exact.methods.FictitiousPlay": (methods.FictitiousPlay, dict(averaging="linear", temperature=0.1)),
        "mfglib.exact.methods.FixedPoint": (methods.FixedPoint, dict(damping=0.5)),
        "mfglib.exact.methods.MirrorDescent": (
            methods.MirrorDescent,
            dict(momentum=True, temperature=0.1, share=0.1, mixing=0.1),
        ),
        "mfglib.exact.corrective.Corrective": (corrective.Corrective, dict(tolerance=0.1, steps=3)),
        "mfglib.rollout.rollout": (
            rollout,
            dict(
                game=GAME, policy=m["policy"], population=s.population, n=10, generator=gen(), start=torch.zeros(10, 1)
            ),
        ),
        "mfglib.recipes.recipe_of": (
            recipes.recipe_of,
            dict(game=GAME, algorithm="algo-1", averaging="linear", seed=1),
        ),
        "mfglib.schedules.Steps": (schedules.Steps, dict(name="geometric", step=0.3)),
        "mfglib.schedules.constant": (schedules.constant, dict(step=0.3)),
        "mfglib.schedules.averaging_of": (schedules.averaging_of, dict(averaging="linear")),
        "mfglib.policies.AffinePolicy": (AffinePolicy, dict(K=eq.K, k=eq.k, std=0.1)),
        "mfglib.policies.NoisePolicy": (NoisePolicy, dict(std=torch.ones(1))),
        "mfglib.policies.MeanPolicy": (MeanPolicy, dict(policy=m["policy"])),
        "mfglib.policies.EpisodeMixture": (EpisodeMixture, dict(policies=[still, m["policy"]], weights=[1.0, 2.0])),
        "EpisodeMixture.episode": (m["mixture"].episode, dict(n=5, generator=gen())),
        "mfglib.populations.Particles": (
            Particles,
            dict(x=torch.rand(4, 50, 1), bandwidth=0.1, domain=m["ring"]),
        ),
        "mfglib.populations.GaussianPath": (GaussianPath, dict(mean=eq.mean, cov=eq.cov)),
        "mfglib.populations.MeanPath": (MeanPath, dict(path=eq.mean)),
        "mfglib.populations.CellPopulation": (CellPopulation, dict(grid=grid, mass=play.population.mass)),
        "CellPopulation.tabulate": (
            CellPopulation.tabulate,
            dict(population=bar.population, domain=BAR.domain, horizon=3, cells=20),
        ),
        "CellPopulation.stream": (
            lambda **o: next(play.population.stream(**o)),
            dict(t=1, n=50, chunk=10, seed=0, part=0, parts=2),
        ),
        "mfglib.exact.grid.Grid": (Grid, dict(game=BAR, cells=20)),
        "mfglib.adapters.gym.BestResponseEnv": (
            gym.BestResponseEnv,
            dict(game=BAR, population=bar.population, action_scale=0.1),
        ),
        "mfglib.adapters.gym.BestResponseVectorEnv": (
            gym.BestResponseVectorEnv,
            dict(game=BAR, population=bar.population, n=3, action_scale=0.1),
        ),
        "BestResponseEnv.step": (stepped(m["env"]), dict(action=np.zeros(1, np.float32))),
        "BestResponseVectorEnv.step": (stepped(m["envs"]), dict(actions=np.zeros((5, 1), np.float32))),
        "deda_fp.distances.wasserstein": (
            distances.wasserstein,
            dict(x=torch.rand(5, 1), y=torch.rand(7, 1), domain=m["ring"]),
        ),
        "deda_fp.distances.wasserstein, plane": (
            distances.wasserstein,
            dict(x=torch.rand(5, 2), y=torch.rand(7, 2)),
        ),
        "deda_fp.distances.flow_wasserstein": (
            distances.flow_wasserstein,
            dict(flow=s.population, x=torch.rand(4, 10, 1), n=10),
        ),
        "deda_fp.distances.flow_wasserstein_gaussian": (
            distances.flow_wasserstein_gaussian,
            dict(flow=s.population, mean=eq.mean, cov=eq.cov, n=10),
        ),
        "deda_fp.distances.policy_error": (
            distances.policy_error,
            dict(policy=s.policy, equilibrium=eq, level=0.1, points=11),
        ),
        "deda_fp.distances.cell_masses": (
            distances.cell_masses,
            dict(population=bar.population, grid=grid, t=1, points=2),
        ),
        "deda_fp.distances.counts": (distances.counts, dict(x=torch.rand(4, 9, 1), grid=grid)),
        "deda_fp.distances.total_variation": (
            distances.total_variation,
            dict(population=bar.population, truth=play.population, t=1),
        ),
        "deda_fp.distances.leak": (distances.leak, dict(population=bar.population, grid=grid, t=1)),
        "deda_fp.finite.regret_of_model": (finite.regret_of_model, dict(game=GAME, model=mean, truth=mean + 0.1)),
        "deda_fp.finite.regret_of_model_on_grid": (
            finite.regret_of_model_on_grid,
            dict(model=bar.population, truth=play.population),
        ),
        "deda_fp.finite.crowd_distance": (
            finite.crowd_distance,
            dict(game=BAR, policy=still, population=play.population, n=10, generator=gen(), t=1),
        ),
        "deda_fp.finite.fit_affine": (finite.fit_affine, dict(game=GAME, policy=s.policy, n=20, generator=gen())),
        "deda_fp.finite.lq_gain": (finite.lq_gain, dict(game=GAME, policy=m["policy"], n=5)),
        "deda_fp.finite.grid_gain": (finite.grid_gain, dict(grid=grid, play=play, n=5, width=0.2)),
        "deda_fp.finite.windows": (finite.windows, dict(grid=grid, mass=play.population.mass.numpy(), width=0.2)),
        "deda_fp.deviators.lower_bound": (
            deviators.lower_bound,
            dict(game=GAME, policy=still, population=s.population, deviators=1, agents=20, seed=0)
            | dict(preset="smoke", sizes=TINY),
        ),
        "deda_fp.examples.Congestion": (
            Congestion,
            dict(c_x=1.0, c_a=1.0, power=1.0, goal=0.5, horizon=3, a_bound=0.2, noise_bound=0.1),
        ),
        "deda_fp.examples.Evacuation": (
            Evacuation,
            dict(c_a=1.0, c_m=0.1, c_exit=1.0, horizon=3, a_bound=0.1, noise_bound=0.04),
        ),
        "deda_fp.examples.Flocking": (
            Flocking,
            dict(c_a=1.0, c_v=1.0, c_p=1.0, c_s=1.0, dt=0.3, horizon=3, noise_std=0.1),
        ),
        "deda_fp.view.overview": (drawn, dict(solution=s, game=GAME, seed=0)),
    }
    for kind in (AgentsConfig, CloningConfig, FlowConfig, LookaheadConfig, NetworkConfig, PPOConfig):
        config = kind()
        table[f"{kind.__module__}.{kind.__name__}"] = kind, {n: getattr(config, n) for n in kind.__dataclass_fields__}
    policies = {
        "cloned": s.policy,
        "affine": m["policy"],
        "noise": still,
        "table": bar_table(grid),
        "response": bar.best_response,
    }
    for name, policy in policies.items():
        table[f"{name} policy.sample"] = policy.sample, dict(t=1, x=x, generator=gen())
        table[f"{name} policy.mean"] = policy.mean, dict(t=1, x=x)
        if name in ("cloned", "table"):
            table[f"{name} policy.log_prob"] = policy.log_prob, dict(t=1, x=x, a=a)
    populations = {
        "flow": s.population,
        "flow on a domain": bar.population,
        "cells": play.population,
        "gaussian": eq.population,
    }
    for name, population in (populations | {"particles": Particles(torch.rand(4, 50, 1, generator=gen()))}).items():
        table[f"{name}.sample"] = population.sample, dict(t=1, n=5, generator=gen())
        table[f"{name}.mean"] = population.mean, dict(t=1)
        table[f"{name}.log_prob"] = population.log_prob, dict(t=1, x=x)
    return table


class Own(BoundedGame):
    horizon, action_dim, a_bound = 3, 1, 0.3
    domain, start, noise = Domain(0.0, 1.0), Law.box(0.0, 1.0), Law.box(-0.05, 0.05)

    def reward(self, t, x, a, population):
        return -((x[:, 0] - 0.5) ** 2) - a[:, 0] ** 2


def bar_table(grid):
    from grids import random_policy

    return random_policy(grid)


def drawn(**arguments):
    plt.close(overview(**arguments))


def stepped(env):
    def step(**action):
        env.reset(seed=0)
        return env.step(**action)

    return step


FULL = {number: torch.full((6, 1), number) for number in (math.nan, math.inf, 1e30, -1.0)}
HOSTILE = [
    None, True, 0, -1, 1, 2, 3, 7, 10**15, -(2**63), 0.0, 0.5, 1.5, -0.3, 1e-30, 1e30, 1e200, 1j,
    math.nan, math.inf, -math.inf, "", "x", "uniform", "cpu", "ü\0", b"x", object(), int, len,
    (), [], {}, [1.0], [0.0, 1.0], [[1.0, 0.0], [0.0, 1.0]], (1, "a"), {"a": 1}, np.float32(0.5), np.int64(2),
    np.array(0.1), np.zeros(0), np.ones(3), np.ones((2, 2)), np.full((4, 1), math.nan), np.array(["a"]),
    torch.tensor(0.1), torch.zeros(0), torch.zeros(0, 1), torch.ones(3), torch.ones(5, 1), torch.ones(6, 2),
    torch.ones(4, 50, 2), torch.ones(2, 2, 2, 2), *FULL.values(), torch.ones(6, 1).double(),
    torch.ones(6, 1, dtype=torch.long), torch.ones(6, 1, dtype=torch.bool), torch.ones(6, 1, dtype=torch.complex64),
]  # fmt: skip
PATHS = {"directory"}
# What a function is told about, beyond the name of its argument: the member of the game that it is.
ALIASES = {
    "game": r"game\.|class|Own",
    "a_bound": r"game\.",
    "generator": "random",
    "random": "generator",
    "name": "averaging|law",
    "horizon": "t:",
    "actions": "action",
}


def no_numbers(value):
    """Whether a value holds NaN or infinity."""
    if isinstance(value, torch.Tensor):
        return value.numel() > 0 and not value.isfinite().all()
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fc" and not np.isfinite(value).all()
    if isinstance(value, (float, complex, np.floating)):
        return not math.isfinite(abs(value))
    if isinstance(value, (list, tuple)):
        return any(map(no_numbers, value))
    return False


def has_nan(value):
    if isinstance(value, torch.Tensor):
        return bool(value.isnan().any()) if value.is_floating_point() else False
    if isinstance(value, np.ndarray):
        return value.dtype.kind == "f" and bool(np.isnan(value).any())
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    if isinstance(value, (list, tuple)):
        return any(map(has_nan, value))
    return False


def fault(name, function, arguments, changed):
    """What is wrong with the answer to a call, or None."""

    def late(*_):
        raise SystemExit("too late")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            answer = function(**arguments)
    except SystemExit:
        return "hangs"
    except (ValueError, TypeError, ArithmeticError, OSError) as error:
        if isinstance(error, OSError) and not PATHS & changed.keys():
            return f"{type(error).__name__}: {error}"
        names = "|".join([re.escape(n) for n in changed] + [ALIASES[n] for n in changed if n in ALIASES])
        return None if re.search(rf"\b({names})", str(error)) else f"{type(error).__name__} names nothing: {error}"
    except NotImplementedError:
        return None
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if has_nan(answer) and not any(no_numbers(value) for value in changed.values()):
        return f"answers {answer}"
    return None


def test_every_public_name_is_tried():
    known = " ".join(calls())
    for module in ("mfglib", "mfglib.games", "mfglib.exact"):
        for name in importlib.import_module(module).__all__:
            if not name.startswith(("LQ", "Grid", "Game", "Population", "Solution")):  # results and protocols
                assert re.search(rf"\b{name}\b", known), f"{module}.{name}"
    for module in ("policies", "populations", "rollout", "schedules"):
        loaded = importlib.import_module(f"mfglib.{module}")
        for name, value in vars(loaded).items():
            if inspect.isclass(value) and value.__module__ == loaded.__name__ and name[0] != "_":
                helpers = (
                    "Averaging",
                    "KnowsActions",
                    "Rollout",
                    "Repeated",
                    "Episode",
                )  # protocols, results, and what is made for one
                assert name in helpers or re.search(rf"\.{name}\b", known), f"{module}.{name}"


@pytest.mark.parametrize("name", calls())
def test_right_arguments_have_right_answers(name):
    function, arguments = calls()[name]
    assert fault(name, function, arguments, {}) is None


NAMES = list(calls())


@settings(max_examples=INPUTS, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_hostile_arguments_are_named(data):
    name = data.draw(st.sampled_from(NAMES), label="name")
    function, arguments = calls()[name]
    chosen = data.draw(
        st.lists(st.sampled_from(sorted(arguments)), min_size=1, max_size=2, unique=True), label="arguments"
    )
    changed = {n: HOSTILE[data.draw(st.integers(0, len(HOSTILE) - 1), label=n)] for n in chosen}
    wrong = fault(name, function, arguments | changed, changed)
    assert wrong is None, f"{name}({changed}): {wrong}"


if __name__ == "__main__":  # every name, every argument, every hostile value
    for name, (function, arguments) in calls().items():
        for argument in arguments:
            for value in HOSTILE:
                wrong = fault(name, function, calls()[name][1] | {argument: value}, {argument: value})
                if wrong:
                    print(f"{name}({argument}={str(value)[:40]!r}): {str(wrong)[:160]}".replace("\n", " "), flush=True)
