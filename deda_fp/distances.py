"""Distances between what was learned and what is exact."""

from collections.abc import Sequence

import numpy as np
import ot
import torch
from scipy.stats import norm, wasserstein_distance
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import integer, require_shape, require_states, require_time
from mfglib.exact import LQEquilibrium
from mfglib.exact.grid import Grid
from mfglib.games import Domain
from mfglib.learn.flow import TimeFlow
from mfglib.populations import CellPopulation
from mfglib.protocols import Policy, Population


@checked
def wasserstein(x: Tensor, y: Tensor, domain: Domain | None = None) -> float:
    """W1 between the empirical measures of x: (n, d) and y: (m, d); exact, by quantiles if d = 1, else by POT. The
    distance is Euclidean; in periodic coordinates of a `domain`, the shortest way around.

    Raises TypeError or ValueError that names x or y: for what is no sample, is empty, has numbers that are not finite,
    or has another dimension than the other.
    """
    require_states("x", x)
    require_states("y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"x, y: expected samples of one dimension, got {tuple(x.shape)} and {tuple(y.shape)}")
    for name, states in (("x", x), ("y", y)):
        if not states.numel() or not states.isfinite().all():
            what = "numbers that are not finite" if states.numel() else f"shape {tuple(states.shape)}"
            raise ValueError(f"{name}: expected some states with finite coordinates, got {what}")
    if domain is not None and any(domain.periodic):
        return _around(x, y, domain)
    if x.shape[1] == 1:
        return float(wasserstein_distance(x[:, 0].cpu().numpy(), y[:, 0].cpu().numpy()))
    return float(ot.solve_sample(x.double().cpu().numpy(), y.double().cpu().numpy(), metric="euclidean").value)


def _around(x: Tensor, y: Tensor, domain: Domain) -> float:
    x, y = x.double().cpu(), y.double().cpu()
    if x.shape[1] == 1:
        width = (domain.upper - domain.lower).item()
        places = (((v[:, 0].numpy() - domain.lower[0]) / width) % 1 for v in (x, y))
        return width * float(np.squeeze(ot.wasserstein_circle(*places, p=1)))
    ways = domain.shortest((x[:, None] - y).flatten(0, 1)).norm(dim=1)
    return float(ot.solve(ways.view(len(x), len(y)).numpy()).value)


@torch.no_grad()
@checked
def flow_wasserstein(flow: TimeFlow, x: Tensor, n: int = 20_000) -> np.ndarray:
    """W1(Ḡ_t, empirical measure of x_t) for every t: x (T+1, m, 1) -> (T+1,). The flow enters by its quantiles."""
    require_shape("x", x, flow.horizon + 1, None, 1)
    integer("n", n, at_least=1)
    u = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()[:, None].to(x.device)
    domain = flow.unfold.domain if flow.unfold else None
    return np.array([wasserstein(flow.from_base(t, u), states, domain) for t, states in enumerate(x)])


@torch.no_grad()
@checked
def flow_wasserstein_gaussian(flow: TimeFlow, mean: Tensor, cov: Tensor, n: int = 20_000) -> np.ndarray:
    """W1(Ḡ_t, N(mean_t, cov_t)) for every t, in one dimension, by quantiles: mean (T+1, 1), cov (T+1, 1, 1)."""
    require_shape("mean", mean, flow.horizon + 1, 1)
    require_shape("cov", cov, flow.horizon + 1, 1, 1)
    u = (torch.arange(integer("n", n, at_least=1), dtype=torch.float64) + 0.5) / n
    z = torch.special.ndtri(u).float()[:, None].to(flow.loc.device)
    flow_quantiles = [np.sort(flow.from_base(t, z)[:, 0].double().cpu().numpy()) for t in range(len(mean))]
    exact = [norm.ppf(u.numpy(), m.item(), c.sqrt().item()) for m, c in zip(mean, cov, strict=True)]
    return np.array([np.abs(a - b).mean() for a, b in zip(flow_quantiles, exact, strict=True)])


@checked
def policy_error(policy: Policy, equilibrium: LQEquilibrium, level: float = 0.05, points: int = 201) -> np.ndarray:
    """max_x |mean action − exact mean action| for every t < T, over the x where the equilibrium density is above
    `level` of its peak, divided by the range of exact actions over all these (t, x); one dimension. Returns (T,)."""
    if not 0 < level < 1:
        raise ValueError(f"level: expected a share in (0, 1), got {level!r}")
    integer("points", points, at_least=2)
    width = np.sqrt(-2 * np.log(level))  # a Gaussian falls to `level` of its peak at this many standard deviations
    errors, actions = [], []
    for t in range(len(equilibrium.K)):
        m, s = equilibrium.mean[t].item(), equilibrium.cov[t].sqrt().item()
        x = torch.linspace(m - width * s, m + width * s, points)[:, None]
        exact = equilibrium.policy.mean(t, x)
        errors.append((policy.mean(t, x) - exact).abs().max().item())
        actions.append(exact)
    actions = torch.stack(actions)
    return np.array(errors) / (actions.max() - actions.min()).item()


@torch.no_grad()
@checked
def cell_masses(population: Population, grid: Grid, t: int, points: int = 3) -> Tensor:
    """Mass of the population in each cell of a grid: (m,), by the midpoint rule with `points` to each side of a cell;
    exact for a `CellPopulation` of this grid. What is missing to 1 lies in walls or outside."""
    require_time(t, grid.game.horizon)
    if isinstance(population, CellPopulation) and population.grid.key == grid.key:
        return population.mass[t]
    integer("points", points, at_least=1)
    offsets = (torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5
    offsets = torch.cartesian_prod(*[offsets] * grid.state_dim).view(-1, grid.state_dim) * torch.from_numpy(grid.h)
    x = (grid.x[:, None] + offsets).flatten(0, 1).float()
    return population.log_prob(t, x).double().exp().view(len(grid.x), -1).mean(1).cpu() * grid.volume


@checked
def counts(x: Sequence[Tensor], grid: Grid) -> Tensor:
    """How many of the agents x[t]: (n, d) are in each cell of the grid, at each time: (T+1, m) integers."""
    if not isinstance(x, (list, tuple, Tensor)) or (isinstance(x, Tensor) and x.ndim != 3) or not len(x):
        raise ValueError(f"x: expected the states of each time, got {x!r}")
    for states in x:
        require_states("x", states, grid.state_dim)
    return torch.stack([torch.bincount(grid.cell(states), minlength=len(grid.x)) for states in x])


@checked
def total_variation(population: Population, truth: CellPopulation, t: int) -> float:
    """Total variation distance at time t on the cells of the truth's grid, in [0, 1]: the mass that would have to move,
    what lies in walls or outside included."""
    mass = cell_masses(population, truth.grid, t)
    return 0.5 * float((mass - truth.mass[t]).abs().sum() + (1 - mass.sum()).abs())


@checked
def leak(population: Population, grid: Grid, t: int) -> float:
    """Share of the population that is in walls or outside the domain: what its density leaves to 1, as far as the
    midpoint rule can tell."""
    return 1 - float(cell_masses(population, grid, t, points=5).sum())
