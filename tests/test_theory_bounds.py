"""Derived constants and the bounds that they give (`deda_fp.theory.bounds`)."""

import dataclasses
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch

from deda_fp.theory.bounds import beach_constants, bounds, check, lq_constants, point_flows, random_policies
from deda_fp.theory.errors import policy_distance
from mfglib.exact.tables import TablePolicy
from mfglib.games import BeachBar, LinearQuadratic
from mfglib.judge import of as judge_of
from mfglib.populations import CellPopulation
from mfglib.sources import ROOT

BAR, LQ = BeachBar(horizon=5), LinearQuadratic(horizon=5)
KAPPA = 0.3


@cache
def judge(name):
    return judge_of(BAR, 50) if name == "beach bar" else judge_of(LQ, 150)


def constants(name):
    return beach_constants(judge(name).grid) if name == "beach bar" else lq_constants(judge(name).grid, KAPPA, KAPPA)


def checked(name, c, seed=0):
    j, contraction = judge(name), None if name == "beach bar" else KAPPA
    return check(j, c, random_policies(j, 12, seed, contraction), point_flows(j, 8, seed)).set_index("constant")


@pytest.mark.parametrize("name", ["beach bar", "LQ"])
def test_no_random_pair_is_above_a_constant(name):
    table = checked(name, constants(name))
    assert list(table.index) == ["L", "L_MF", "L_pi", "C_FP"]
    assert (table["share"] <= 1).all() and (table["largest"] > 0).all()


def test_the_check_would_find_constants_that_are_too_small():
    """L of a game in which crowds matter a tenth as much; the others a little below what random pairs show."""
    few = lq_constants(judge_of(LinearQuadratic(c_m=0.1, horizon=5), 150).grid, KAPPA, KAPPA)
    assert checked("LQ", dataclasses.replace(constants("LQ"), L=few.L))["share"]["L"] > 1
    for name in ("LQ", "beach bar"):
        seen = checked(name, constants(name))["largest"]
        small = dataclasses.replace(constants(name), **(0.9 * seen).to_dict())
        assert (checked(name, small)["share"] > 1).all()


def test_lq_constant_for_two_policies_where_the_box_ends():
    """Everybody is sent to an end, where reflection doubles the density, and a few of them a little less far."""
    j = judge_of(LinearQuadratic(horizon=2), 300)
    end, kappa = float(j.grid.x[-1]), 1.0
    a = torch.stack([end - j.grid.x[:, 0], torch.zeros(300)])[:, :, None, None].double()
    b = a.clone()
    b[1, -12:] = -0.02
    policies = [TablePolicy(j.grid, v, torch.ones(2, 300, 1)) for v in (a, b)]
    ratio = j.wasserstein(*(j.crowd([p]) for p in policies)) / policy_distance(*policies)
    assert 1 < ratio <= lq_constants(j.grid, KAPPA, kappa).L_MF


def test_random_policies_are_of_the_class():
    j = judge("LQ")
    for table in random_policies(j, 8, 1, KAPPA):
        assert j.contraction(table) <= KAPPA + 1e-6
        assert table.actions.abs().max() < j.grid.actions.max()  # clipping would be another policy


def test_on_the_beach_no_constant_with_respect_to_w1_holds_on_all_grids():
    """Two crowds, a cell apart, at the edge of where an agent may be: their distance shrinks with the cells, what they
    are worth to the agent does not."""
    ratios = []
    for cells in (50, 100, 200):
        j = judge_of(BAR, cells)
        grid = j.grid
        at_bar = (BAR.bar - grid.x).view(1, cells, 1, 1).expand(BAR.horizon, -1, -1, -1)
        policy = TablePolicy(grid, at_bar, torch.ones(BAR.horizon, cells, 1))  # clipped to the largest speed
        own = j.mass(policy, j.crowd([policy]))[-1]
        edge = int(own.diff().abs().argmax())
        pair = []
        for cell in (edge, edge + 1):
            mass = torch.zeros(BAR.horizon + 1, cells, dtype=torch.float64)
            mass[:, cell] = 1.0
            pair.append(CellPopulation(grid, mass))
        change = abs(j.value(policy, pair[0]) - j.value(policy, pair[1]))
        ratios.append(change / j.wasserstein(*pair))
        assert ratios[-1] <= beach_constants(grid).L
    assert ratios[1] > 1.6 * ratios[0] and ratios[2] > 1.6 * ratios[1]


def test_distance_of_policies():
    j = judge("beach bar")
    shape = (BAR.horizon, 50, 1)
    still, moved = (TablePolicy(j.grid, torch.full((*shape, 1), v), torch.ones(shape)) for v in (0.0, 0.1))
    assert policy_distance(still, moved) == pytest.approx(0.1, rel=1e-6)  # the beach has length 1
    assert policy_distance(still, still) == 0


@pytest.mark.parametrize(("game", "file"), [("beach", "beach-bar"), ("LQ", "lq")])
def test_bounds_of_the_stored_runs_are_never_below_the_truth(game, file):
    """On every iteration of every stored run; of the printed bound with the constants derived here."""
    stored = pd.read_csv(ROOT / f"figures/data/{file}_errors.csv")
    j = judge_of(BeachBar()) if game == "beach" else judge_of(LinearQuadratic())
    if game == "LQ":
        seen = stored[["contraction_reply", "contraction_clone"]].max()  # as in notebook 03
        c, c_m = lq_constants(j.grid, max(0.3, seen["contraction_reply"]), max(1.2, seen["contraction_clone"])), None
        assert seen["contraction_reply"] < 0.3 and seen["contraction_clone"] < 1.5
    else:
        c, c_m = beach_constants(j.grid), BeachBar().c_m
    assert stored["seed"].nunique() == 4
    for _, run in stored.groupby("seed"):
        table = bounds(run, c, c_m)
        assert len(table) == len(run) - 1 and (table["e_true"] > 0).all()
        for column in set(table) - {"iteration", "e_true", "potential"}:
            assert (table[column] >= table["e_true"]).all(), column
        if c_m:
            average = run["e_average"].to_numpy()[1:]
            for k in range(2, len(average) + 1):
                assert average[k // 2 - 1 : k - 1].min() <= table["potential"].iloc[k - 1]


def test_bounds_by_hand():
    """Two iterations of made-up terms."""
    names = (
        "e",
        "e_true",
        "epsilon_cnf",
        "epsilon_br",
        "epsilon_sl",
        "epsilon_sl_uniform",
        "bound",
        "w1_cloning",
        "worse",
    )
    rows = [
        (9, 8, 0.1, *[np.nan] * 6),
        (3, 4, 0.2, 0.5, 0.7, 0.9, 6, 0.01, 0.02),
        (1, 2, 0.3, 0.4, 0.6, 0.8, 5, 0.03, 0.04),
    ]
    table = pd.DataFrame([dict(zip(names, row, strict=True), iteration=k) for k, row in enumerate(rows)])
    c = dataclasses.replace(constants("LQ"), L=2.0, L_MF=3.0, L_pi=5.0, C_FP=7.0, diameter=11.0)
    out = bounds(table, c)
    # C1 = 4 · 2 · 3, C2 = 2 · 2 · 7
    assert out["printed"][1] == pytest.approx(3 / 2 + (2 * 0.4 + 24 * (0.8 + 0.3) + 28) / 2 + 4 * 2 * 0.3)
    assert out["printed"][0] == pytest.approx(3 + 4 * 2 * 0.2)
    second = (0.5 + 4 * 0.1 + 0.4 + 4 * (0.2 + 0.01)) / 2 + 4 * 0.03 + 0.04 + 4 * (11 + 7) / 2
    assert out["constants"][1] == pytest.approx(second)
    assert out["constants"][0] == pytest.approx(0.5 + 4 * 0.1 + 4 * 0.01 + 0.02 + 4 * 11)
    assert list(out["measured"]) == [6, 5] and "span" not in out
    more = table.assign(settling=[np.nan, 8, 12], reach=[np.nan, 6, 10], in_mixture=[np.nan, 0.6, 0.7])
    more = more.assign(span_flow=[1.1, 1.2, 1.3], span_cloning=[np.nan, 1.4, 1.5], span_averaging=[np.nan, 1.6, 1.7])
    out = bounds(more.assign(e_average=[np.nan, 3.5, 2.5]), c, 2.0)
    assert out["policies"][1] == pytest.approx(
        (0.5 + 4 * 0.1 + 0.4 + 4 * (0.2 + 3 * 0.7)) / 2 + (4 * 3 + 5) * 0.6 + 4 * (11 + 7) / 2
    )
    assert out["span"][0] == pytest.approx(0.5 + 1.1 + 1.6 + 0.02 + 1.4)
    assert out["span"][1] == pytest.approx((0.5 + 1.1 + 1.6 + 0.4 + 1.2 + 1.4 + 2 * 0.5 * 12) / 2 + 0.04 + 1.5)
    assert np.isnan(out["potential"][0]) and out["potential"][1] == pytest.approx((3.5 + 0.7 / 2 + 10 / 4) / (1 / 2))


def test_constants_of_other_games():
    with pytest.raises(ValueError, match="BeachBar"):
        beach_constants(judge("LQ").grid)
    with pytest.raises(ValueError, match="LinearQuadratic"):
        lq_constants(judge("beach bar").grid, 0.3, 0.3)
    with pytest.raises(ValueError, match="noise_bound <= 1"):
        beach_constants(judge_of(BeachBar(horizon=2, noise_bound=1.2), 20).grid)
    with pytest.raises(ValueError, match="responses"):
        lq_constants(judge("LQ").grid, -1.0, 0.3)
