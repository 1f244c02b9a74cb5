"""How a population answers: sample(t, n), log_prob(t, x), mean(t)."""

import math

import torch
from torch import Tensor

from mfglib.checks import require_time


class Particles:
    """The empirical measure of simulated agents; a local density by Gaussian convolution (paper, Algo. 1 and 2).

    The density is the paper's plain kernel: it knows no domain, and near the edge of one, kernels leak mass over it.

    Args:
        x: (T+1, n, d) states of n agents.
        bandwidth: kernel width as a multiple of the coordinate's standard deviation; None for Scott's rule,
            n^(−1/(d+4)). The paper does not state its σ.

    Raises ValueError for another shape, or a bandwidth that is not a finite number > 0.
    """

    def __init__(self, x: Tensor, bandwidth: float | None = None) -> None:
        if x.ndim != 3:
            raise ValueError(f"x: expected shape (T+1, n, d), got {tuple(x.shape)}")
        if bandwidth is not None and not 0 < bandwidth < math.inf:
            raise ValueError(f"bandwidth: expected None or a finite number > 0, got {bandwidth!r}")
        self.x = x
        self.bandwidth = x.shape[1] ** (-1 / (x.shape[2] + 4)) if bandwidth is None else bandwidth

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n agents drawn with replacement: (n, d)."""
        require_time(t, len(self.x) - 1)
        agents = torch.randint(self.x.shape[1], (n,), generator=generator, device=self.x.device)
        return self.x[t, agents]

    def mean(self, t: int) -> Tensor:
        return self.x[require_time(t, len(self.x) - 1)].mean(0)

    def log_prob(self, t: int, x: Tensor, chunk: int | None = None) -> Tensor:
        """Kernel density estimate at x: (m, d) -> (m,), `chunk` pairs at a time (None: as many as suit the device)."""
        centre = self.mean(t)
        agents, x = self.x[t] - centre, x - centre
        n, d = agents.shape
        width = self.bandwidth * agents.std(0).clamp_min(1e-12)
        constant = math.log(n) + width.log().sum() + 0.5 * d * math.log(2 * math.pi)
        unit = width * math.sqrt(2 * math.log(2))  # the kernel is 2^(−distance²) in this unit
        if chunk is None:
            chunk = 1 << 17 if x.device.type == "cpu" else 1 << 24  # on a CPU, what stays in the cache of a core
        return _log_kernel_sum(x / unit, agents / unit, max(1, chunk // n)) - constant


def _log_kernel_sum(x: Tensor, agents: Tensor, rows: int) -> Tensor:
    """log Σ_j 2^(−|x_i − agent_j|²) for x: (m, d) and agents: (n, d), `rows` of x at a time: (m,).

    Differences are taken before they are squared: a matrix product would be no faster, and its cancellation costs two
    digits. exp2, because exp takes 3 times as long in float32, and 30 times where it underflows.
    """
    columns, total = agents.T.contiguous(), x.new_empty(len(x))
    buffers = x.new_empty(2, min(rows, len(x)), len(agents))  # new ones for each part cost five times as long, or GBs
    for part, sums in zip(x.split(rows), total.split(rows), strict=True):
        terms = _square_distance(part, columns, *buffers[:, : len(part)])
        torch.sum(terms.neg_().exp2_(), 1, out=sums)
    result = total.log()
    lost = (total < torch.finfo(x.dtype).tiny ** 0.5).nonzero()[:, 0]  # so far from all agents that terms underflow
    for some in lost.split(rows):
        square = _square_distance(x[some], columns)
        least = square.amin(1)
        result[some] = (least[:, None] - square).exp2().sum(1).log() - least * math.log(2)
    return result


def _square_distance(x: Tensor, columns: Tensor, out: Tensor | None = None, buffer: Tensor | None = None) -> Tensor:
    """x: (m, d), columns: (d, n) -> (m, n), in `out` if given; `buffer` is as large."""
    total = torch.sub(x[:, :1], columns[0], out=out).square_()
    for i in range(1, len(columns)):
        total += torch.sub(x[:, i, None], columns[i], out=buffer).square_()
    return total


class GaussianPath:
    """A population that is Gaussian at every t: mean (T+1, d), cov (T+1, d, d). Exact for unbounded LQ."""

    def __init__(self, mean: Tensor, cov: Tensor) -> None:
        self._mean, self.cov = mean, cov

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        values, vectors = torch.linalg.eigh(
            self.cov[require_time(t, len(self.cov) - 1)]
        )  # also right where the covariance is singular
        noise = torch.randn(n, len(values), generator=generator, dtype=values.dtype, device=values.device)
        return self._mean[t] + (noise * values.clamp_min(0).sqrt()) @ vectors.T

    def log_prob(self, t: int, x: Tensor) -> Tensor:
        """Raises ValueError where the covariance is singular: there is no density then."""
        mean = self.mean(t)
        if torch.linalg.eigvalsh(self.cov[t])[0] <= 0:
            raise ValueError(f"log_prob: the covariance at t = {t} is singular, so the population has no density")
        return torch.distributions.MultivariateNormal(mean, self.cov[t]).log_prob(x.to(mean))

    def mean(self, t: int) -> Tensor:
        return self._mean[require_time(t, len(self._mean) - 1)]


class MeanPath:
    """A population that knows only its mean path (T+1, d): all that an LQ game asks for."""

    def __init__(self, path: Tensor) -> None:
        self.path = path

    def mean(self, t: int) -> Tensor:
        return self.path[require_time(t, len(self.path) - 1)]
