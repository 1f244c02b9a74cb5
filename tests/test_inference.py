"""What the benchmark of the population at scale measures with (`benchmarks/_inference.py`)."""

import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import _inference
import inference
from _inference_game import (
    FLOW,
    KEPT,
    KERNELS,
    PRESETS,
    RANDN,
    SMALL,
    TABLE,
    WIDE,
    Sizes,
    Trained,
    all_times,
    densities,
    rewards,
)

from mfglib.exact import grid_fictitious_play
from mfglib.exact.grid import Grid
from mfglib.games import BeachBar
from mfglib.policies import NoisePolicy
from mfglib.populations import CellPopulation, Particles

GAME = BeachBar(horizon=2)


@pytest.fixture(scope="module")
def one():
    """A `Trained` without training: the population of exact fictitious play in place of flow, policies that drift."""
    exact = grid_fictitious_play(GAME, 1, cells=40).population
    made = Trained.__new__(Trained)
    made.name, made.game, made.sizes, made.times = "beach-bar", GAME, Sizes(agents=(200, 400), least=1), range(3)
    made.table = CellPopulation.tabulate(exact, GAME.domain, GAME.horizon, 40)
    made.densities = {TABLE: made.table, FLOW: exact, KERNELS: Particles(torch.rand(3, 50, 1))}
    made.drawn = {TABLE: made.table, FLOW: exact, KEPT: made.densities[KERNELS]}
    made.policies = {(m, p): NoisePolicy(torch.full((1,), 0.1)) for m in ("Algo 1", "Algo 2") for p in (SMALL, WIDE)}
    made.judge = made.grid = exact.grid
    made.coarse = made.exact = exact.mass
    return made


def test_timings_are_medians_of_interleaved_runs_and_the_first_does_not_count():
    order = []
    calls = {name: partial(order.append, name) for name in "ab"}
    assert {n for _, n in _inference.timings(calls, repeats=3).values()} == {3}
    assert order == ["a", "b"] * 4
    naps = iter([0.2, 0.01, 0.03, 0.02])
    seconds, runs = _inference.timings({"nap": lambda: time.sleep(next(naps))}, repeats=3, enough=9.0)["nap"]
    assert runs == 3 and 0.02 <= seconds < 0.03
    naps = iter([0.05])
    seconds, runs = _inference.timings({"nap": lambda: time.sleep(next(naps))}, enough=0.01)["nap"]
    assert runs == 1 and seconds >= 0.05


def test_peak_memory_sees_an_allocation_of_known_size_even_after_a_larger_one():
    """The memory of the larger one is free again, so that nothing grows in a process that does not look closely."""
    ones = partial(np.ones, 5_000_000)  # 40 MB
    assert _inference.peak_memory(ones) == pytest.approx(40, abs=1)
    assert _inference.peak_memory(ones, partial(np.ones, 20_000_000)) == pytest.approx(40, abs=1)


def test_distance_is_total_variation_and_what_is_missing_counts():
    truth = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0], [0.2, 0.3, 0.5]], dtype=torch.float64)
    moved = torch.tensor([[0, 0, 1.0], [0.4, 0.5, 0.1], [0.2, 0.3, 0.5]], dtype=torch.float64)
    assert _inference.distance(truth, truth) == 0
    assert _inference.distance(moved, truth) == pytest.approx(0.05)  # 0.1 and 0; t = 0 does not count
    assert _inference.distance(0.8 * truth, truth) == pytest.approx(0.2)


def test_sampling_noise_is_that_of_a_multinomial_law():
    mass = torch.full((40, 50), 1 / 50, dtype=torch.float64)
    n = 10_000
    expected = 0.5 * 50 * np.sqrt(2 / np.pi * (1 / 50) * (49 / 50) / n)
    assert _inference.sampling_noise(mass, n) == pytest.approx(expected, rel=0.05)


def test_mass_in_coarser_cells_is_summed():
    fine, coarse = Grid(GAME, 40), Grid(GAME, 20)
    mass = torch.rand(3, 40, dtype=torch.float64)
    torch.testing.assert_close(_inference.coarsened(coarse, fine.x, mass), mass.view(3, 20, 2).sum(2))


def test_what_the_equilibrium_draws_is_as_near_as_sampling_noise(one):
    """Agents double from row to row, time rises, and the distance is that of independent samples."""
    found = list(_inference.equal_time(partial(_inference.draw, one.table, one.times), one.judge, one.exact, 0.2, 100))
    seconds, agents, tv = (np.array(v) for v in zip(*found, strict=True))
    assert (np.diff(seconds) > 0).all() and seconds[-1] >= 0.1 and list(agents[:4]) == [100, 200, 400, 800]
    floor = [_inference.sampling_noise(one.exact, int(n)) for n in agents]
    np.testing.assert_allclose(tv, floor, rtol=0.4)


def test_two_processes_count_what_one_counts(one):
    alone = _inference.count_stream(one.table, 1, 600_000)
    assert alone.sum() == 600_000
    assert torch.equal(alone, _inference.count_in_processes(one.table, 1, 600_000, 2))


def test_batches_do_not_change_how_many_agents_there_are(one, monkeypatch):
    monkeypatch.setattr(_inference, "BATCH", 64)
    policy = one.policies["Algo 2", WIDE]
    for x in (_inference.play(GAME, policy, 150, batch=64), torch.stack(_inference.draw(one.table, one.times, 150))):
        assert x.shape == (3, 150, 1) and GAME.domain.contains(x.flatten(0, 1)).all()
        assert len(x[2].unique()) == 150
    x = torch.rand(3, 150, 1)
    whole = torch.stack([one.table.log_prob(t, x[t]) for t in range(3)])
    torch.testing.assert_close(torch.stack(_inference.density(one.table, x)), whole)


def test_loops_are_scaled_and_say_so(one):
    rows = inference.loops(one)
    assert {r["method"] for r in rows} == {"Algo 1, loop", "Algo 2, loop"} and {r["policy"] for r in rows} == {WIDE}
    for method in ("Algo 1, loop", "Algo 2, loop"):
        few, many = (r for r in rows if r["method"] == method)
        assert (few["n"], many["n"]) == (200, 400) and few["scaled_from"] == inference.FEW
        assert many["seconds"] == pytest.approx(2 * few["seconds"])


def test_a_sweep_has_a_row_for_each_method_and_n_and_stops_at_the_limit(one):
    rows = inference.sweep(one, "all t", all_times)
    assert len(rows) == 2 * 8 and {r["method"] for r in rows} == {RANDN, TABLE, FLOW, KEPT, "Algo 1", "Algo 2"}
    assert all(set(r) <= set(inference.COLUMNS) and r["seconds"] > 0 and r["memory_mb"] >= 0 for r in rows)
    for question in (densities, rewards):
        assert {m for m, _ in question(one, 100)} == {TABLE, FLOW, KERNELS}
    naps = {("slow", ""): partial(time.sleep, 0.02), ("fast", ""): partial(time.sleep, 0.0)}
    one.sizes, whole = Sizes(agents=(1, 10, 100), least=1, enough=0.01, limit=0.1), one.sizes
    ran = [(r["method"], r["n"]) for r in inference.sweep(one, "nap", lambda one, n: naps)]
    one.sizes = whole
    assert ran == [("slow", 1), ("fast", 1), ("fast", 10), ("fast", 100)]


def test_presets_are_made_of_what_the_rows_ask_for():
    for sizes in PRESETS.values():
        assert 5000 in sizes.agents and sizes.tables[0][-1] >= 800 and sizes.tables[1][-1] >= 160
    assert PRESETS["lecture"].least >= 5
