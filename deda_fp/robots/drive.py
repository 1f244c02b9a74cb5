"""N disc-shaped robots with bounded acceleration that follow a mean field policy in the plane, and never touch.

The game's agents are points that jump. A robot steers to where its agent would jump, and keeps off others and walls.
Why nobody touches: `deda_fp.robots.steering`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from tqdm.auto import tqdm

from deda_fp.robots.steering import ROUNDING, Robots, norm, steer, to_walls, walls_of
from mfglib.checks import array, integer, number
from mfglib.games.bounded import BoundedGame
from mfglib.games.domain import Domain
from mfglib.policies import sampler
from mfglib.protocols import Policy

__all__ = ["Drive", "Robots", "coverage", "drive", "packed", "touching"]


@dataclass(frozen=True)
class Drive:
    """n robots in S control steps: x, v (S+1, n, 2), positions and the velocities that led there; (S+1,) each:
    contacts, pairs that overlap; deepest, the largest overlap in diameters; closest, the smallest gap, in the game's
    length (inf for one robot); wall_contacts, robots nearer to a wall or the edge than their radius."""

    x: np.ndarray
    v: np.ndarray
    contacts: np.ndarray
    deepest: np.ndarray
    closest: np.ndarray
    wall_contacts: np.ndarray


@torch.no_grad()
def drive(
    game: BoundedGame,
    policy: Policy,
    n: int,
    robots: Robots,
    generator: torch.Generator,
    *,
    start: Any = None,
    progress: bool = False,
) -> Drive:
    """n robots from rest at `start`: (n, 2), or `packed`, over the horizon T of a `BoundedGame` in the plane; the
    control step of time t is t · steps_per_action.

    At each t a robot asks the policy as an agent would, draws action and noise, and then steers in a straight line to
    the place that comes out, so as to be there at t + 1. No two robots come closer than 2 radius, or than they
    started: contacts are counted all the same.

    Raises ValueError for a game that is not on a domain in the plane, or on one with periodic coordinates, and for a
    start that has another shape or is nearer to a wall than the radius.
    """
    if getattr(game, "state_dim", None) != 2 or not hasattr(game, "domain"):
        raise ValueError(f"game: expected a game on a domain in two dimensions, got {game!r}")
    if any(game.domain.periodic):
        raise ValueError(f"game: expected a floor with edges, got one with periodic coordinates, {game.domain!r}")
    x = packed(game, n, robots.radius) if start is None else array("start", start)
    walls = walls_of(game.domain)
    if x.shape != (integer("n", n, at_least=1), 2):
        raise ValueError(f"start: expected shape {(n, 2)}, got {x.shape}")
    if near := _nearer(x, robots.radius, walls).sum():
        raise ValueError(f"start: expected {robots.radius} between robots and walls, got {near} robots that are nearer")
    act = sampler(policy.episode(n, generator) if hasattr(policy, "episode") else policy, generator)
    xs, vs = [x], [np.zeros_like(x)]
    for t in tqdm(range(game.horizon), desc="robots", **({} if progress else {"disable": True})):
        agents = torch.from_numpy(xs[-1]).float()
        goal = game.step(t, agents, act(t, agents), None, generator).double().numpy()
        for left in np.arange(robots.steps_per_action, 0, -1) * robots.dt:
            vs.append(steer(xs[-1], vs[-1], (goal - xs[-1]) / left, robots, walls))
            xs.append(xs[-1] + vs[-1] * robots.dt)
    counts = zip(*(touching(x, robots.radius) for x in xs), strict=True)
    wall_contacts = np.array([_nearer(x, robots.radius, walls).sum() for x in xs])
    return Drive(np.stack(xs), np.stack(vs), *map(np.array, counts), wall_contacts)


def touching(x: np.ndarray, radius: float) -> tuple[int, float, float]:
    """Of discs at x: (n, 2): how many pairs overlap by more than rounding, the largest overlap in diameters, and the
    smallest gap."""
    if len(x) < 2:
        return 0, 0.0, np.inf
    tree, least = cKDTree(x), 2 * radius * (1 - ROUNDING)
    closest = tree.query(x, k=2)[0][:, 1].min()
    if closest >= least:
        return 0, 0.0, closest - 2 * radius
    return len(tree.query_pairs(least)), 1 - closest / (2 * radius), closest - 2 * radius


def packed(game: BoundedGame, n: int, radius: float, gap: float = 0.05) -> np.ndarray:
    """n places (n, 2) for discs: of a hexagonal lattice with `gap` diameters between discs, those nearest to the box
    where the game starts that are in sight of its centre and `radius` from walls.

    A dense block of small discs disperses slowly, for each layer waits for the one before it: such discs reach a higher
    coverage with a gap of 1 (decision R1). Raises ValueError if fewer than n fit.
    """
    n, radius = integer("n", n, at_least=1), number("radius", radius, positive=True)
    spacing = 2 * radius * (1 + number("gap", gap))
    lower, upper, ends = game.domain.lower, game.domain.upper, np.stack(game.start.ends)
    columns, rows = ((upper - lower - 2 * radius).clip(0) / spacing / [1, np.sqrt(0.75)]).astype(int) + 1
    k = np.indices((columns, rows)).reshape(2, -1).T
    x = radius + spacing * np.stack([k[:, 0] + k[:, 1] % 2 / 2, k[:, 1] * np.sqrt(0.75)], 1)
    centre = ends.mean(0)
    x = np.where(centre > (lower + upper) / 2, upper - x, lower + x)  # from the corner nearest to the start
    x = x[~_nearer(x, radius, walls_of(game.domain))]
    x = x[_sees(np.tile(centre, (len(x), 1)), x, game.domain)]
    if len(x) < n:
        raise ValueError(f"n: expected at most {len(x)} robots of radius {radius} around the start, got {n}")
    distances = norm(x - centre), norm(x - x.clip(*ends))
    return x[np.lexsort(np.round(distances, 9))[:n]]


def coverage(x: Any, domain: Domain, reach: float, points: int = 200) -> float:
    """The share of the free area that has one of x: (n, 2) within `reach`, in sight: with no wall on the line between.
    Estimated at the free centres of square cells, `points` of them along the longest side."""
    x, reach = array("x", x), number("reach", reach, positive=True)
    if x.ndim != 2 or x.shape[1] != 2 or domain.state_dim != 2:
        raise ValueError(f"x: expected shape (n, 2), and a domain in two dimensions, got {x.shape} and {domain!r}")
    width = domain.upper - domain.lower
    h = width.max() / integer("points", points, at_least=1)
    dark = domain.lower + h * (np.indices(np.round(width / h).astype(int)).reshape(2, -1).T + 0.5)
    dark = dark[domain.contains(torch.from_numpy(dark)).numpy()]
    total, seen, tree = len(dark), 0, cKDTree(x)
    for k in range(1, len(x) + 1):  # the nearest first; few points have a wall before it
        distance, who = tree.query(dark, k=[k], distance_upper_bound=reach)
        near = np.isfinite(distance[:, 0])
        dark, who = dark[near], who[near, 0]
        sees = _sees(dark, x[who], domain)
        seen, dark = seen + sees.sum(), dark[~sees]
        if not len(dark):
            break
    return float(seen / total)


def _nearer(x: np.ndarray, radius: float, walls: np.ndarray) -> np.ndarray:
    """Which of x: (n, 2) are nearer to a wall than `radius`, by more than rounding: (n,)."""
    return norm(to_walls(x, walls)).min(1) < radius * (1 - ROUNDING)


def _sees(a: np.ndarray, b: np.ndarray, domain: Domain) -> np.ndarray:
    """Whether there is no wall on the way from a: (n, 2) to b: (n, 2): (n,). b may be in one by rounding to float32."""
    return norm(domain.move(torch.from_numpy(a), torch.from_numpy(b - a)).numpy() - b) < 1e-6
