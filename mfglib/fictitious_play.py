"""Fictitious play over three learners. Algo. 1, Algo. 2 and DEDA-FP of the paper differ in the objects only:

            average policy π̄                                        population
algo-1      each agent draws a past best response, every episode    simulated agents, Gaussian kernel
algo-2      one network, cloned from samples of all of them         simulated agents, Gaussian kernel
deda-fp     the same                                                time-conditioned normalizing flow
"""

import contextlib
import copy
import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from mfglib.protocols import Average, BestResponse, Policy, Population, PopulationModel
from mfglib.seeds import Random


@dataclass(frozen=True)
class Step:
    """Iteration k: the best response π*_k (None for k = 0), the average policy π̄_k, its population, and the population
    that π*_k was trained against; losses, and wall seconds by learner.

    Policies and the population are those of the learners, which the next iteration changes: copy what is to stay.
    """

    k: int
    best_response: Policy | None
    policy: Policy
    population: Population
    faced: Population | None
    losses: dict[str, float]
    seconds: dict[str, float]


def fictitious_play(
    response: BestResponse,
    average: Average,
    population: PopulationModel,
    *,
    seed: int = 0,
    device: str = "cpu",
    start: int = 0,
) -> Iterator[Step]:
    """Iterations k = start, start + 1, ... for as long as they are asked for (paper, Algo. 1, 2 and 3).

    Iteration 0 is the population of the first policy, which is no part of the average.
    """
    for k in itertools.count(start):
        random, clock, losses, faced = Random(seed, k, device), Clock(), {}, None
        if k:
            faced = copy.deepcopy(population)
            with clock("best_response"):
                losses |= response.fit(faced, k, random)
            with clock("cloning"):
                losses |= average.update(response, faced, k, random)
        with clock("population"):
            losses |= population.fit(average.policy, k, random)
        yield Step(k, response.policy if k else None, average.policy, population, faced, losses, clock.seconds)


class Clock:
    """Wall seconds of named parts, added up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - begin
