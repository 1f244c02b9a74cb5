"""Sums of Gaussian kernels over many agents."""

import math

import torch
from torch import Tensor


def log_kernel_sum(x: Tensor, agents: Tensor, rows: int) -> Tensor:
    """log Σ_j 2^(−|x_i − agent_j|²) for x: (m, d) and agents: (n, d), `rows` of x at a time: (m,).

    Differences are taken before they are squared: a matrix product would be no faster, and its cancellation costs two
    digits. exp2, because exp is slower in float32, and much slower where it underflows (decision K1).
    """
    columns, total = agents.T.contiguous(), x.new_empty(len(x))
    buffers = x.new_empty(2, min(rows, len(x)), len(agents))  # reused: new ones for each part are slow (decision K2)
    for part, sums in zip(x.split(rows), total.split(rows), strict=True):
        terms = _square_distance(part, columns, *buffers[:, : len(part)])
        torch.sum(terms.neg_().exp2_(), 1, out=sums)
    result = total.log()
    lost = (total < torch.finfo(x.dtype).tiny ** 0.5).nonzero()[:, 0]  # so far from all agents that terms underflow
    for some in lost.split(rows):
        square = _square_distance(x[some], columns)
        least = square.amin(1)
        near = (least[:, None] - square).exp2().sum(1).log() - least * math.log(2)
        result[some] = torch.where(least.isinf(), -torch.inf, near)
    return result


def _square_distance(x: Tensor, columns: Tensor, out: Tensor | None = None, buffer: Tensor | None = None) -> Tensor:
    """x: (m, d), columns: (d, n) -> (m, n), in `out` if given; `buffer` is as large."""
    total = torch.sub(x[:, :1], columns[0], out=out).square_()
    for i in range(1, len(columns)):
        total += torch.sub(x[:, i, None], columns[i], out=buffer).square_()
    return total
