"""How disc-shaped robots with bounded acceleration keep off each other and walls.

Why nobody touches. The reserve of a robot is the segment on which it comes to rest if it brakes as hard as it can from
now on. Suppose that any two reserves are 2 radius apart. Then the robots agree on a line between the two reserves, with
normal n, along which these are closest, and each takes a new velocity only if the reserve that goes with it, of
displacement s, stays on its own side: n·s <= c. Braking does, so that there is always a choice, and afterwards any two
reserves, on which all that is driven lies, are 2 radius apart again. Walls likewise. So by induction it holds always.

That is a barrier of braking distances (Wang, Ames, Egerstedt, IEEE Trans. Robotics 33, 2017) in discrete time, with a
half-plane for each neighbour as in ORCA (van den Berg et al., Robotics Research, 2011), but of reserves in place of
velocities, and with lines between robots as in buffered Voronoi cells (Zhou et al., IEEE RA-L 2, 2017).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from mfglib.checks import integer, number
from mfglib.games.domain import Domain

# Chosen by the coverage that a block of 1,000 robots in 4-rooms reaches at the end (decisions R2, R3, R4).
ROUNDS = 4  # of messages between neighbours, and then of each robot's own projections (R2)
RELAX = 1.5  # of what the two of a pair lack, settled in one round (R3)
TURN = 0.3  # to the right, for one to the side, of those that meet; with 0, two crowds block a door (R4)
ROUNDING = 1e-9  # of a diameter, or of a bound: what is no contact, and no excess


@dataclass(frozen=True)
class Robots:
    """Discs of one kind. Units: the game's length, and steps of the game.

    Args:
        radius, max_speed, max_acceleration: > 0; both bounds are on the length of the vector.
        steps_per_action: control steps >= 1 in a step of the game. No robot knows what others choose in the same
            control step, and so it keeps at least what it drives in one as distance: with fewer steps a crowd covers
            less (decision R5).

    Raises ValueError, naming the argument, if one is out of its range.
    """

    radius: float = 0.002
    max_speed: float = 0.1
    max_acceleration: float = 1.0
    steps_per_action: int = 20

    def __post_init__(self) -> None:
        for name in ("radius", "max_speed", "max_acceleration"):
            number(f"Robots.{name}", getattr(self, name), positive=True)
        integer("Robots.steps_per_action", self.steps_per_action, at_least=1)

    @property
    def dt(self) -> float:
        """Steps of the game in a control step."""
        return 1 / self.steps_per_action

    @property
    def dv(self) -> float:
        """The largest change of velocity in a control step."""
        return self.max_acceleration * self.dt

    def distance(self, speed: np.ndarray) -> np.ndarray:
        """What a robot drives until it rests: a control step at `speed`, then slower by `dv` in each."""
        k = np.floor(speed / self.dv)
        return ((k + 1) * speed - self.dv * k * (k + 1) / 2) * self.dt

    def speed(self, distance: np.ndarray) -> np.ndarray:
        """The inverse of `distance`."""
        unit = self.dv * self.dt
        k = np.floor((np.sqrt(1 + 8 * distance / unit) - 1) / 2)
        return (distance + unit * k * (k + 1) / 2) / ((k + 1) * self.dt)

    def reserve(self, v: np.ndarray) -> np.ndarray:
        """Displacements (n, 2) until rest of robots that take the velocities v: (n, 2) now, and then brake."""
        return _scaled(v, self.distance(norm(v)))

    def velocity(self, reserve: np.ndarray) -> np.ndarray:
        """The inverse of `reserve`."""
        return _scaled(reserve, self.speed(norm(reserve)))


class _Close(NamedTuple):
    """Pairs that may touch in the next control step: robots i, j (m,); n (m, 2), unit vectors from the reserve of i to
    that of j where they are closest; how far what is left of each, if it brakes, reaches along it, n·s_i and −n·s_j;
    the gap between the discs there. A wall is a j that never moves, with the number n."""

    i: np.ndarray
    j: np.ndarray
    n: np.ndarray
    at_i: np.ndarray
    at_j: np.ndarray
    gap: np.ndarray


def steer(x: np.ndarray, v: np.ndarray, wanted: np.ndarray, robots: Robots, walls: np.ndarray) -> np.ndarray:
    """The next velocities, near to those `wanted`, of robots at x with velocities v: all (n, 2). They are safe among
    `walls`: (m, 2, 2), lower and upper corners."""
    size, limit = len(x), robots.distance(robots.max_speed)
    braking = v - _cut(v, robots.dv)
    rest = robots.reserve(braking)  # of the reserve, if it brakes
    reach = robots.distance(np.minimum(norm(v) + robots.dv, robots.max_speed))
    close = _close(x, rest, reach, robots.radius, walls)
    wish = _agree(robots.reserve(_cut(wanted, robots.max_speed)), close)
    robot, n, bound = _half_planes(_cut(wish, limit), close)
    for _ in range(ROUNDS):
        over = _dot(n, wish[robot]) - bound
        over, active, normal = over[over > 0], robot[over > 0], n[over > 0]
        count = np.bincount(active, minlength=size).clip(1)[:, None]
        wish = wish - _sum(active, over[:, None] * normal, size) / np.sqrt(count)
    chosen = v + _cut(robots.velocity(_cut(wish, limit)) - v, robots.dv)
    # As far on the way from braking to the choice as all half-planes allow: they are convex in displacements. No point
    # of that way needs more than the largest acceleration (not proved: a test goes through all |v| / dv and choices).
    more, held = robots.reserve(chosen) - rest, _dot(n, rest[robot])
    room, need = np.maximum(bound - held, 0), _dot(n, more[robot])
    share = np.ones(size)
    np.minimum.at(share, robot[need > room], (room / np.where(need > room, need, 1))[need > room])
    return robots.velocity(rest + share[:, None] * more)


def _close(x: np.ndarray, rest: np.ndarray, reach: np.ndarray, radius: float, walls: np.ndarray) -> _Close:
    """Of robots at x: (n, 2), if `rest`: (n, 2) are their reserves once they brake, and `reach`: (n,) the longest that
    they may take instead."""
    pairs = cKDTree(x).query_pairs(2 * (radius + reach.max()), output_type="ndarray")
    i, j = pairs[norm(x[pairs[:, 1]] - x[pairs[:, 0]]) < 2 * radius + reach[pairs].sum(1)].T
    a, s, b, r = x[i], rest[i], x[j], rest[j]
    ends = [(p, _nearest(p, b, r)) for p in (a, a + s)] + [(_nearest(q, a, s), q) for q in (b, b + r)]
    p, n, distance = _closest(ends)
    moving = i, j, n, _dot(n, p - a), _dot(n, b - p) - distance, distance - 2 * radius
    i, k = np.nonzero(norm(to_walls(x, walls)) < radius + reach[:, None])
    (low, high), a, s = walls[k].swapaxes(0, 1), x[i], rest[i]
    corners = [np.stack([u[:, 0], w[:, 1]], 1) for u in (low, high) for w in (low, high)]
    ends = [(p, p.clip(low, high)) for p in (a, a + s)] + [(_nearest(q, a, s), q) for q in corners]
    p, n, distance = _closest(ends)
    still = i, np.full(len(i), len(x)), n, _dot(n, p - a), np.zeros(len(i)), distance - radius
    return _Close(*map(np.concatenate, zip(moving, still, strict=True)))


def _agree(wish: np.ndarray, close: _Close) -> np.ndarray:
    """Reserves near those wished: (n, 2), after rounds in which the two of each pair share what they lack in room: who
    stands in the way makes way, as far as it can. Two that meet also step aside, each to its right."""
    i, j, n, *_ = close
    size, room = len(wish), close.at_i + close.at_j + close.gap
    wish = np.vstack([wish, np.zeros(2)])
    meeting = (_dot(n, wish[i]) > 0) & (_dot(n, wish[j]) < 0)
    push = n - TURN * meeting[:, None] * np.stack([n[:, 1], -n[:, 0]], 1)
    push *= np.where(j == size, 1, RELAX / 2)[:, None]
    for _ in range(ROUNDS):
        lack = np.maximum(_dot(n, wish[i] - wish[j]) - room, 0)[:, None] * push
        wish += _sum(j, lack, size + 1) - _sum(i, lack, size + 1)
        wish[size] = 0
    return wish[:size]


def _half_planes(wish: np.ndarray, close: _Close) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The robot, n and c of each n·s <= c. The line between two robots is half-way between the reserves wished, but
    never such that one of them could not brake."""
    i, j, n, at_i, at_j, gap = close
    size, room = len(wish), at_i + at_j + gap
    wish = np.vstack([wish, np.zeros(2)])
    middle = (_dot(n, wish[i] + wish[j]) + room) / 2
    c = np.where(j == size, room, np.clip(middle, at_i, at_i + gap))
    other = j < size
    return np.append(i, j[other]), np.concatenate([n, -n[other]]), np.append(c, (room - c)[other])


def walls_of(domain: Domain) -> np.ndarray:
    """The domain's walls and four that stand for what is beyond its edge: (m + 4, 2, 2)."""
    beyond = [((-1, -1), (0, 2)), ((1, -1), (2, 2)), ((-1, -1), (2, 0)), ((-1, 1), (2, 2))]
    return np.concatenate([domain.walls, domain.lower + (domain.upper - domain.lower) * np.array(beyond)])


def to_walls(x: np.ndarray, walls: np.ndarray) -> np.ndarray:
    """From each of x: (n, 2) to the nearest point of each wall: (n, m, 2)."""
    return x[:, None].clip(walls[:, 0], walls[:, 1]) - x[:, None]


def _closest(ends: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of candidates p, q: (m, 2), those that are closest: p, the unit vector to q (any if they coincide), distance."""
    p, q = (np.stack(part) for part in zip(*ends, strict=True))
    best = _dot(q - p, q - p).argmin(0), np.arange(p.shape[1])
    p, between = p[best], (q - p)[best]
    distance = norm(between)
    return p, np.where(distance[:, None] > 0, _scaled(between, 1.0), [1.0, 0.0]), distance


def _nearest(p: np.ndarray, a: np.ndarray, s: np.ndarray) -> np.ndarray:
    """The points of the segments from a along s that are nearest to p; all (m, 2)."""
    squared = _dot(s, s)
    return a + (_dot(p - a, s) / np.where(squared > 0, squared, 1)).clip(0, 1)[:, None] * s


def _sum(index: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
    """Sums (size, 2) of the v: (m, 2) with the same index: (m,)."""
    return np.stack([np.bincount(index, v[:, k], size) for k in (0, 1)], 1)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1]


def norm(v: np.ndarray) -> np.ndarray:
    return np.sqrt(_dot(v, v))


def _scaled(v: np.ndarray, length: Any) -> np.ndarray:
    """v: (n, 2) with these lengths; 0 stays 0."""
    size = norm(v)
    return v * (length / np.where(size > 0, size, 1))[:, None]


def _cut(v: np.ndarray, bound: float) -> np.ndarray:
    """v: (n, 2), shortened to `bound` where it is longer."""
    return _scaled(v, np.minimum(norm(v), bound))
