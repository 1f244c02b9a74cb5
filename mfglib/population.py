"""How a population answers: sample(t, n), log_prob(t, x), mean(t)."""

import math

import torch
from torch import Tensor

from mfglib.checks import require_time

EXACT = (
    "donot_use_mm_for_euclid_dist"  # of torch.cdist: by matrix products, close points lose their distance in float32
)


class Particles:
    """The empirical measure of simulated agents; a local density by Gaussian convolution (paper, Algo. 1 and 2).

    Args:
        x: (T+1, n, d) states of n agents.
        bandwidth: kernel width as a multiple of the coordinate's standard deviation; None for Scott's rule,
            n^(−1/(d+4)). The paper does not state its σ.
    """

    def __init__(self, x: Tensor, bandwidth: float | None = None) -> None:
        if x.ndim != 3:
            raise ValueError(f"x: expected shape (T+1, n, d), got {tuple(x.shape)}")
        self.x = x
        self.bandwidth = x.shape[1] ** (-1 / (x.shape[2] + 4)) if bandwidth is None else bandwidth

    def sample(self, t: int, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n agents drawn with replacement: (n, d)."""
        require_time(t, len(self.x) - 1)
        agents = torch.randint(self.x.shape[1], (n,), generator=generator, device=self.x.device)
        return self.x[t, agents]

    def mean(self, t: int) -> Tensor:
        return self.x[require_time(t, len(self.x) - 1)].mean(0)

    def log_prob(self, t: int, x: Tensor, chunk: int = 1 << 22) -> Tensor:
        """Kernel density estimate at x: (m, d) -> (m,), `chunk` pairs at a time."""
        centre = self.mean(t)
        agents, x = self.x[t] - centre, x - centre
        n, d = agents.shape
        width = self.bandwidth * agents.std(0).clamp_min(1e-12)
        constant = math.log(n) + width.log().sum() + 0.5 * d * math.log(2 * math.pi)
        parts = [
            torch.logsumexp(-0.5 * torch.cdist(part / width, agents / width, compute_mode=EXACT).square(), dim=1)
            for part in x.split(max(1, chunk // n))
        ]
        return torch.cat(parts) - constant


class GaussianFlow:
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
        return self.path[t]
