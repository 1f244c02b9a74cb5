"""Everything on a GPU, by `device="cuda"` alone. Skipped where there is none."""

import dataclasses

import pytest
import torch
from test_fictitious_play import TINY, TINY_AHEAD

from mfglib import exploitability, solve
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.learn.cloning import Memory, clone
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.populations import CellPopulation
from mfglib.presets import preset_config
from mfglib.seeds import generator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GAMES = {"LQ": LinearQuadratic(horizon=3), "beach": BeachBar(horizon=3), "rooms": FourRooms(horizon=3)}


@pytest.mark.parametrize("algorithm", ["deda-fp", "algo-1", "algo-2"])
@pytest.mark.parametrize("name", GAMES)
def test_every_algorithm_runs_there_and_resumes(name, algorithm, tmp_path):
    game = GAMES[name]
    config = TINY if name == "LQ" else dataclasses.replace(TINY_AHEAD, judge_cells=20)
    options = dict(config=config, device="cuda", progress=False)
    solve(game, algorithm, iterations=1, directory=tmp_path, **options)
    solution = solve(game, algorithm, iterations=2, directory=tmp_path, **options)
    x = solution.population.sample(1, 100, generator(0, "sample", device="cuda"))
    assert x.is_cuda and solution.population.log_prob(1, x).is_cuda
    assert solution.policy.sample(0, x, generator(0, "act", device="cuda")).is_cuda
    assert (solution.history["exploitability"].dropna() >= 0).all()


def test_a_gpu_learns_what_a_cpu_learns():
    """Other random numbers, the same quality."""
    game, last = LinearQuadratic(), []
    for device in ("cpu", "cuda"):
        config = dataclasses.replace(preset_config("lecture", game), agents=5000)
        history = solve(game, iterations=3, averaging="geometric", config=config, device=device, progress=False).history
        last.append(history["exploitability"].iloc[-1])
    assert last[1] < 2 * last[0] + 0.01


def test_inner_loops_do_not_wait_for_the_host():
    """Steps of cloning and of the flow's fit, with synchronisation forbidden but for the beginning and the end."""
    random = generator(0, "test", device="cuda")
    x = torch.rand(4, 500, 1, generator=random, device="cuda")
    flow = TimeFlow(3, 1, FlowConfig()).cuda()
    policy = GaussianPolicy(3, torch.zeros(1), torch.ones(1), torch.ones(1), (16, 16)).cuda()
    memory = Memory(1, 1, device="cuda")
    memory.add(x, torch.rand(3, 500, 1, generator=random, device="cuda"), 1, random)
    waits = []
    for steps in (5, 50):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            fit_flow(flow, x, FlowConfig(), random, steps=steps)
            config = dataclasses.replace(TINY.cloning, steps=steps)
            clone(policy, memory, [1.0], config, random)
        names = ("aten::item", "aten::_local_scalar_dense", "aten::nonzero")
        waits.append(sum(event.count for event in profile.key_averages() if event.key in names))
    assert waits[0] == waits[1]  # as many in ten times the steps


def test_tables_live_there():
    game = GAMES["rooms"]
    flow = TimeFlow(game.horizon, 2, FlowConfig(), game.domain).cuda()
    table = CellPopulation.tabulate(flow, game.domain, game.horizon, 40, device="cuda")
    x = table.sample(1, 100_000, generator(0, "table", device="cuda"))
    assert x.is_cuda and game.domain.contains(x).all() and table.log_prob(1, x).isfinite().all()
    counts = torch.bincount(table.grid.find(x), minlength=len(table.grid.x)).double().cpu() / len(x)
    assert 0.5 * (counts - table.mass[1].cpu()).abs().sum() < 0.1


def test_the_judge_takes_policies_from_there():
    game = GAMES["LQ"]
    solution = solve(game, iterations=1, config=TINY, device="cuda", progress=False)
    assert exploitability(game, solution.policy, device="cuda", n=1000).value >= 0
