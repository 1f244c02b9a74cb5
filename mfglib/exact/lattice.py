"""A law of noise as weights of a lattice, and the convolution with them."""

import math

import numpy as np
import torch
from torch import Tensor


def band(weights: Tensor, rows: int) -> Tensor:
    """The convolution with `weights`: (w,) as a matrix (rows, rows + w − 1)."""
    band = torch.zeros(rows, rows + len(weights) - 1, dtype=weights.dtype)
    for i in range(rows):
        band[i, i : i + len(weights)] = weights
    return band


def on_lattice(quantiles: np.ndarray, std: float, h: float) -> Tensor:
    """A centred law given by its quantiles (n,), as weights of the lattice ..., −h, 0, h, ... with its variance.

    Rounding at random to the lattice keeps the mean and adds variance; the quantiles are drawn in to make up for it.
    """
    weights = np.ones(1)
    if std <= 1e-6 * h:
        return torch.from_numpy(weights)
    quantiles = quantiles * (std / math.sqrt(np.square(quantiles).mean()) / h)  # a Gaussian's tails are cut
    low, high = 0.0, 1.0
    for _ in range(40):
        factor = (low + high) / 2
        floor = np.floor(factor * quantiles).astype(int)
        part = factor * quantiles - floor
        reach = int(max(-floor.min(), floor.max() + 1))
        weights = np.bincount(floor + reach, 1 - part, 2 * reach + 1)
        weights += np.bincount(floor + reach + 1, part, 2 * reach + 1)
        weights /= len(quantiles)
        if np.square(np.arange(-reach, reach + 1)) @ weights * h**2 > std**2:
            high = factor
        else:
            low = factor
    return torch.from_numpy((weights + weights[::-1]) / 2)
