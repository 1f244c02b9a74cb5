"""Monotone rational-quadratic splines.

Reference: Durkan et al., Neural spline flows, arXiv 1906.04032; after Gregory and Delbourgo (1982).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST_BIN = 1e-4  # width and height of a bin, as a share of the spline's range
MOST_SLOPE = 5.0  # of |log slope| at a knot, relative to the bins beside it


def spline(raw: Tensor, x: Tensor, periodic: bool = False) -> tuple[Tensor, Tensor]:
    """A monotone rational-quadratic spline of [0, 1] onto itself, linear beyond (Durkan et al., eq. 4 and 5).

    Its slope at a knot is the geometric mean of those of the bins beside it, times a parameter; zuko and Durkan set
    the slope itself, and 1 at both ends. A concentrated population then needs no large parameters (decision F3), and a
    density need not be that of the base at the edge.

    Args:
        raw: (…, n, 3K + 1), or (…, 1, 3K + 1): parameters of K widths, K heights and K + 1 slopes; 0 is the identity.
        x: (…, n).
        periodic: whether 0 and 1 are one place, with one slope (Rezende et al., arXiv 2002.02428); the last parameter
            is then not used.

    Returns y and log dy/dx, each (…, n).
    """
    inner = x.clamp(0, 1)
    x0, width, y0, height, d0, d1 = _bin(raw, inner, 0, periodic)
    s, z = height / width, ((inner - x0) / width).clamp(0, 1)
    q = z * (1 - z)
    below = s + (d0 + d1 - 2 * s) * q
    y = y0 + height * (s * z.square() + d0 * q) / below + torch.where(x < 0, d0, d1) * (x - inner)
    return y, ((s / below).square() * (2 * s * q + d0 * (1 - z).square() + d1 * z.square())).log()


def spline_inverse(raw: Tensor, y: Tensor, periodic: bool = False) -> Tensor:
    """x: (…, n) of y: (…, n); the others as for `spline` (Durkan et al., eq. 6 to 8)."""
    inner = y.clamp(0, 1)
    x0, width, y0, height, d0, d1 = _bin(raw, inner, 1, periodic)
    s, rise = height / width, (inner - y0).clamp_min(0)
    curve = rise * (d0 + d1 - 2 * s)
    a, b, c = height * (s - d0) + curve, height * d0 - curve, -s * rise
    z = 2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())
    return x0 + z.clamp(0, 1) * width + (y - inner) / torch.where(y < 0, d0, d1)


def _bin(raw: Tensor, value: Tensor, axis: int, periodic: bool) -> tuple[Tensor, ...]:
    """Of the bin that holds `value` on the axis, 0 for x or 1 for y: x0, width, y0, height, slopes at its ends."""
    bins, shape = raw.shape[-1] // 3, value.shape
    sizes = (1 - bins * LEAST_BIN) * raw[..., : 2 * bins].unflatten(-1, (2, bins)).softmax(-1) + LEAST_BIN
    knots = F.pad(sizes.cumsum(-1), (1, 0))[..., :-1]  # (…, 2, K): where a bin starts
    k = (knots[..., axis, 1:] <= value[..., None]).sum(-1, keepdim=True)
    start = _pick(knots, k[..., None, :], shape)[..., 0]
    near, ends = k + torch.arange(-1, 2, device=k.device), torch.cat([k, k + 1], -1)  # the bin and those beside it
    near, ends = (near % bins, ends % bins) if periodic else (near.clamp(0, bins - 1), ends)
    size = _pick(sizes, near[..., None, :], shape)  # (…, n, 2, 3)
    log_slope = (size[..., 1, :] / size[..., 0, :]).log()
    slopes = _pick(raw[..., 2 * bins :], ends, shape)
    slopes = slopes / (1 + slopes.abs() / MOST_SLOPE) + (log_slope[..., 1:] + log_slope[..., :-1]) / 2
    return start[..., 0], size[..., 0, 1], start[..., 1], size[..., 1, 1], *slopes.exp().unbind(-1)


def _pick(table: Tensor, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Entries of the last axis of `table` (…, 1 or n, …), for each of the samples of this shape (…, n)."""
    rest = table.shape[len(shape) : -1]
    table = table.expand(*shape, *table.shape[len(shape) :])
    return table.gather(-1, index.expand(*shape, *rest, index.shape[-1]))
