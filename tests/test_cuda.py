"""Everything on a GPU, by `device="cuda"` alone. Skipped where there is none."""

import pytest
import torch
from tiny import TINY, tiny

from mfglib import exploitability, replay, solve
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.learn.cloning import CloningConfig, Memory, clone
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.learn.networks import Networks
from mfglib.populations import CellPopulation
from mfglib.seeds import generator

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GAMES = {"LQ": LinearQuadratic(horizon=3), "beach": BeachBar(horizon=3), "rooms": FourRooms(horizon=3)}


@pytest.mark.parametrize("algorithm", ["deda-fp", "algo-1", "algo-2"])
@pytest.mark.parametrize("name", GAMES)
def test_every_algorithm_runs_there_and_resumes(name, algorithm, tmp_path):
    game = GAMES[name]
    options = dict(device="cuda", sizes={"certify": dict(cells=40)} if name == "rooms" else {})
    tiny(game, algorithm, iterations=1, directory=tmp_path, **options)
    solution = tiny(game, algorithm, iterations=2, directory=tmp_path, **options)
    *_, last = replay(game, tmp_path)
    x = solution.population.sample(1, 100, generator(0, "sample", device="cuda"))
    assert x.is_cuda and solution.population.log_prob(1, x).is_cuda
    a, again = (step.policy.sample(0, x, generator(0, "act", device="cuda")) for step in (solution, last))
    assert a.is_cuda and torch.equal(a, again)
    assert (solution.history["exploitability"].dropna() >= 0).all()


def test_a_gpu_learns_what_a_cpu_learns():
    """Other random numbers, the same quality."""
    game, last = LinearQuadratic(), []
    for device in ("cpu", "cuda"):
        options = dict(averaging="geometric", preset="lecture", sizes={"flow": dict(agents=5000)}, progress=False)
        history = solve(game, iterations=3, device=device, **options).history
        last.append(history["exploitability"].iloc[-1])
    assert last[1] < 2 * last[0] + 0.01


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")
def test_inner_loops_do_not_wait_for_the_host():
    """Steps of cloning and of the flow's fit, with synchronisation forbidden but for the beginning and the end."""
    random = generator(0, "test", device="cuda")
    x = torch.rand(4, 500, 1, generator=random, device="cuda")
    flow = TimeFlow(3, 1, FlowConfig()).cuda()
    policy = GaussianPolicy(Networks(3, torch.zeros(1), torch.ones(1), torch.ones(1), (16, 16))).cuda()
    memory = Memory(1, 1, device="cuda")
    memory.add(x, torch.rand(3, 500, 1, generator=random, device="cuda"), 1, random)
    waits = []
    for steps in (5, 50):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            fit_flow(flow, x, FlowConfig(), random, steps=steps)
            clone(policy, memory, [1.0], CloningConfig(**TINY["cloned"] | dict(steps=steps)), random)
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
    solution = tiny(game, iterations=1, device="cuda")
    assert exploitability(game, solution.policy, device="cuda", n=1000).value >= 0
