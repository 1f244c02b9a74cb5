import math

import numpy as np
import pytest
import torch
from helpers import gen
from torch.distributions import Independent, Normal

from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.networks import Inputs, Place, TimeTable
from mfglib.policies import AffinePolicy, MeanPolicy, sampler
from mfglib.schedules import AVERAGING, averaging_weights
from mfglib.seeds import isolated

T = 3


def random_policy(d=2, k=3, **options) -> GaussianPolicy:
    with isolated(0, "policy"):
        policy = GaussianPolicy(T, torch.ones(d), torch.full((d,), 2.0), torch.arange(1.0, k + 1), (16, 16), **options)
        for head in (policy.mean_head, policy.std_head):
            torch.nn.init.normal_(head.weight, std=0.5)
    return policy.requires_grad_(False)


@pytest.mark.parametrize(("d", "k"), [(1, 1), (2, 3), (3, 1)])
def test_shapes_and_density(d, k):
    policy, x = random_policy(d, k), torch.randn(7, d, generator=gen())
    for t in range(T + 1):  # the last time too
        a = policy.sample(t, x, gen(t))
        mean, std = policy(t, x)
        assert a.shape == mean.shape == std.shape == (7, k) and (std > 0).all()
        torch.testing.assert_close(policy.log_prob(t, x, a), Independent(Normal(mean, std), 1).log_prob(a))
        assert torch.equal(policy.mean(t, x), mean)
        torch.testing.assert_close(a, mean + std * torch.randn(7, k, generator=gen(t)))


def test_a_tensor_of_times_is_each_time_on_its_own():
    policy, x = random_policy(), torch.randn(40, 2, generator=gen())
    t = torch.arange(40) % (T + 1)
    together = policy(t, x)
    for i in range(40):
        alone = policy(int(t[i]), x[i : i + 1])
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[i], b[0])
    assert not torch.allclose(policy(0, x)[0], policy(1, x)[0])  # time matters


def test_standard_deviation_has_its_first_value_floor_and_ceiling():
    centre, unit = torch.zeros(1), torch.tensor([4.0])
    x = torch.linspace(-100, 100, 500)[:, None]
    with isolated(0):
        fresh = GaussianPolicy(T, centre, centre + 1, unit, (8,), initial_std=0.25)
    torch.testing.assert_close(fresh(0, x)[1], torch.full((500, 1), 1.0), atol=0.05, rtol=0)
    policy = random_policy(1, 1, min_std=0.3)
    for bias, expected in ((-50.0, 0.3), (50.0, math.e)):
        policy.std_head.bias.fill_(bias)
        torch.testing.assert_close(policy(1, x)[1], torch.full((500, 1), expected))


def test_maximal_standard_deviation_is_in_units_of_action():
    policy = random_policy(1, 2, max_std=0.7)
    policy.std_head.bias.fill_(50.0)
    torch.testing.assert_close(policy(1, torch.zeros(4, 1))[1], torch.tensor([[0.7, 1.4]]).expand(4, 2))


@pytest.mark.parametrize("bound", [False, True])
def test_bound_keeps_the_mean_within_the_unit_and_its_gradient_alive(bound):
    policy, x = random_policy(1, 2, bound=bound), torch.linspace(-50, 50, 200)[:, None]
    unit = torch.tensor([1.0, 2.0])
    free = policy.mean_head(policy.hidden(policy.inputs(1, x)))
    torch.testing.assert_close(policy.mean(1, x), (free.tanh() if bound else free) * unit)
    assert (policy.mean(1, x).abs() <= unit).all() == bound
    policy.mean_head.bias.copy_(torch.tensor([3.0, -3.0])).requires_grad_()
    policy.mean_head.weight.zero_()
    policy(1, x)[0].sum().backward()
    assert (policy.mean_head.bias.grad > 0).all()


@pytest.mark.parametrize("d", [1, 2])
def test_inputs_are_state_waves_and_time(d):
    centre, scale, x = torch.ones(d), torch.full((d,), 2.0), torch.randn(9, d, generator=gen())
    plain, wavy = Inputs(T, centre, scale), Inputs(T, centre, scale, waves=2)
    z = (x - centre) / scale
    assert torch.equal(plain(1, x), torch.cat([z, TimeTable(T)(1, 9)], 1)) and plain(1, x).shape == (9, plain.width)
    features = wavy(1, x)
    assert features.shape == (9, wavy.width) and wavy.width == plain.width + 4 * d
    for j in (1, 2):
        for i in range(d):
            for f in (np.sin, np.cos):
                wave = torch.from_numpy(f(np.pi * j * z[:, i].numpy()))
                assert any(torch.allclose(wave, column, atol=1e-5) for column in features.T)


EDGES = [torch.tensor([0.0, 1.0, 1.5, 4.0]), torch.tensor([-1.0, 1.0])]


def features_of(x, waves):
    """Of one state on the cells of EDGES, with centre 1 and scale 2, a number at a time."""
    z = [(v - 1) / 2 for v in x]
    features = list(z)
    for j in range(1, waves + 1):
        features += [math.sin(math.pi * j * v) for v in z] + [math.cos(math.pi * j * v) for v in z]
    for v, edges in zip(x, EDGES, strict=False):
        ends = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        inside = [low < v <= high or (i == 0 and v == low) for i, (low, high) in enumerate(ends)]
        features += [float(is_in) for is_in in inside]
        places = [2 * (v - low) / (high - low) - 1 for low, high in ends]
        features += [is_in * place for is_in, place in zip(inside, places, strict=True)]
    return features


@pytest.mark.parametrize("waves", [0, 2])
@pytest.mark.parametrize("d", [1, 2])
def test_place_is_the_state_its_waves_and_its_cells(d, waves):
    place = Place(torch.ones(d), torch.full((d,), 2.0), waves, EDGES[:d])
    x = torch.rand(50, d, generator=gen()) * torch.tensor([4.0, 2.0])[:d] - torch.tensor([0.0, 1.0])[:d]
    x[:4, 0] = EDGES[0]  # on faces too
    features = place(x)
    assert features.shape == (50, place.width) and place.width == d * (1 + 2 * waves) + (6 if d == 1 else 8)
    torch.testing.assert_close(features, torch.tensor([features_of(row, waves) for row in x.tolist()]))
    torch.testing.assert_close(place(x.double()), features)
    torch.testing.assert_close(Inputs(T, place.centre, place.scale, waves, EDGES[:d])(2, x)[:, : place.width], features)


def test_every_place_has_one_cell_and_jumps_at_a_face():
    place, tiny = Place(torch.zeros(1), torch.ones(1), edges=EDGES[:1]), 1e-5
    cells = place(torch.linspace(0, 4, 401)[:, None])[:, 1:4]
    assert (cells.sum(1) == 1).all() and (cells.sum(0) > 0).all()
    for i, face in enumerate(EDGES[0][1:-1].tolist()):
        below, above = place(torch.tensor([[face - tiny], [face + tiny]]))
        assert below[1 + i] == above[2 + i] == 1 and below[2 + i] == above[1 + i] == 0
        torch.testing.assert_close(below[4 + i], torch.tensor(1.0), atol=1e-3, rtol=0)  # the end of one, then the
        torch.testing.assert_close(above[5 + i], torch.tensor(-1.0), atol=1e-3, rtol=0)  # beginning of the next


def test_edges_change_the_policies_input_and_are_not_in_its_state():
    plain, cut = random_policy(), random_policy(edges=EDGES)
    assert cut.hidden[0].in_features == plain.hidden[0].in_features + 8
    assert set(cut.state_dict()) == set(plain.state_dict())


def test_without_waves_nothing_is_drawn_for_them():
    """The parameters of a policy with the options at their defaults are those of one without: mlp, then two heads."""
    policy = random_policy(bound=True, max_std=2.0)
    with isolated(0, "policy"):
        first = torch.nn.Linear(2 + T + 2, 16)
    assert torch.equal(policy.hidden[0].weight, first.weight)
    assert policy.hidden[0].in_features + 4 * 2 == random_policy(waves=2).hidden[0].in_features


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (dict(waves=-1), "waves"),
        (dict(waves=1.5), "waves"),
        (dict(min_std=0.0), "min_std"),
        (dict(initial_std=-1.0), "initial_std"),
        (dict(max_std=math.nan), "max_std"),
        (dict(min_std=0.5, max_std=0.4), "max_std"),
    ],
    ids=str,
)
def test_options_are_validated(given, name):
    with pytest.raises(ValueError, match=f"{name}: expected .*, got "):
        random_policy(**given)


def test_starts_near_zero():
    with isolated(0):
        policy = GaussianPolicy(T, torch.zeros(1), torch.ones(1), torch.ones(1), (32, 32))
    assert policy.mean(0, torch.linspace(-3, 3, 50)[:, None]).abs().max() < 0.01


def test_time_table_tells_times_apart():
    table = TimeTable(T)
    assert table(2, 5).shape == (5, table.width)
    assert torch.equal(table(torch.tensor([0, 3]), 2), torch.cat([table(0, 1), table(3, 1)]))
    assert len(torch.unique(table.table, dim=0)) == T + 1


@pytest.mark.parametrize("t", [-1, T + 1])
def test_gaussian_policy_refuses_times_outside_the_horizon(t):
    with pytest.raises((ValueError, IndexError)):
        random_policy().sample(t, torch.zeros(2, 2))


def test_greedy_acts_by_the_mean():
    policy, x = random_policy(), torch.randn(5, 2, generator=gen())
    greedy = MeanPolicy(policy)
    assert torch.equal(greedy.sample(1, x), policy.mean(1, x)) and torch.equal(greedy.mean(1, x), policy.mean(1, x))
    with pytest.raises(NotImplementedError, match="no density"):
        greedy.log_prob(1, x, policy.mean(1, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_affine_policy(dtype):
    K, k = torch.randn(T, 3, 2, generator=gen()), torch.randn(T, 3, generator=gen(1))
    policy, x = AffinePolicy(K, k, std=torch.tensor([0.1, 0.2, 0.3])), torch.randn(6, 2, generator=gen(2)).to(dtype)
    for t in range(T):
        mean = torch.stack([K[t].to(dtype) @ v + k[t].to(dtype) for v in x])
        torch.testing.assert_close(policy.mean(t, x), mean)
        a = policy.sample(t, x, gen(3))
        assert a.dtype == dtype
        law = Independent(Normal(policy.mean(t, x), torch.tensor([0.1, 0.2, 0.3]).to(dtype)), 1)
        torch.testing.assert_close(policy.log_prob(t, x, a), law.log_prob(a))
    assert torch.equal(policy.mean(T, x), torch.zeros(6, 3, dtype=dtype))
    many = policy.sample(0, x[:1].expand(50_000, 2), gen())
    torch.testing.assert_close(many.std(0), torch.tensor([0.1, 0.2, 0.3]).to(dtype), rtol=0.02, atol=0)


def test_deterministic_affine_policy_has_no_density():
    policy, x = AffinePolicy(torch.ones(T, 1, 1), torch.zeros(T, 1)), torch.ones(2, 1)
    assert torch.equal(policy.sample(0, x, gen()), policy.mean(0, x))
    with pytest.raises(ValueError, match="deterministic"):
        policy.log_prob(0, x, x)


def test_sampler_hands_over_the_generator_where_it_is_wanted():
    class Deaf:
        def sample(self, t, x):
            return t * x

    policy, x = random_policy(), torch.ones(3, 2)
    assert torch.equal(sampler(Deaf(), gen())(2, x), 2 * x)
    g = gen(1)
    first, second = (sampler(policy, g)(0, x) for _ in range(2))
    assert torch.equal(first, policy.sample(0, x, gen(1))) and not torch.equal(first, second)


@pytest.mark.parametrize("k", [1, 2, 7, 50])
def test_averaging_weights(k):
    i = np.arange(1, k + 1)
    np.testing.assert_allclose(averaging_weights(k), np.full(k, 1 / k), rtol=1e-12)
    np.testing.assert_allclose(averaging_weights(k, "linear"), i / i.sum(), rtol=1e-12)
    geometric = 0.3 * 0.7 ** (k - i)
    geometric[0] = 0.7 ** (k - 1)
    np.testing.assert_allclose(averaging_weights(k, "geometric", 0.3), geometric, rtol=1e-12)
    assert all(averaging_weights(k, a).sum() == pytest.approx(1, abs=1e-12) for a in AVERAGING)


def test_unknown_averaging_is_named():
    with pytest.raises(ValueError, match="averaging: expected one of .*'uniform'.*, got 'median'"):
        averaging_weights(3, "median")
