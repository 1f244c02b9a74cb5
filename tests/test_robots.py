"""Robots that follow a mean field policy (`deda_fp.robots.drive`)."""

import numpy as np
import pytest
import torch
from helpers import gen
from scipy.spatial.distance import pdist

from deda_fp.robots.drive import Robots, coverage, drive, packed, touching
from mfglib.games import BeachBar, FourRooms
from mfglib.policies import NoisePolicy
from mfglib.rollout import rollout

OPEN = FourRooms(walls=(), noise_bound=0.0, horizon=4)
ROOMS = FourRooms(horizon=8)


class To:
    """Walk to one's own place: (n, 2), at most 0.05 a step of the game."""

    def __init__(self, place):
        self.place = torch.as_tensor(place).float()

    def sample(self, t, x):
        way = self.place - x
        return way * (0.05 / way.norm(dim=1, keepdim=True).clamp_min(1e-9)).clamp_max(1)


def lengths(v):
    return np.sqrt((v**2).sum(-1))


@pytest.fixture(scope="module")
def door():
    """150 robots that all go from the first room through the door (0.25, 0.35)."""
    robots = Robots(radius=0.004, steps_per_action=10)
    return robots, drive(ROOMS, To([[0.4, 0.35]]), 150, robots, gen())


@pytest.mark.parametrize("acceleration", [0.05, 0.3, 1.0, 100.0])
def test_braking_takes_the_distance_that_is_kept_for_it(acceleration):
    robots = Robots(max_acceleration=acceleration, steps_per_action=10)
    v = np.linspace(0, robots.max_speed, 57)
    driven, left = np.zeros_like(v), v
    while left.any():
        driven, left = driven + left * robots.dt, np.maximum(left - robots.dv, 0)
    np.testing.assert_allclose(robots.distance(v), driven, rtol=0, atol=1e-15)
    vectors = np.stack([v, -v], 1)
    np.testing.assert_allclose(robots.velocity(robots.reserve(vectors)), vectors, rtol=0, atol=1e-13)


def test_no_way_from_braking_to_a_choice_needs_more_acceleration():
    """Only |v| / dv matters: the law of the braking distance has no other scale."""
    robots = Robots(max_speed=1e3, max_acceleration=1.0, steps_per_action=1)
    angle, share = np.linspace(0, np.pi, 181), np.linspace(0, 1, 41)[:, None, None]
    for v in np.concatenate([np.linspace(0, 3, 151), np.geomspace(3, 100, 50)])[:, None, None] * [1.0, 0.0]:
        braking = robots.reserve(v * max(0, 1 - robots.dv / max(v[0, 0], 1e-9)))
        chosen = robots.reserve(v + robots.dv * np.stack([np.cos(angle), np.sin(angle)], 1))
        u = robots.velocity((braking + share * (chosen - braking)).reshape(-1, 2))
        assert lengths(u - v).max() <= robots.dv * (1 + 1e-9)


def test_bounds_hold_and_a_crowd_goes_through_a_door(door):
    robots, d = door
    assert d.x.shape == d.v.shape == (81, 150, 2) and d.contacts.shape == d.wall_contacts.shape == (81,)
    assert lengths(d.v).max() <= robots.max_speed * (1 + 1e-9)
    assert lengths(np.diff(d.v, axis=0)).max() <= robots.dv * (1 + 1e-8)
    np.testing.assert_allclose(d.x[1:], d.x[:-1] + d.v[1:] * robots.dt, rtol=0, atol=1e-15)
    assert not d.v[0].any() and (d.x[0][:, 0] < 0.225).all()
    assert (d.x[-1][:, 0] > 0.275).sum() > 30


def test_nobody_touches_at_nor_between_control_steps(door):
    robots, d = door
    assert not d.contacts.any() and not d.deepest.any() and d.closest.min() > -1e-12
    i, j = np.triu_indices(150, 1)
    for x, y in zip(d.x[:-1], d.x[1:], strict=True):  # all drive straight from x to y
        between, change = x[j] - x[i], (y - x)[j] - (y - x)[i]
        share = -(between * change).sum(1) / (change**2).sum(1).clip(1e-30)
        assert lengths(between + share.clip(0, 1)[:, None] * change).min() > 2 * robots.radius * (1 - 1e-9)


def test_nobody_is_nearer_to_a_wall_than_its_radius(door):
    robots, d = door
    x, least = d.x.reshape(-1, 1, 2), robots.radius * (1 - 1e-9)
    assert lengths(x - x.clip(ROOMS.domain.walls[:, 0], ROOMS.domain.walls[:, 1])).min() > least
    assert x.min() > least and x.max() < 0.5 - least and not d.wall_contacts.any()


@pytest.mark.parametrize("acceleration", [0.05, 1.0, 1e4])
@pytest.mark.parametrize("steps", [1, 7, 30])
def test_wild_wishes_cause_no_contact(acceleration, steps):
    """Whatever the bounds, and in the narrowest of crowds."""
    game = FourRooms(horizon=3, a_bound=0.3)
    robots = Robots(radius=0.004, max_speed=0.5, max_acceleration=acceleration, steps_per_action=steps)
    d = drive(
        game, NoisePolicy(torch.full((2,), 0.3)), 100, robots, gen(steps), start=packed(game, 100, 0.004, gap=1e-6)
    )
    assert not d.contacts.any() and not d.wall_contacts.any()
    assert lengths(d.v).max() <= 0.5 * (1 + 1e-9) and lengths(np.diff(d.v, axis=0)).max() <= robots.dv * (1 + 1e-8)
    assert lengths(d.x[-1] - d.x[0]).max() > 0.02


def test_two_that_meet_pass_on_the_right_and_mirror_each_other():
    ends = np.array([[0.2, 0.25], [0.3, 0.25]])
    d = drive(OPEN, To(ends[::-1].copy()), 2, Robots(radius=0.01), gen(), start=ends)
    assert not d.contacts.any() and d.closest.min() < 0.02
    np.testing.assert_allclose(d.x[-1], ends[::-1], atol=1e-6)
    np.testing.assert_allclose(d.x.sum(1), 0.5, rtol=0, atol=1e-6)  # float32 of the game
    assert d.x[:, 0, 1].min() < 0.245 and d.x[:, 0, 1].max() < 0.2501


def test_a_robot_alone_is_where_its_agent_would_be_when_the_step_ends():
    start = np.array([[0.25, 0.2]])
    d = drive(OPEN, To([[0.4, 0.2]]), 1, Robots(), gen(), start=start)
    np.testing.assert_allclose(d.x[::20, 0], [[0.25 + 0.05 * min(t, 3), 0.2] for t in range(5)], atol=1e-6)
    assert np.isinf(d.closest).all()
    d = drive(OPEN, To([[0.4, 0.2]]), 1, Robots(max_speed=0.01), gen(), start=start)
    assert 0.289 < d.x[-1, 0, 0] < 0.25 + 4 * 0.01 + 1e-12


def test_small_and_strong_robots_are_agents():
    """The same draws as in a rollout, with walls, and far from each other."""
    game = FourRooms(horizon=6, a_bound=0.02, noise_bound=0.02)
    start = np.array([[0.1, 0.1], [0.1, 0.4], [0.4, 0.1], [0.42, 0.4]])
    robots = Robots(radius=1e-7, max_speed=100.0, max_acceleration=1e5)
    policy = NoisePolicy(torch.full((2,), 0.02))
    d = drive(game, policy, 4, robots, gen(3), start=start)
    play = rollout(game, policy, n=4, generator=gen(3), start=torch.from_numpy(start).float(), rewards=False)
    np.testing.assert_allclose(d.x[::20], play.x, atol=1e-6)


def test_who_wants_to_stay_stays():
    d = drive(FourRooms(noise_bound=0.0, horizon=2), NoisePolicy(torch.zeros(2)), 60, Robots(), gen())
    np.testing.assert_allclose(d.x, np.broadcast_to(d.x[0], d.x.shape), rtol=0, atol=1e-6)
    assert d.closest.min() == pytest.approx(0.05 * 2 * Robots().radius, abs=1e-6)


def test_who_stands_in_the_way_makes_way():
    """One that stands wants nothing, and one behind it must come by: it is moved, and comes back."""
    start, place = np.array([[0.2, 0.2501], [0.25, 0.25]]), np.array([[0.3, 0.25], [0.25, 0.25]])
    d = drive(OPEN, To(place), 2, Robots(radius=0.01), gen(), start=start)
    assert not d.contacts.any()
    assert lengths(d.x[:, 1] - place[1]).max() > 0.005
    np.testing.assert_allclose(d.x[-1], place, atol=0.002)


def test_the_same_seed_drives_the_same():
    runs = [drive(FourRooms(horizon=2), NoisePolicy(torch.full((2,), 0.03)), 50, Robots(), gen(s)).x for s in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.01


def test_contacts_are_counted():
    x = np.random.default_rng(0).uniform(size=(300, 2))
    apart = pdist(x)
    contacts, deepest, closest = touching(x, 0.02)
    assert contacts == (apart < 0.04).sum() > 100
    assert deepest == pytest.approx(1 - apart.min() / 0.04) and closest == pytest.approx(apart.min() - 0.04)
    pair = np.array([[0.0, 0.0], [0.04, 0.0]])
    assert touching(pair, 0.02) == (0, 0.0, 0.0) and touching(pair[:1], 0.03) == (0, 0.0, np.inf)
    assert touching(pair, 0.03) == (1, pytest.approx(1 / 3), pytest.approx(-0.02))


def test_robots_that_start_too_near_are_counted_and_part():
    start = np.array([[0.25, 0.25], [0.255, 0.25], [0.255, 0.25]])
    d = drive(OPEN, NoisePolicy(torch.zeros(2)), 3, Robots(radius=0.01), gen(), start=start)
    assert d.contacts[0] == 3 and d.deepest[0] == 1 and d.closest[0] == -0.02
    assert d.contacts[-1] == 0 and (np.diff(d.deepest) <= 1e-12).all()


def test_a_packed_start_is_dense_and_around_the_start():
    x, radius = packed(ROOMS, 500, 0.003), 0.003
    assert x.shape == (500, 2) and pdist(x).min() == pytest.approx(1.05 * 2 * radius)
    assert x.min() > radius * (1 - 1e-9) and x.max() < 0.5 - radius * (1 - 1e-9) and (x[:, 0] < 0.225 - radius).all()
    r = lengths(x - x.clip(*ROOMS.start.ends)).max()  # of a quarter of a disc, beside the square and its two strips
    area = 500 * np.sqrt(0.75) * (1.05 * 2 * radius) ** 2
    assert np.pi * r**2 / 4 + 2 * 0.025 * r + 0.025**2 == pytest.approx(area, rel=0.1)
    np.testing.assert_array_equal(packed(ROOMS, 20, radius), x[:20])
    square = packed(FourRooms(start=((0, 0.375), (0.125, 0.5))), 140, 0.005)  # as good as fills it
    assert square[:, 0].max() < 0.125 and square[:, 1].min() > 0.375
    assert pdist(packed(ROOMS, 50, radius, gap=1.0)).min() == pytest.approx(4 * radius)


def test_coverage_of_discs():
    domain, h = OPEN.domain, 0.05
    for x, reach in (([[0.25, 0.25]], 0.1), (torch.tensor([[0.0, 0.5]]), 0.2)):  # all of a disc, and a quarter
        assert coverage(x, domain, reach, points=400) == pytest.approx(np.pi * 0.1**2 / 0.5**2, rel=2e-3)
    x = h * (np.indices((10, 10)).reshape(2, -1).T + 0.5)  # a square lattice
    assert coverage(x, domain, 1.001 * h / np.sqrt(2)) == 1 > coverage(x, domain, 0.9 * h / np.sqrt(2))
    assert coverage(x, domain, h / 2, points=400) == pytest.approx(np.pi / 4, rel=0.01)


def test_coverage_ends_at_walls():
    thin, r, d = FourRooms(walls=[((0.3, 0.0), (0.31, 0.5))]).domain, 0.1, 0.05
    segment = r**2 * (np.pi - np.arccos(d / r)) + d * np.sqrt(r**2 - d**2)
    assert coverage([[0.25, 0.25]], thin, r, points=400) == pytest.approx(segment / thin.volume, rel=2e-3)
    parts = [coverage(x, thin, r, points=400) for x in ([[0.25, 0.25]], [[0.312, 0.25]])]
    assert coverage([[0.25, 0.25], [0.312, 0.25]], thin, r, points=400) == pytest.approx(sum(parts))


def test_bad_arguments():
    for name in ("radius", "max_speed", "max_acceleration"):
        with pytest.raises(ValueError, match=f"Robots.{name}: expected a number > 0, got 0"):
            Robots(**{name: 0})
    with pytest.raises(ValueError, match="Robots.steps_per_action: expected an integer >= 1, got 2.5"):
        Robots(steps_per_action=2.5)
    still = NoisePolicy(torch.zeros(2))
    with pytest.raises(ValueError, match="game: expected a game on a domain in two dimensions, got BeachBar"):
        drive(BeachBar(), still, 3, Robots(), gen())
    with pytest.raises(ValueError, match="n: expected an integer >= 1, got 0"):
        drive(ROOMS, still, 0, Robots(), gen())
    with pytest.raises(ValueError, match=r"start: expected shape \(3, 2\), got \(2, 2\)"):
        drive(ROOMS, still, 3, Robots(), gen(), start=np.full((2, 2), 0.1))
    with pytest.raises(ValueError, match="start: expected 0.01 between robots and walls, got 1 robots that are nearer"):
        drive(ROOMS, still, 2, Robots(radius=0.01), gen(), start=[[0.1, 0.1], [0.22, 0.1]])
    with pytest.raises(ValueError, match=r"n: expected at most \d+ robots of radius 0.02 around the start, got 100"):
        packed(ROOMS, 100, 0.02)
    with pytest.raises(ValueError, match=r"x: expected shape \(n, 2\)"):
        coverage([0.1, 0.2], ROOMS.domain, 0.1)
    with pytest.raises(ValueError, match="reach: expected a number > 0, got 0"):
        coverage([[0.1, 0.2]], ROOMS.domain, 0)
