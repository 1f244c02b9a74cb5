"""How a population answers: sample(t, n), log_prob(t, x), mean(t)."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from mfglib.arguments import checked
from mfglib.checks import integer, require_shape, require_states, require_time
from mfglib.games.cells import Cells
from mfglib.games.domain import Domain
from mfglib.kernels import log_kernel_sum
from mfglib.protocols import KnowsActions, Population, known_actions
from mfglib.seeds import generator as generator_of


class Particles(KnowsActions):
    """The empirical measure of simulated agents; a local density by Gaussian convolution (paper, Algo. 1 and 2).

    The density is the paper's plain kernel: it knows no edge, and near that of a domain, kernels leak mass over it. In
    periodic coordinates they go around.

    Args:
        x: (T+1, n, d) states of n agents.
        bandwidth: kernel width as a multiple of the coordinate's standard deviation; None for Scott's rule,
            n^(−1/(d+4)). The paper does not state its σ.
        actions: (T, k) their mean actions, for games that ask for them.
        domain: of the states, which says what coordinates are periodic; None for none.

    Raises ValueError for another shape, or a bandwidth that is not a finite number > 0.
    """

    @checked
    def __init__(
        self,
        x: Tensor,
        bandwidth: float | None = None,
        actions: Tensor | None = None,
        domain: Domain | None = None,
    ) -> None:
        if x.ndim != 3 or not x.numel():
            raise ValueError(f"x: expected shape (T+1, n, d) with n > 0, got {tuple(x.shape)}")
        if bandwidth is not None and not 0 < bandwidth < math.inf:
            raise ValueError(f"bandwidth: expected None or a finite number > 0, got {bandwidth!r}")
        self.x, self.actions = x, actions
        self.around = domain if domain is not None and any(domain.periodic) else None
        self.bandwidth = x.shape[1] ** (-1 / (x.shape[2] + 4)) if bandwidth is None else bandwidth

    @checked
    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n agents drawn with replacement: (n, d)."""
        require_time(t, len(self.x) - 1)
        size = (integer("n", n, at_least=0),)
        agents = torch.randint(self.x.shape[1], size, generator=generator, device=self.x.device)
        return self.x[t, agents]

    def mean(self, t: int) -> Tensor:
        return self.x[require_time(t, len(self.x) - 1)].mean(0)

    @checked
    def log_prob(self, t: int, x: Tensor, chunk: int | None = None) -> Tensor:
        """Kernel density estimate at x: (m, d) -> (m,), `chunk` pairs at a time (None: as many as suit the device)."""
        require_states("x", x, self.x.shape[2])
        centre = self.mean(t) if self.around is None else self.around.centre(self.x[t])
        agents, x = self.x[t] - centre, x.to(centre.device) - centre
        if self.around is not None:
            agents, x = self.around.shortest(agents), self.around.shortest(x)
        n, d = agents.shape
        width = self.bandwidth * agents.std(0).clamp_min(1e-12)
        constant = math.log(n) + width.log().sum() + 0.5 * d * math.log(2 * math.pi)
        unit = width * math.sqrt(2 * math.log(2))  # the kernel is 2^(−distance²) in this unit
        if chunk is None:
            chunk = 1 << 17 if x.device.type == "cpu" else 1 << 24  # on a CPU, what stays in the cache of a core
        if self.around is None:
            return log_kernel_sum(x / unit, agents / unit, max(1, chunk // n)) - constant
        images = torch.from_numpy(self.around.images()).to(x)
        seen = [log_kernel_sum((x + shift) / unit, agents / unit, max(1, chunk // n)) for shift in images]
        return torch.stack(seen).logsumexp(0) - constant


class GaussianPath(KnowsActions):
    """A population that is Gaussian at every t: mean (T+1, d), cov (T+1, d, d). Exact for unbounded LQ."""

    @checked
    def __init__(self, mean: Tensor, cov: Tensor, actions: Tensor | None = None) -> None:
        if mean.ndim != 2 or cov.shape != (*mean.shape, mean.shape[1]):
            shapes = f"{tuple(mean.shape)} and {tuple(cov.shape)}"
            raise ValueError(f"mean, cov: expected shapes (T+1, d) and (T+1, d, d), got {shapes}")
        self._mean, self.cov, self.actions = mean, cov, actions

    @checked
    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        values, vectors = torch.linalg.eigh(
            self.cov[require_time(t, len(self.cov) - 1)]
        )  # also right where the covariance is singular
        noise = torch.randn(
            integer("n", n, at_least=0), len(values), generator=generator, dtype=values.dtype, device=values.device
        )
        return self._mean[t] + (noise * values.clamp_min(0).sqrt()) @ vectors.T

    @checked
    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """Raises ValueError where the covariance is singular: there is no density then."""
        mean = self.mean(t)
        require_states("x", x, len(mean))
        if not len(x):
            return x.new_zeros(0)
        if torch.linalg.eigvalsh(self.cov[t])[0] <= 0:
            raise ValueError(f"log_prob: the covariance at t = {t} is singular, so the population has no density")
        law = torch.distributions.MultivariateNormal(mean, self.cov[t], validate_args=False)
        return law.log_prob(x.to(mean))

    def mean(self, t: int) -> Tensor:
        return self._mean[require_time(t, len(self._mean) - 1)]


class MeanPath(KnowsActions):
    """A population that knows only its mean path (T+1, d): all that an LQ game asks for."""

    @checked
    def __init__(self, path: Tensor, actions: Tensor | None = None) -> None:
        require_shape("path", path, None, None)
        self.path, self.actions = path, actions

    def mean(self, t: int) -> Tensor:
        return self.path[require_time(t, len(self.path) - 1)]


class Repeated:
    """A population that will be asked for its log-density at `x`: (n·M, d), states that repeat, and answers with
    `known(t)`: (n·M,), which need not look each of them up."""

    def __init__(self, population: Population, x: Tensor, known: Callable[[int], Tensor]) -> None:
        self.population, self.x, self.known = population, x, known
        self.mean, self.sample = population.mean, getattr(population, "sample", None)
        self.mean_action = getattr(population, "mean_action", None)

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        return self.known(t) if x is self.x else self.population.log_prob(t, x)


CELLS = {1: 800, 2: 160}  # of a table, along the longest side (decision K4)


class CellPopulation(KnowsActions):
    """A density that is constant in each of many cells: mass (T+1, m), on `grid`, the cells.

    A cell is drawn by the alias method (Walker, 1977; Vose, IEEE Trans. Softw. Eng. 17, 1991), then a uniform place in
    it, on `device`. Samples and `log_prob` belong to the same distribution, exactly.

    `means`: (T+1, d) if they are known better than by the mass, else None. `actions`: (T, k) mean actions, if known.
    """

    @checked
    def __init__(
        self,
        grid: Cells,
        mass: Tensor,
        means: Tensor | None = None,
        device: str = "cpu",
        actions: Tensor | None = None,
    ) -> None:
        require_shape("mass", mass, None, len(grid.x))
        self.grid, self.mass, self.means, self.device, self.actions = grid, mass, means, device, actions
        self._tables: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, grid: Cells, population: Population, horizon: int) -> "CellPopulation":
        """Any population, by its log-density at the cells' centres and its own mean.

        The mass of one that only knows its mean, as `MeanPath`, is NaN: it serves games that ask for no density.
        """
        if isinstance(population, CellPopulation) and population.grid.key == grid.key:
            return population
        times, mass = range(horizon + 1), torch.full((), torch.nan, dtype=torch.float64)
        with torch.no_grad():
            if hasattr(population, "log_prob"):
                x = grid.x.float()
                mass = torch.stack([population.log_prob(t, x).double().cpu().exp() * grid.volume for t in times])
            means = torch.stack([population.mean(t).double().cpu() for t in times])
            actions = known_actions(population, horizon)
        actions = None if actions is None else actions.double().cpu()
        return cls(grid, mass.expand(len(times), len(grid.x)), means, actions=actions)

    @classmethod
    @torch.no_grad()
    @checked
    def tabulate(
        cls, population: Population, domain: Domain, horizon: int, cells: int | None = None, device: str = "cpu"
    ) -> "CellPopulation":
        """A table of any population with a density on `domain`, for sampling and densities at a speed no network
        reaches: the density at the centres of `cells` along the longest side (800 if d = 1, 160 if d = 2), scaled to a
        total of 1. How far the table is from the population is set by the number of cells.

        Raises ValueError for more than two dimensions, if the cells' lines miss a wall, and for a population that has
        no mass in the cells.
        """
        if domain.state_dim not in CELLS:
            raise ValueError(f"domain: expected one or two dimensions, got {domain.state_dim}")
        integer("horizon", horizon, at_least=1)
        grid = Cells(domain, CELLS[domain.state_dim] if cells is None else cells)
        x = (torch.from_numpy(grid.lower_corners() + grid.h / 2)).float().to(device)
        density = torch.stack([population.log_prob(t, x).exp().double().cpu() for t in range(horizon + 1)])
        total = density.sum(1, keepdim=True)
        if not (total.isfinite() & (total > 0)).all():
            raise ValueError("population: expected a finite density with some mass in the cells at every time")
        mass = density / total
        means = (mass @ x.double().cpu()).float().to(device)
        return cls(grid, mass, means, device, known_actions(population, horizon))

    @checked
    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n independent states, uniform within their cells: (n, d)."""
        require_time(t, len(self.mass) - 1)
        integer("n", n, at_least=0)
        if not self._tables:
            mass = self.mass.clamp_min(0) / self.mass.clamp_min(0).sum(1, keepdim=True)
            shares, others = zip(*(alias_table(row) for row in mass.numpy()), strict=True)
            places = (torch.from_numpy(v).float() for v in (self.grid.lower_corners(), self.grid.h))
            tables = torch.from_numpy(np.stack(shares)), torch.from_numpy(np.stack(others)), *places
            self._tables = tuple(table.to(self.device) for table in tables)
        share, other, corners, h = self._tables
        options = dict(generator=generator, device=self.device)
        cell = torch.randint(len(corners), (n,), dtype=torch.int32, **options)
        keep = torch.rand(n, **options) < share[t].index_select(0, cell)
        cell = torch.where(keep, cell, other[t].index_select(0, cell))
        place = torch.rand(n, len(h), **options)
        return corners.index_select(0, cell).addcmul_(place, h)

    @checked
    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """Log of the density in the cells of x: (n, d) -> (n,); −inf in walls and outside. On a line between cells, of
        the one above it."""
        require_states("x", x, self.grid.state_dim)
        cell, mass = self.grid.find(x.to(self.device)), self.mass[require_time(t, len(self.mass) - 1)]
        result = (mass.to(cell.device).index_select(0, cell.clamp_min(0)) / self.grid.volume).log()
        missing = torch.where(x.isnan().any(1).to(cell.device), torch.nan, -torch.inf)  # a state that is no number
        return torch.where(cell < 0, missing, result).to(x)

    def mean(self, t: int) -> Tensor:
        require_time(t, len(self.mass) - 1)
        return self.mass[t] @ self.grid.x if self.means is None else self.means[t]

    def density(self, t: int) -> np.ndarray:
        """The density on the whole lattice, NaN in walls: (n_1,) or (n_1, n_2)."""
        values = np.append((self.mass[t] / self.grid.volume).numpy(), np.nan)  # index −1: a wall
        return values[self.grid.index]

    @checked
    def stream(
        self, t: int, n: int, chunk: int = 1 << 18, *, seed: int = 0, part: int = 0, parts: int = 1
    ) -> Iterator[Tensor]:
        """n independent states in chunks (chunk, d), with memory for one of them. Each chunk has a generator of its
        own, from the seed and its number: `parts` processes that take the chunks `part`, part + parts, ... draw
        together what one process draws."""
        chunks = -(-integer("n", n, at_least=1, at_most=None) // integer("chunk", chunk, at_least=1))
        if not 0 <= part < integer("parts", parts, at_least=1):
            raise ValueError(f"part: expected an integer in 0..{parts - 1}, got {part!r}")
        for i in range(part, chunks, parts):
            yield self.sample(t, min(chunk, n - i * chunk), generator_of(seed, "stream", t, i, device=self.device))


def alias_table(mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of probabilities (m,): what share of draws of a uniform cell stay in it (m,), and where the others go (m,).

    `scipy.stats.sampling.DiscreteAliasUrn` is faster on a CPU, but takes no torch generator and no GPU (decision K3).
    """
    m = len(mass)
    scaled = mass * m
    share, other = np.ones(m), np.arange(m)
    small, large = list(np.flatnonzero(scaled < 1)), list(np.flatnonzero(scaled >= 1))
    left = scaled.tolist()
    while small and large:
        i, j = small.pop(), large[-1]
        share[i], other[i] = left[i], j
        left[j] -= 1 - left[i]
        if left[j] < 1:
            small.append(large.pop())
    return share.astype(np.float32), other.astype(np.int32)
