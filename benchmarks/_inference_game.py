"""What `inference.py` measures: the games with what was learned, and what is asked of it, for n agents or points."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from _inference import Call, coarsened, density, draw, noise, of_shape, play, reward

from deda_fp.catalogue import GAMES
from deda_fp.store import stored_run
from mfglib.exact import grid_equilibrium
from mfglib.exact.grid import Grid
from mfglib.policies import EpisodeMixture
from mfglib.populations import CellPopulation, Particles
from mfglib.presets import ALGORITHMS
from mfglib.protocols import Policy
from mfglib.seeds import generator

AGENTS = 5000  # the paper's number of trajectories
JUDGE = {1: 100, 2: 20}  # cells along the longest side in which draws are counted
FINE = {1: 100, 2: 40}  # and in which densities are compared
RANDN, TABLE, FLOW = "torch.randn", "DEDA-FP, table", "DEDA-FP, flow"
KERNELS, KEPT = "Algo 1 and 2, kernels", "Algo 2, kept agents"
WIDE, SMALL = "2x256 Gaussian", "2x64 Gaussian"


@dataclass(frozen=True)
class Sizes:
    """How much a preset measures."""

    agents: tuple[int, ...] = (1000, AGENTS, 10_000, 100_000, 1_000_000, 10_000_000)
    limit: float = 10.0
    """seconds: a method stops at the n that would take longer"""
    least: int = 5
    """runs that a median is of, where `agents` is at most 5,000; for more, as many as take `enough` seconds"""
    enough: float = 2.0
    budget: float = 3.0
    """seconds of drawing for accuracy at equal time"""
    cells: tuple[int | None, int | None] = (None, None)
    """of the exact equilibrium, in one dimension and in two"""
    tolerance: float = 0.005
    flows: tuple[tuple[int, int], ...] = ((4, 16), (8, 32), (8, 64), (16, 128))
    """bins and width of flows that are compared"""
    shown: int = 20_000
    """agents that they are fitted to, and as many others that judge them"""
    steps: int = 400
    """of the fits"""
    tables: tuple[tuple[int, ...], ...] = ((100, 200, 400, 800, 1600), (40, 80, 160, 320))
    """cells of tables that are compared, in one dimension and in two"""
    kernels: int = 100_000
    """agents and points of the density by kernels that has a target"""
    counted: int = 10_000_000


SMOKE = dict(agents=(1000, AGENTS), least=1, enough=0.1, budget=0.2, cells=(100, 20), tolerance=0.35)
SMOKE |= dict(
    flows=((4, 8), (4, 16)), shown=2000, steps=10, tables=((100, 800), (40, 160)), kernels=2000, counted=100_000
)
FULL = Sizes()
PRESETS = {"lecture": Sizes(limit=3.0, enough=1.0, budget=1.0), "paper": FULL, "smoke": Sizes(**SMOKE)}


class Trained:
    """One game with what was learned, and its exact equilibrium."""

    def __init__(self, name: str, preset: str, sizes: Sizes, results: str) -> None:
        self.name, self.game, self.sizes = name, GAMES[name], sizes
        found = {algorithm: stored_run(name, algorithm, preset=preset, results=results) for algorithm in ALGORITHMS}
        self.times = range(self.game.horizon + 1)
        self.policy, self.flow = found["deda-fp"].policy, found["deda-fp"].population
        start = time.perf_counter()
        self.table = CellPopulation.tabulate(self.flow, self.game.domain, self.game.horizon)
        self.seconds_table = time.perf_counter() - start
        self.kept: Particles = found["algo-2"].population  # of the last iteration: drawn from, and kernels on them
        self.densities = {TABLE: self.table, FLOW: self.flow, KERNELS: self.kept}
        self.drawn = {TABLE: self.table, FLOW: self.flow, KEPT: self.kept}
        self.trained = f"2x{self.policy.hidden[0].out_features} mixture, trained"
        self.policies: dict[tuple[str, str], Policy] = {  # by method and policy
            ("Algo 1", self.trained): found["algo-1"].policy,
            ("Algo 2", self.trained): found["algo-2"].policy,
        }
        for label, width in ((SMALL, 64), (WIDE, 256)):
            many = EpisodeMixture([of_shape(self.game, width) for _ in found["algo-1"].policy.policies])
            self.policies |= {("Algo 1", label): many, ("Algo 2", label): of_shape(self.game, width)}
        d, options = self.game.state_dim, dict(tolerance=self.sizes.tolerance, progress=False)
        truth = grid_equilibrium(self.game, self.sizes.cells[d - 1], **options).population
        self.grid, self.judge = (Grid(self.game, min(n[d], *truth.grid.shape)) for n in (FINE, JUDGE))
        self.exact, self.coarse = (coarsened(grid, truth.grid.x, truth.mass) for grid in (self.grid, self.judge))

    def row(self, query: str, method: str, n: int, seconds: float, policy: str = "", **more: float) -> dict:
        return dict(game=self.name, query=query, method=method, policy=policy, n=n, seconds=seconds) | more


# --- the four questions: calls by method and policy

Calls = dict[tuple[str, str], Call]


def one_time(one: Trained, n: int, times: range | None = None) -> Calls:
    """The population at the last t. (A roll-out to there is a roll-out at all t: measured once, with those.)"""
    times = one.times[-1:] if times is None else times
    calls: Calls = {(RANDN, ""): partial(noise, one.game.state_dim, times, n)}
    return calls | {(name, ""): partial(draw, population, times, n) for name, population in one.drawn.items()}


def all_times(one: Trained, n: int) -> Calls:
    """The whole population."""
    calls = {key: partial(play, one.game, policy, n) for key, policy in one.policies.items()}
    return one_time(one, n, one.times) | calls


def densities(one: Trained, n: int) -> Calls:
    """At n points of each t, where the agents are; the kernels on the agents that the run has kept."""
    x = torch.stack(draw(one.table, one.times, n))
    return {(name, ""): partial(density, population, x) for name, population in one.densities.items()}


def rewards(one: Trained, n: int) -> Calls:
    """One reward of n agents half-way, which is what learning pays; the kernels are on the very agents who ask."""
    t = one.game.horizon // 2
    x = one.table.sample(t, n, generator(0, "agents"))
    a = float(one.game.a_bound) * (2 * torch.rand(n, one.game.action_dim, generator=generator(0, "actions")) - 1)
    asked = one.densities | {KERNELS: Particles(x.expand(len(one.times), *x.shape))}
    return {(name, ""): partial(reward, one.game, population, t, x, a) for name, population in asked.items()}


QUESTIONS: dict[str, Callable[[Trained, int], Calls]] = {
    "all t": all_times,
    "one t": one_time,
    "density": densities,
    "reward": rewards,
}
