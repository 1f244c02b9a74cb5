"""Distances between what was learned and what is exact."""

import numpy as np
import ot
import torch
from scipy.stats import norm, wasserstein_distance
from torch import Tensor

from mfglib.exact import LQEquilibrium
from mfglib.flow import TimeFlow
from mfglib.policy import Policy


def wasserstein(x: Tensor, y: Tensor) -> float:
    """W1 between the empirical measures of x: (n, d) and y: (m, d); exact, by quantiles if d = 1, else by POT."""
    if x.shape[1] == 1:
        return float(wasserstein_distance(x[:, 0].cpu().numpy(), y[:, 0].cpu().numpy()))
    return float(ot.solve_sample(x.double().cpu().numpy(), y.double().cpu().numpy(), metric="euclidean").value)


@torch.no_grad()
def flow_wasserstein(flow: TimeFlow, x: Tensor, n: int = 20_000) -> np.ndarray:
    """W1(Ḡ_t, empirical measure of x_t) for every t: x (T+1, m, 1) -> (T+1,). The flow enters by its quantiles."""
    u = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n).float()[:, None].to(x.device)
    return np.array([wasserstein(flow.from_base(t, u), states) for t, states in enumerate(x)])


@torch.no_grad()
def flow_wasserstein_gaussian(flow: TimeFlow, mean: Tensor, cov: Tensor, n: int = 20_000) -> np.ndarray:
    """W1(Ḡ_t, N(mean_t, cov_t)) for every t, in one dimension, by quantiles: mean (T+1, 1), cov (T+1, 1, 1)."""
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    z = torch.special.ndtri(u).float()[:, None].to(flow.loc.device)
    flow_quantiles = [np.sort(flow.from_base(t, z)[:, 0].double().cpu().numpy()) for t in range(len(mean))]
    exact = [norm.ppf(u.numpy(), m.item(), c.sqrt().item()) for m, c in zip(mean, cov, strict=True)]
    return np.array([np.abs(a - b).mean() for a, b in zip(flow_quantiles, exact, strict=True)])


def policy_error(policy: Policy, equilibrium: LQEquilibrium, level: float = 0.05, points: int = 201) -> np.ndarray:
    """max_x |mean action − exact mean action| for every t < T, over the x where the equilibrium density is above
    `level` of its peak, divided by the range of exact actions over all these (t, x); one dimension. Returns (T,)."""
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
