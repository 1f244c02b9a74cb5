import numpy as np
import pytest
import torch
from helpers import gen
from scipy import ndimage

from mfglib.games.domain import Domain
from mfglib.games.four_rooms import FourRooms

CUTS = np.array([0.0, 0.11, 0.3, 0.35, 0.6, 0.62, 0.87, 1.0])  # lines that random walls run along
SCALES = (1e-9, 1e-4, 0.03, 0.4, 5.0)


def maze(seed, d=2, share=0.3):
    """Walls are a share of the boxes between the cuts: they touch each other, at faces and at corners."""
    cuts = CUTS[[0, 2, 3, 7]] if d == 3 else CUTS
    wall = np.random.default_rng(seed).random((len(cuts) - 1,) * d) < share
    wall.flat[0] = False
    i = np.argwhere(wall)
    return Domain(np.zeros(d), np.ones(d), np.stack([cuts[i], cuts[i + 1]], 1)), wall


def displacements(n, d, scale, dtype, seed=1):
    """In all directions, a quarter of the coordinates 0."""
    v = scale * (2 * torch.rand(n, d, generator=gen(seed), dtype=dtype) - 1)
    return v * (torch.rand(n, d, generator=gen(seed + 1)) > 0.25)


def starts(domain, n, dtype, seed=2):
    """Uniform, but every third coordinate on a line of walls: on faces, in corners."""
    x = torch.rand(n, domain.state_dim, generator=gen(seed), dtype=dtype)
    lines = torch.as_tensor(CUTS, dtype=dtype)[torch.randint(len(CUTS), x.shape, generator=gen(seed + 1))]
    x = torch.where(torch.rand(x.shape, generator=gen(seed + 2)) < 1 / 3, lines, x)
    return x[domain.contains(x)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_no_agent_is_ever_in_a_wall_or_outside(d, dtype):
    for seed in range(3):
        domain, _ = maze(seed, d)
        x = starts(domain, 900, dtype)
        assert len(x) > 300
        for scale in SCALES:
            end = domain.move(x, displacements(len(x), d, scale, dtype))
            assert domain.contains(end).all() and end.dtype == dtype
            assert domain.contains(domain.move(end, displacements(len(x), d, scale, dtype, seed=3))).all()
        assert torch.equal(domain.move(x, torch.zeros_like(x)), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_paths_aimed_at_inner_corners_end_outside_walls_whatever_the_rounding(dtype):
    beam = ((0.21, 0.53), (0.83, 0.61))
    for seed in range(3):
        left = 0.3 + 0.1 * torch.rand(1, generator=gen(seed)).item()
        domain = Domain([0.0, 0.0], [0.97, 0.97], [beam, ((left, 0.31), (0.57, 0.53))])  # two faces meet at the aim
        x = torch.rand(20_000, 2, generator=gen(seed), dtype=dtype) * torch.tensor([left, 0.53])
        aim = torch.tensor([left, 0.53], dtype=dtype) - x
        for beyond in (1.0, 1.0 + 1e-6, 1.1, 3.0):
            end = domain.move(x, beyond * aim)
            assert domain.contains(end).all()
            assert beyond > 2 or ((end[:, 0] <= left + 1e-6) & (end[:, 1] <= 0.53 + 1e-6)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_agent_leaves_the_rooms_that_it_can_reach(dtype):
    for seed in range(4):
        domain, wall = maze(seed, share=0.5)
        rooms = ndimage.label(~wall)[0]
        assert rooms.max() > 1
        lines = torch.as_tensor(CUTS, dtype=dtype)

        def room(x, rooms=rooms, lines=lines):
            return rooms[tuple((torch.searchsorted(lines, x.T.contiguous(), right=True) - 1).clamp(0, 6).numpy())]

        x = torch.rand(800, 2, generator=gen(seed), dtype=dtype)
        x = x[domain.contains(x)]
        for scale in SCALES:
            end = domain.move(x, displacements(len(x), 2, scale, dtype))
            between = ~torch.isin(end, lines).any(1).numpy()  # on a line, several rooms may own it
            assert between.mean() > 0.97
            assert (room(end) == room(x))[between].all()


def test_a_thin_wall_across_the_box_is_not_crossed():
    domain = Domain([0.0, 0.0], [1.0, 1.0], [((0.5, 0.0), (0.5 + 1e-6, 1.0))])
    x = domain.uniform(20_000, gen())
    for scale in SCALES:
        end = domain.move(x, displacements(len(x), 2, scale, torch.float32))
        assert ((end[:, 0] <= 0.5) == (x[:, 0] <= 0.5)).all()


def test_the_path_is_continuous_and_as_long_as_the_displacement():
    domain, _ = maze(5)
    x, steps = domain.uniform(300, gen()).double(), 200
    v = displacements(len(x), 2, 1.0, torch.float64)
    path = torch.stack([domain.move(x, v * i / steps) for i in range(steps + 1)])
    assert domain.contains(path.view(-1, 2)).all()
    pieces = path.diff(dim=0).abs()
    assert (pieces <= v.abs() / steps + 1e-12).all()  # no jumps
    whole = (pieces - v.abs() / steps).abs() < 1e-12
    assert whole.double().mean() > 0.95  # only pieces with a reflection are shorter


def test_reflection_is_reversible():
    domain, _ = maze(6)
    x = domain.uniform(1000, gen()).double()
    v = displacements(len(x), 2, 1.0, torch.float64)
    end = domain.move(x, v)
    last = end - domain.move(x, v * (1 - 1e-6))  # the direction at the end; unclear if a reflection is that near
    clear = ((last.abs() - 1e-6 * v.abs()).abs() < 1e-12).all(1)
    assert clear.double().mean() > 0.99
    back = domain.move(end, -last.sign() * v.abs())
    torch.testing.assert_close(back[clear], x[clear], rtol=0, atol=1e-9)


def test_at_flat_faces_two_moves_have_the_law_of_one_if_the_second_is_symmetric():
    noise = 0.1 * torch.rand(5000, 1, generator=gen(), dtype=torch.float64)
    noise = torch.cat([noise, -noise])
    line, v = Domain(0.0, 1.0), torch.full_like(noise, -0.3)
    for x in (0.25, 0.35, 0.5):
        x = torch.full_like(noise, x)
        one, two = line.move(x, v + noise), line.move(line.move(x, v), noise)
        torch.testing.assert_close(one.sort(0).values, two.sort(0).values, rtol=0, atol=1e-12)
    # A wall's end: past it goes one segment of two, while the move alone is reflected.
    box, noise = Domain([0.0, 0.0], [1.0, 1.0], [((0.4, 0.0), (0.6, 0.5))]), torch.cat([0 * noise, noise], 1)
    x, v = torch.tensor([[0.3, 0.48]]).double().expand_as(noise), torch.tensor([[0.2, 0.0]]).double().expand_as(noise)
    assert (box.move(box.move(x, v), noise)[:, 0] < 0.4).all()
    assert 0.2 < (box.move(x, v + noise)[:, 0] > 0.4).double().mean() < 0.5


def reflected(x, lower, upper):
    while not lower <= x <= upper:
        x = 2 * lower - x if x < lower else 2 * upper - x
    return x


def test_in_one_dimension_it_is_a_loop_of_reflections():
    domain, x = Domain(-0.3, 1.1), torch.linspace(-0.3, 1.1, 301, dtype=torch.float64)[:, None]
    for v in (-7.3, -1.4, -0.01, 0.0, 1e-9, 0.7, 2.8, 11.0):
        expected = [[reflected(y + v, -0.3, 1.1)] for y in x[:, 0].tolist()]
        torch.testing.assert_close(domain.move(x, torch.full_like(x, v)), torch.tensor(expected).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wall_along_a_side_is_a_smaller_box(dtype):
    small = Domain([0.0, 0.0], [1.0, 1.5])
    walled = Domain([0.0, 0.0], [1.0, 2.0], [((0.0, 1.5), (1.0, 2.0))])
    x = small.uniform(2000, gen()).to(dtype)
    assert small.volume == walled.volume == 1.5
    for scale in SCALES:
        v = displacements(len(x), 2, scale, dtype)
        near = dict(rtol=0, atol=20 * torch.finfo(dtype).eps)
        torch.testing.assert_close(walled.move(x, v), small.move(x, v), **near)


def test_reflection_at_a_wall_by_hand():
    domain = Domain([0.0, 0.0], [4.0, 4.0], [((1.0, 1.0), (2.0, 2.0)), ((2.0, 1.0), (3.0, 2.0))])
    cases = [  # start, displacement, end
        ((0.5, 1.5), (1.0, 0.0), (0.5, 1.5)),  # head on
        ((0.5, 1.25), (1.0, 0.5), (0.5, 1.75)),  # at an angle
        ((0.5, 0.5), (1.0, 1.0), (0.5, 0.5)),  # into an exact corner: straight back
        ((0.0, 0.5), (1.5, 0.25), (1.5, 0.75)),  # past it
        ((0.5, 1.0), (2.0, 0.0), (-0.5, 1.0)),  # along the line of a face: it counts as wall
        ((1.5, 1.0), (0.25, 0.0), (1.75, 1.0)),  # on a face, along it
        ((1.5, 1.0), (0.25, 0.5), (1.75, 0.5)),  # on a face, into the wall
        ((2.0, 0.5), (0.0, 1.0), (2.0, 0.5)),  # between two walls that touch: no gap
        ((3.5, 3.5), (1.0, 1.0), (3.5, 3.5)),  # the box's corner
        ((2.5, 2.5), (0.0, -1.0), (2.5, 2.5)),
    ]
    for start, v, end in cases:
        end = [abs(e) for e in end]  # the edge at 0 reflects
        moved = domain.move(torch.tensor([start]).double(), torch.tensor([v]).double())
        assert moved.tolist() == [end], (start, v)


def test_uniform_stays_uniform_under_symmetric_noise():
    domain, n = FourRooms().domain, 100_000
    x = domain.uniform(n, gen(99))
    assert domain.contains(x).all()
    bins = 20
    centres = (np.arange(bins) + 0.5) * 0.5 / bins
    grid = torch.tensor(np.stack(np.meshgrid(centres, centres, indexing="ij"), -1).reshape(-1, 2))
    free = domain.contains(grid).view(bins, bins).numpy()
    for noise in (0.0, 0.03, 0.3):
        for step in range(3):
            x = domain.move(x, noise * (2 * torch.rand(n, 2, generator=gen(step)) - 1))
        counts = np.histogram2d(*x.T.numpy(), bins, [(0, 0.5)] * 2)[0]
        expected, k = n / free.sum(), free.sum() - 1
        assert counts[~free].sum() < 1e-3 * n  # on faces, counted to the bin behind: by rounding alone
        chi_square = ((counts[free] - expected) ** 2 / expected).sum()
        assert abs(chi_square - k) < 5 * np.sqrt(2 * k)


def test_volume_and_contains():
    domain, wall = maze(7)
    sides = np.diff(CUTS)
    assert domain.volume == pytest.approx((np.outer(sides, sides) * ~wall).sum())
    hit = Domain(0.0, 1.0).contains(torch.rand(100, 1))
    assert hit.shape == (100,) and hit.all()
    x = torch.tensor([[0.5, 0.5], [0.4, 0.5], [0.4, 0.4], [1.0, 1.0], [1.01, 0.5], [0.5, -0.01]])
    domain = Domain([0.0, 0.0], [1.0, 1.0], [((0.4, 0.4), (0.6, 0.6))])
    assert domain.contains(x).tolist() == [False, True, True, True, False, False]
    assert domain.blocks(np.array([0.5, 0.5]), np.array([0.7, 0.7]))
    assert not domain.blocks(np.array([0.6, 0.4]), np.array([0.7, 0.6]))  # they touch


def test_fold_reflects_at_the_edge_alone():
    domain = Domain([0.0, 0.0], [1.0, 1.0], [((0.4, 0.4), (0.6, 0.6))])
    x = torch.tensor([[0.5, 0.5], [-0.25, 1.25], [3.25, -5.75]])
    torch.testing.assert_close(domain.fold(x), torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.75, 0.25]]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (([0.0, 0.0], [1.0]), "lower, upper: expected two corners"),
        (([0.0, 1.0], [1.0, 1.0]), r"lower, upper: expected .* lower < upper"),
        (([[0.0]], [[1.0]]), "lower, upper: expected two corners"),
        ((0.0, np.inf), "upper: expected finite"),
        (("left", 1.0), "lower: expected a number"),
        ((0.0, 1.0, [[(0.1, 0.2)]]), r"walls: expected shape \(m, 2, 1\), got \(1, 1, 2\)"),
        (([0.0, 0.0], [1.0, 1.0], [(0.1, 0.2)]), r"walls: expected shape \(m, 2, 2\), got \(1, 2\)"),
        (([0.0, 0.0], [1.0, 1.0], [((0.1, 0.2), (0.2, 0.2))]), r"walls\[0\]: expected lower < upper"),
        (([0.0, 0.0], [1.0, 1.0], [((0.1, 0.2), (0.2, 1.3))]), r"walls\[0\]: expected inside .*1\.3"),
        ((0.0, 1.0, [((0.1,), (0.4,)), ((0.3,), (0.5,))]), r"walls\[1\]: expected no overlap with an earlier wall"),
        ((0.0, 1.0, [((0.0,), (0.4,)), ((0.4,), (1.0,))]), "walls: expected some free space"),
    ],
    ids=str,
)
def test_bad_boxes_and_walls_are_named(given, message):
    with pytest.raises(ValueError, match=message):
        Domain(*given)


def test_repr_shows_the_corners():
    assert repr(Domain(0, 1, [((0.25,), (0.5,))])) == "Domain([0.0], [1.0], walls=[[[0.25], [0.5]]])"


def test_edges_are_the_faces_of_walls_and_the_ends():
    (ends,) = Domain([-1.0], [2.0]).edges
    assert ends.tolist() == [-1.0, 2.0]
    for edges in FourRooms().domain.edges:
        np.testing.assert_allclose(edges, [0.0, 0.125, 0.175, 0.225, 0.275, 0.325, 0.375, 0.5], rtol=1e-15)
    x, y = Domain([0.0, 0.0], [0.5, 0.5], [((0.1, 0.0), (0.2, 0.3))]).edges
    assert x.tolist() == [0, 0.1, 0.2, 0.5] and y.tolist() == [0, 0.3, 0.5]
