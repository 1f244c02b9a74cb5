"""What `inference.py` measures with: time, peak memory, accuracy of what was drawn, counts by several processes.

Each call that is measured is a `functools.partial` of a function below, which can be sent to a process of its own.
"""

import multiprocessing
import pickle
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from torch import Tensor

from deda_fp.distances import counts
from deda_fp.store import processor
from mfglib.exact.grid import Grid
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import NetworkConfig, Networks
from mfglib.populations import CellPopulation
from mfglib.protocols import Game, Policy, Population
from mfglib.rollout import rollout
from mfglib.seeds import generator

# Agents simulated or drawn at once: what they need stays in the cache. With 10^5 agents in one batch a 2 x 256 roll-out
# took 1.6 times as long, the flow 1.5 times, the table 1.3 times; batches of 5,000 were no faster (one core).
BATCH = 20_000
Call = Callable[[], object]


# --- what is asked


def play(game: Game, policy: Policy, n: int, seed: int = 0, batch: int = BATCH) -> Tensor:
    """States (T+1, n, d) of n agents who follow the policy, `batch` at a time; 1 is one trajectory after the other."""
    random, x = generator(seed, "play"), torch.empty(game.horizon + 1, n, game.state_dim)
    for part in x.split(batch, 1):
        part.copy_(rollout(game, policy, n=part.shape[1], generator=random, rewards=False).x)
    return x


def draw(population: Population, times: Sequence[int], n: int, seed: int = 0) -> list[Tensor]:
    """n independent states (n, d) at each of the times."""
    random, x = generator(seed, "draw"), [torch.empty(n, len(population.mean(t))) for t in times]
    for t, states in zip(times, x, strict=True):
        for part in states.split(BATCH):
            part.copy_(population.sample(t, len(part), random))
    return x


def noise(d: int, times: Sequence[int], n: int, seed: int = 0) -> list[Tensor]:
    """The floor: as many normal numbers."""
    random = generator(seed, "noise")
    return [torch.randn(n, d, generator=random) for _ in times]


def density(population: Population, x: Tensor) -> list[Tensor]:
    """Log-density at points x: (T+1, n, d), those of each time."""
    return [torch.cat([population.log_prob(t, part) for part in points.split(BATCH)]) for t, points in enumerate(x)]


def reward(game: Game, population: Population, t: int, x: Tensor, a: Tensor) -> Tensor:
    """Of agents x: (n, d) with actions a: (n, k), against the population: (n,)."""
    parts = zip(x.split(BATCH), a.split(BATCH), strict=True)
    return torch.cat([game.reward(t, *part, population) for part in parts])


def of_shape(game: Game, hidden: int) -> GaussianPolicy:
    """An untrained network of the paper's shape, 2 hidden layers of that width: good for its time only."""
    networks = Networks.of(game, NetworkConfig((hidden, hidden)))
    return GaussianPolicy(networks, bound=True).requires_grad_(False)


# --- time and memory


def timings(calls: dict, *, repeats: int = 7, least: int = 0, enough: float = 4.0) -> dict:
    """Median seconds of each call, and of how many runs, interleaved: as many as take `enough` seconds, from `least`
    to `repeats`. The first run of each does not count, unless it took longer than that and is the only one."""
    first = {name: _seconds(call) for name, call in calls.items()}
    runs = {name: max(least, min(repeats, int(enough / s))) for name, s in first.items()}
    times = {name: [] if runs[name] else [s] for name, s in first.items()}
    for i in range(repeats):
        for name, call in calls.items():
            if i < runs[name]:
                times[name].append(_seconds(call))
    return {name: (statistics.median(t), len(t)) for name, t in times.items()}


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def processes(n: int) -> ProcessPoolExecutor:
    """n processes with nothing done yet in them. A plain fork would not do: it copies what the parent has in use, and
    OpenMP's threads do not survive it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mfglib.fictitious_play"])  # torch is imported once, not in each of them
    return ProcessPoolExecutor(n, mp_context=context)


def peak_memory(call: Call, warm: Call | None = None) -> float:
    """MB by which a process of its own grows at its largest while it runs `call`, after it has run `warm`, a smaller
    one: what the libraries need for themselves is not counted."""
    with processes(1) as pool:  # bytes: torch would send its tensors through shared memory
        return pool.submit(_growth, pickle.dumps((call, warm, torch.get_num_threads()))).result()


def _growth(pickled: bytes) -> float:
    call, warm, threads = pickle.loads(pickled)
    torch.set_num_threads(threads)
    if warm is not None:
        warm()
    before, ballast = _largest(), []
    while _largest() == before:  # so far less than it once had: without this, growth up to that would not show
        ballast.append(np.ones(1 << 14))
    before = _largest()
    call()
    return _largest() - before


def _largest() -> float:
    """MB that this process has had in memory at most."""
    unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def machine() -> str:
    """The processor and the number of threads that torch uses."""
    return f"{processor()}, {torch.get_num_threads()} threads"


# --- accuracy


def coarsened(grid: Grid, x: Tensor, mass: Tensor) -> Tensor:
    """Mass (T+1, m) in smaller cells with centres x: (m, d), added up in the cells of the grid: (T+1, cells)."""
    return torch.zeros(len(mass), len(grid.x), dtype=mass.dtype).index_add(1, grid.cell(x), mass)


def distance(mass: Tensor, truth: Tensor) -> float:
    """Total variation between two laws on cells, (T+1, cells) each, mean over t >= 1 (that of t = 0 is given); what
    the first lacks to 1 lies in walls or outside."""
    return float(0.5 * ((mass - truth).abs().sum(1) + (1 - mass.sum(1)).abs())[1:].mean())


def sampling_noise(truth: Tensor, n: int, seed: int = 0) -> float:
    """The distance of n independent samples of the truth itself: nobody who draws n agents does better."""
    random = np.random.default_rng(seed)
    mass = truth.numpy() / truth.numpy().sum(1, keepdims=True)
    return distance(torch.from_numpy(np.stack([random.multinomial(n, row) for row in mass]) / n), truth)


def equal_time(
    sample: Callable[[int, int], Sequence[Tensor]], grid: Grid, truth: Tensor, budget: float, first: int
) -> Iterator[tuple[float, int, float]]:
    """(seconds, agents, distance of their counts to the truth) while sample(n, seed) draws more and more agents at all
    times, until the budget in seconds is spent: of the first ones, each time that there are twice as many, and at the
    end. Only drawing is timed."""
    sample(first, 0)
    seconds, n, chunk, seen, found = 0.0, 0, first, 0, torch.zeros(truth.shape, dtype=torch.long)
    while seconds < budget:
        start = time.perf_counter()
        x = sample(chunk, n + 1)  # a seed that was not used before
        seconds += time.perf_counter() - start
        found += counts(x, grid)
        n += chunk
        if n >= 2 * seen or seconds >= budget:
            seen = n
            yield seconds, n, distance(found.double() / n, truth)
        left = int(n * (budget / seconds - 1))  # agents, at the speed so far
        chunk = max(first, min(n, left, 5 * BATCH))


def count_stream(table: CellPopulation, t: int, n: int, part: int = 0, parts: int = 1) -> Tensor:
    """How many of n agents at time t are in each of the table's cells: one pass, with the memory of one chunk."""
    found = torch.zeros(len(table.grid.x), dtype=torch.long)
    for x in table.stream(t, n, part=part, parts=parts):
        found += torch.bincount(table.grid.find(x), minlength=len(found))
    return found


def count_in_processes(table: CellPopulation, t: int, n: int, parts: int) -> Tensor:
    """The same counts, by so many processes."""
    with processes(parts) as pool:
        jobs = [pool.submit(_counted, pickle.dumps((table, t, n, part, parts))) for part in range(parts)]
        return torch.from_numpy(sum(job.result() for job in jobs))


def _counted(pickled: bytes) -> np.ndarray:
    torch.set_num_threads(1)  # a core each
    return count_stream(*pickle.loads(pickled)).numpy()
