"""Certificates: how much one agent could gain by leaving the crowd, by the exact solver that knows the game."""

from typing import Any

import torch

from mfglib.arguments import checked
from mfglib.checks import device_name, integer
from mfglib.exact.grid_judge import GridJudge
from mfglib.exact.lq_judge import LQJudge
from mfglib.protocols import Exploitability, Game, Policy, Population
from mfglib.seeds import torch_defaults
from mfglib.trial import check_game

JUDGES = (LQJudge, GridJudge)  # the first that is meant for a game judges it


def of(game: Game, cells: int | None = None) -> Any:
    """The judge of a game; `cells` along the longest side of its grid, None for defaults. Raises TypeError or
    ValueError, saying what is missing, if no exact solver knows the game."""
    return _kind(game)(game, cells)


def _kind(game: Game) -> Any:
    return next(kind for kind in JUDGES if kind.meant_for(game))


def require_certifiable(game: Game) -> None:
    """Raise TypeError or ValueError, saying what is missing, unless an exact solver knows `game`: unbounded LQ games,
    and those that a grid can solve (`mfglib.exact.grid.require_grid_game`)."""
    _kind(game).require(game)


def certifiable(game: Game) -> bool:
    """Whether an exact solver knows this game."""
    try:
        require_certifiable(game)
    except (TypeError, ValueError):
        return False
    return True


@checked
def exploitability(
    game: Game,
    policy: Policy,
    *,
    n: int = 20_000,
    cells: int | None = None,
    error: bool = True,
    seed: int = 0,
    device: str = "cpu",
) -> Exploitability:
    """Exploitability of `policy` as it acts: its actions are sampled, in the population that it generates itself.

    Unbounded LQ games: the best response to the policy's mean path is exact (Riccati). For an AffinePolicy so is
    everything else. Any other policy is simulated by n agents in independent groups, and the gap is measured by the
    exact advantage, E_π Σ_t |a_t − a*_t(x_t)|²_{D_t}: unbiased for a given mean path, never negative, and without noise
    where the policy is optimal. The standard error is a jackknife over the groups, mean path included.

    Bounded games: population, value and best response are exact for the game on a grid with `cells` along its longest
    side (200 if d = 1, 40 if d = 2), for actions drawn in each cell, so that the gap is never negative. Its error is
    estimated from half the cells and from repeated draws; `error=False` draws once and leaves it out, which is some
    five times faster. A `EpisodeMixture` is judged as the mixture that it is.

    Raises TypeError or ValueError if no exact solver knows the game, ArithmeticError for actions that are not finite.
    """
    check_game(game)
    options = dict(seed=integer("seed", seed, at_least=0, at_most=None), device=device_name("device", device))
    with torch_defaults(), torch.no_grad():
        return of(game, cells).exploitability(policy, n=n, error=error, **options)


@checked
def best_response_gap(
    game: Game,
    policy: Policy,
    population: Population,
    random: torch.Generator,
    n: int = 2000,
    cells: int | None = None,
    samples: int | None = None,
) -> float:
    """J(BR(μ), μ) − J(π, μ) >= 0 for a policy against a given population: the theorem's ε_br (paper, Section 4).

    Exact best response, and the exact advantage over n simulated agents; on a grid of `cells` for bounded games, with
    `samples` draws of the policy times the number of cells at each time.
    Raises as `exploitability`.
    """
    with torch_defaults(), torch.no_grad():
        return of(game, cells).best_response_gap(policy, population, random, n=n, samples=samples)
