"""Sums of Gaussian kernels over many agents."""

import math

import torch
from torch import Tensor
from torch.nn.functional import threshold_

LOST = torch.finfo(torch.float64).tiny ** 0.5  # sums so small are taken again, less their largest term
PART = 1024  # agents or states at a time: with their points they should stay in a cache


def log_kernel_sum(x: Tensor, agents: Tensor, rows: int) -> Tensor:
    """log Σ_j 2^(−|x_i − agent_j|²) for x: (m, d) and agents: (n, d): (m,), through a lattice where that is cheaper,
    else pair by pair, `rows` of x at a time.

    Differences are taken before they are squared: a matrix product would be no faster, and its cancellation costs two
    digits. exp2, because exp is slower in float32, and much slower where it underflows (decision K1).
    """
    total = _by_lattice(x, agents)
    if total is None:
        columns, total = agents.T.contiguous(), x.new_empty(len(x))
        buffers = x.new_empty(2, min(rows, len(x)), len(agents))  # reused: new ones are slow (decision K2)
        for part, sums in zip(x.split(rows), total.split(rows), strict=True):
            terms = _square_distance(part, columns, *buffers[:, : len(part)])
            torch.sum(terms.neg_().exp2_(), 1, out=sums)
    result = total.log().to(x)
    lost = (total < torch.finfo(total.dtype).tiny ** 0.5).nonzero()[:, 0]  # so far from all agents that terms underflow
    for some in lost.split(rows):
        square = _square_distance(x[some], agents.T.contiguous())
        least = square.amin(1)
        near = (least[:, None] - square).exp2().sum(1).log() - least * math.log(2)
        result[some] = torch.where(least.isinf(), -torch.inf, near)
    return result


def _by_lattice(x: Tensor, agents: Tensor) -> Tensor | None:
    """Σ_j 2^(−|x_i − agent_j|²): (m,) in double precision, for one or two dimensions; None where pairs are as cheap
    (decision K5).

    A kernel is the convolution of two that are narrower, 2^(−s²) = c ∫ 2^(−2(x − g)²) 2^(−2(g − agent)²) dg with
    s = x − agent, and the trapezoidal rule over points g of a lattice gives that to a relative error of
    2 exp(−π²/(4 ln 2 · spacing²)), whatever s. So agents are summed once, at the points, coordinate by coordinate.
    """
    m, d = x.shape
    if d > 2 or m < 2 or x.isnan().any() or x.device.type == "mps":  # which has no double precision
        return None
    single = torch.finfo(x.dtype).eps > 1e-8
    spacing, spread = (0.48, 2.5) if single else (0.31, 3.7)  # errors of 4e-7 and 1e-16; 2^(−4u²) is 3e-8 and 3e-17
    reach = math.sqrt(15 - math.log2(LOST))  # of 2^15 agents
    low, high = agents.amin(0), agents.amax(0)
    low = (torch.maximum(x.amin(0), low - reach) + low) / 2 - spread  # the integrand is largest midway, and 0 beyond
    high = (torch.minimum(x.amax(0), high + reach) + high) / 2 + spread
    sizes = ((high - low) / spacing).clamp(0, m).ceil().int().tolist()
    if not 0 < 2 * sum(sizes) + math.prod(sizes) / 60 < m:  # in units of what a state costs by pairs
        return None
    root2, steps = math.sqrt(2), spacing * torch.arange(max(sizes) + 1, device=x.device, dtype=torch.float64)
    points = [root2 * (start + steps[: size + 1]) for start, size in zip(low.double(), sizes, strict=True)]

    def near(v: Tensor) -> list[Tensor]:
        logs = (root2 * v[:, i, None] - p for i, p in enumerate(points))
        return [threshold_(v.square_().neg_(), -500.0, -math.inf).exp2_() for v in logs]

    mass, total = 0.0, []
    for first, *second in map(near, agents.double().split(PART)):
        mass = mass + (first.T @ second[0] if second else first.sum(0))
    for first, *second in map(near, x.double().split(PART)):
        total.append(((first @ mass) * second[0]).sum(1) if second else first @ mass)
    return torch.cat(total) * (spacing * math.sqrt(4 * math.log(2) / math.pi)) ** d


def _square_distance(x: Tensor, columns: Tensor, out: Tensor | None = None, buffer: Tensor | None = None) -> Tensor:
    """x: (m, d), columns: (d, n) -> (m, n), in `out` if given; `buffer` is as large."""
    total = torch.sub(x[:, :1], columns[0], out=out).square_()
    for i in range(1, len(columns)):
        total += torch.sub(x[:, i, None], columns[i], out=buffer).square_()
    return total
