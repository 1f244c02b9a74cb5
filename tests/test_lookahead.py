"""What is particular to looking ahead (`mfglib.learn.lookahead`); see also tests/test_best_responses.py."""

import dataclasses

import pytest
import torch
from helpers import Congestion, Jam, gen
from scipy.stats import chisquare, wasserstein_distance
from test_best_responses import BAR, BOUNDED, ROOMS, crowd_of

from mfglib.exact.dynamic_programming import grid_best_response
from mfglib.exact.grid import Grid
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.games.base import clip, known_moves
from mfglib.games.bounded import BoundedGame, Law
from mfglib.games.domain import Domain
from mfglib.learn.candidates import REFINEMENT, LookaheadPolicy, ahead, around, candidates
from mfglib.learn.lookahead import RIDGE, _refit
from mfglib.learn.networks import head, mlp
from mfglib.learn.table import Table, cells_of, table_of
from mfglib.populations import CellPopulation
from mfglib.recipes import recipe_of
from mfglib.seeds import Random, isolated


def fresh(game, **config):
    sizes = {"networks": dict(hidden=(32, 32), frequencies=0 if game is BOUNDED else 2)}
    sizes["look-ahead"] = dict(states=1024, batch=256, candidates=25, temperature=0.0) | config
    return recipe_of(game, preset="smoke", sizes=sizes).build()["best_response"]


def lookahead(game, population, values, t, x, a):
    """Q_t of actions a: (n, M, k)."""
    reward, z = ahead(game, population, t, x, a)
    return reward + values(t, z).view_as(reward)


class Known:
    """W_t(z) = (t + 4) z, without a network."""

    def __init__(self, temperature=0.0):
        self.temperature = torch.tensor(temperature)

    def __call__(self, t, z):
        return (t + 4) * z.sum(-1)


class Recorder:
    """A population of density 2x that counts what it is asked."""

    def __init__(self):
        self.rows = []

    def log_prob(self, t, x):
        self.rows.append(len(x))
        return (2 * x[:, 0]).log()

    def mean(self, t):
        return torch.zeros(1)


@pytest.fixture
def regular(monkeypatch):
    """Candidates are the same in each state, and there is no second look."""
    monkeypatch.setattr("mfglib.learn.candidates.around", lambda game, x, a, *_: a[:, None])

    def tried(game, x, number, *_, **__):
        return candidates(game, x, number, None, jitter=False)

    for module in ("candidates", "lookahead"):
        monkeypatch.setattr(f"mfglib.learn.{module}.candidates", tried)


# --- candidates


@pytest.mark.parametrize(("game", "number", "side"), [(BAR, 7, 7), (ROOMS, 25, 5), (ROOMS, 30, 5), (ROOMS, 4, 2)])
def test_candidates_are_one_in_each_cell_and_reach_the_bounds(game, number, side):
    k, n = game.action_dim, 4000
    a = candidates(game, torch.zeros(n, game.state_dim), number, gen())
    assert a.shape == (n, side**k, k)
    unit = a / game.a_bound * (side - 1) / side / 2 + 0.5  # cell i of `side` is [i, i + 1)/side
    low = torch.cartesian_prod(*[torch.arange(side)] * k).view(-1, k)
    assert ((unit * side >= low - 1e-5) & (unit * side <= low + 1 + 1e-5)).all()
    for end, outer in ((-1, low == 0), (1, low == side - 1)):
        beyond = (end * a > game.a_bound).float().mean(0)
        torch.testing.assert_close(beyond, 0.5 * outer.float(), atol=0.04, rtol=0)  # half of an outer cell
    assert (a[1:] != a[0]).any(2).any(1).all()  # other ones in each state
    torch.testing.assert_close(a.mean((0, 1)), torch.zeros(k), atol=0.02 * game.a_bound, rtol=0)


def test_regular_candidates_are_symmetric_and_others_depend_on_the_generator_alone():
    for game, number in ((BAR, 6), (ROOMS, 9)):
        x = torch.rand(3, game.state_dim)
        a = candidates(game, x, number, None, jitter=False)
        torch.testing.assert_close(a, -a.flip(1))
        assert torch.equal(a[0], a[2]) and a.max().item() == pytest.approx(game.a_bound)
        one, same, other = (candidates(game, x, number, gen(s)) for s in (1, 1, 2))
        assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(("game", "number", "side"), [(BAR, 7, 7), (ROOMS, 30, 5)])
def test_the_second_look_is_one_cell_around_the_first_choice(game, number, side):
    k, x = game.action_dim, torch.zeros(3000, game.state_dim)
    a = torch.rand(3000, k, generator=gen()) * game.a_bound
    unit = (around(game, x, a, number, gen()) - a[:, None]) / (2 * game.a_bound / (side - 1))  # in cells
    assert unit.shape == (3000, REFINEMENT**k, k) and unit.abs().max() < 0.5 + 1e-4
    low = torch.cartesian_prod(*[torch.arange(REFINEMENT)] * k).view(-1, k)
    assert (((unit + 0.5) * REFINEMENT).floor().clamp(0, REFINEMENT - 1) == low).float().mean() > 0.999
    torch.testing.assert_close(unit.mean((0, 1)), torch.zeros(k), atol=0.01, rtol=0)


# --- looking ahead


def test_lookahead_is_the_reward_and_the_value_where_the_move_ends_and_asks_for_each_density_once():
    x, crowd = torch.tensor([[0.1], [0.5], [0.95]]), Recorder()
    a = torch.tensor([[-0.2, 0.0, 0.3]]).expand(3, -1)[..., None]
    Q = lookahead(BAR, crowd, Known(), 2, x, a)
    moved = torch.tensor([[0.1, 0.1, 0.4], [0.3, 0.5, 0.8], [0.75, 0.95, 0.75]])  # two of them reflected
    expected = -25 * (x - 0.5) ** 2 - 2 * x - 10 * a[..., 0] ** 2 + 6 * moved
    torch.testing.assert_close(Q, expected)
    assert crowd.rows == [3]


def test_an_action_beyond_the_bounds_counts_as_the_one_at_the_bound_whatever_the_game_does_with_it():
    class Unclipped(BeachBar):
        def reward(self, t, x, a, population):
            return -a[:, 0].square()

        def displacement(self, t, x, a, population):
            return a

    x = torch.tensor([[0.3]])
    beyond = lookahead(Unclipped(), Recorder(), Known(), 1, x, torch.tensor([[[0.35], [-0.5]]]))
    torch.testing.assert_close(beyond, torch.tensor([[-0.09 + 5 * 0.6, -0.09 + 5 * 0.0]]))


def test_a_density_asked_elsewhere_is_the_density_there():
    class Ahead(BeachBar):
        def reward(self, t, x, a, population):
            return -population.log_prob(t, self.domain.fold(x + a))

    game, x, crowd = Ahead(), torch.tensor([[0.4], [0.6]]), Recorder()
    a = torch.tensor([[[-0.1], [0.2]]]).expand(2, -1, -1)
    expected = 5 * (x + a[..., 0]) - (2 * (x + a[..., 0])).log()
    torch.testing.assert_close(lookahead(game, crowd, Known(), 1, x, a), expected)


# --- the policy


def test_policy_acts_by_the_boltzmann_law_or_by_the_best_candidate(regular):
    actions = candidates(BAR, torch.zeros(1, 1), 5, None, jitter=False)[0]  # −0.3, −0.15, …, 0.3
    Q = lookahead(BAR, Recorder(), Known(), 0, torch.tensor([[0.5]]), actions[None])[0]
    x = torch.full((20_000, 1), 0.5)
    for temperature in (0.5, 2.0):
        law, policy = (Q / temperature).softmax(0), LookaheadPolicy(BAR, Recorder(), Known(temperature), 5)
        a = policy.sample(0, x, gen())
        counts = (a == actions.T).sum(0)
        assert counts.sum() == len(x) and counts.min() > 5  # nothing else, in several chunks
        assert chisquare(counts, len(x) * law.double() / law.double().sum()).pvalue > 1e-3
        torch.testing.assert_close(policy.mean(0, x[:2]), (law @ actions).expand(2, 1))
    greedy = LookaheadPolicy(BAR, Recorder(), Known(), 5)
    best = actions[Q.argmax()]
    assert 0 < best.item() < 0.3
    assert (greedy.sample(0, x, gen()) == best).all() and (greedy.mean(0, x) == best).all()


def test_the_second_look_comes_nearer_to_the_best_action_and_keeps_the_boltzmann_law(monkeypatch):
    x, fine = torch.full((20_000, 1), 0.5), torch.linspace(-0.35, 0.35, 1401)[:, None]
    Q = lookahead(BAR, Recorder(), Known(), 0, x[:1], fine[None])[0]
    best, law = fine[Q.argmax()].item(), (Q / 0.05).double().softmax(0).numpy()

    def distances():
        greedy = LookaheadPolicy(BAR, Recorder(), Known(), 7).sample(0, x, gen())
        drawn = LookaheadPolicy(BAR, Recorder(), Known(0.05), 7).sample(0, x, gen())
        return (greedy - best).abs().mean().item(), wasserstein_distance(drawn[:, 0], fine[:, 0], None, law)

    two = distances()
    monkeypatch.setattr("mfglib.learn.candidates.around", lambda game, x, a, *_: a[:, None])
    one = distances()
    assert two[0] < 0.5 * one[0] and max(one[1], two[1]) < 0.005


def test_values_are_the_best_or_the_smoothed_maximum_over_the_candidates(regular):
    x, learner = torch.tensor([[0.2], [0.5], [0.9]]), fresh(BAR, candidates=5)
    Q = lookahead(BAR, Recorder(), Known(), 1, x, candidates(BAR, x, 5, None, jitter=False))
    learner.faced = Recorder()
    del learner.values

    def values(t, temperature=0.0):
        learner.values = Known(temperature)
        return learner.next(t, x, gen())

    torch.testing.assert_close(values(1), Q.amax(1))
    torch.testing.assert_close(values(1, 0.5), 0.5 * (Q / 0.5).exp().mean(1).log())
    torch.testing.assert_close(values(3), (-25 * (x - 0.5) ** 2 - 2 * x)[:, 0])


def test_where_rewards_split_no_density_is_asked_for_to_act():
    """It is the same for all actions."""

    class Silent(Recorder):
        def log_prob(self, t, x):
            raise AssertionError("asked for its density")

    x = torch.linspace(0, 1, 50)[:, None]
    told, silent = (LookaheadPolicy(BAR, crowd, Known(0.3), 9, separable=split)
                    for crowd, split in ((Recorder(), False), (Silent(), True)))  # fmt: skip
    torch.testing.assert_close(told.sample(1, x, gen()), silent.sample(1, x, gen()), atol=1e-5, rtol=0)
    torch.testing.assert_close(told.mean(1, x), silent.mean(1, x), atol=1e-5, rtol=0)
    assert fresh(BAR).policy.separable and fresh(ROOMS).policy.separable
    assert not fresh(BOUNDED).policy.separable and not fresh(Jam(horizon=3)).policy.separable


# --- learning


def fit(learner, crowd, steps, temperature=0.0):
    learner.values.temperature.fill_(temperature)
    learner.config = dataclasses.replace(learner.config, first_steps=steps)
    return learner.sweep(crowd, 1, gen(1))


@pytest.mark.parametrize("tabulated", [True, False], ids=["table", "network"])
@pytest.mark.parametrize("game", [BAR, BOUNDED, ROOMS], ids=["bar", "LQ", "rooms"])
def test_values_are_the_grids(game, tabulated):
    crowd, learner = crowd_of(game), fresh(game)
    learner.values.table = learner.values.table if tabulated else None
    assert 0 <= fit(learner, crowd, 200) < 1
    V, x = grid_best_response(crowd.grid, crowd).V, crowd.grid.x.float()
    for t in range(game.horizon):
        exact = crowd.grid.expected(V[t + 1])
        with torch.no_grad():
            ours = learner.values(t, x).double()
        assert torch.corrcoef(torch.stack([ours, exact]))[0, 1] > 0.97
        assert (ours - exact).square().mean().sqrt() < 0.25 * exact.std()


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_values_are_expectations_over_the_noise(noise):
    game = BeachBar(horizon=1, c_m=0.0, noise_bound=noise)
    learner, z = fresh(game, states=4096, batch=1024), torch.linspace(0.42, 0.58, 9)[:, None]
    fit(learner, CellPopulation(Grid(game, 60), torch.full((2, 60), 1 / 60)), 200)
    exact = -25 * ((z - 0.5) ** 2 + noise**2 / 3)[:, 0]  # the ends are out of reach but for 2%
    torch.testing.assert_close(learner.values(0, z).detach(), exact, atol=0.3, rtol=0)


def test_targets_are_means_of_two_opposite_draws():
    """Where the next value is linear and no edge is near, the noise cancels."""
    learner, z = fresh(BeachBar(horizon=3)), torch.linspace(0.45, 0.55, 40)[:, None]
    learner.next = lambda t, x, generator: 3 * x[:, 0] + t
    torch.testing.assert_close(learner._targets(1, z, gen()), 3 * z[:, 0] + 2)
    learner.next = lambda t, x, generator: (x[:, 0] - z[:, 0]).square()
    drawn = BAR.noise.draw(40, gen(), z.dtype)[:, 0]
    torch.testing.assert_close(learner._targets(1, z, gen()), drawn.square())
    learner.game.noise.symmetric, random = False, gen()  # a law of one's own: two draws
    draws = [learner.game.noise.draw(40, random, z.dtype)[:, 0].square() for _ in range(2)]
    torch.testing.assert_close(learner._targets(1, z, gen()), sum(draws) / 2)


def test_temperature_spreads_the_actions_and_is_kept_with_the_values():
    learner, crowd, x = fresh(BAR, acting_candidates=49), crowd_of(BAR), torch.full((500, 1), 0.5)
    spreads = []
    for temperature in (0.0, 0.3, 3.0):
        fit(learner, crowd, 60, temperature)
        again = fresh(BAR, acting_candidates=49)
        again.load(learner.learned())
        again.faced = crowd
        spreads.append(again.policy.sample(2, x, gen()).std().item())
    assert spreads[0] < 0.02 < 0.035 < spreads[1] < 0.1 < spreads[2]


def test_what_acts_is_less_than_what_learns_on():
    learner, fresh_one = fresh(BAR), fresh(BAR)
    crowd, x = crowd_of(BAR), torch.linspace(0, 1, 30)[:, None]
    learner.fit(crowd, 1, Random(0, 1))
    assert set(learner.learned()) == {"values.W", "values.temperature"} < set(learner.state())
    fresh_one.load(learner.learned())
    fresh_one.faced = crowd
    assert torch.equal(fresh_one.policy.sample(0, x, gen()), learner.policy.sample(0, x, gen()))


# --- tables


def test_a_table_is_exact_for_linear_functions_and_at_centres_for_all():
    line, square = Table(cells_of(Domain(-1.0, 3.0), 50)), Table(cells_of(Domain([0.0, 1.0], [1.0, 3.0]), 20))
    for table in (line, square):
        d = table.x.shape[1]
        slopes = torch.tensor([[2.0, -1.0], [0.5, 3.0]])[:, :d]
        low, high = table.x.amin(0), table.x.amax(0)
        z = low + (high - low) * torch.rand(200, d, generator=gen())
        torch.testing.assert_close(table(slopes @ table.x.T, z), slopes @ z.T, atol=1e-5, rtol=1e-5)
        any_values = torch.randn(3, len(table.x), generator=gen())
        torch.testing.assert_close(table(any_values, table.x), any_values, atol=1e-4, rtol=1e-4)


THIN = Domain([0.0, 0.0], [1.0, 1.0], [((0.5, 0.0), (0.525, 0.75))])  # a wall of one cell, were there 40


@pytest.mark.parametrize(("domain", "middle"), [(ROOMS.domain, 0.25), (THIN, 0.5125)], ids=["rooms", "thin"])
def test_a_table_does_not_look_through_walls(domain, middle):
    """A function that jumps from 0 to 1 across a wall is 0 in one room and 1 in the next, up to the wall."""
    table = table_of(domain)
    right = (table.x[:, 0] > middle).float()[None]
    z = domain.uniform(4000, gen())
    for door in (0.35, 0.15, 0.25) if domain is ROOMS.domain else (0.875,):  # there it rises
        z = z[(z[:, 1] - door).abs() > (0.03 if domain is ROOMS.domain else 0.16)]
    torch.testing.assert_close(table(right, z)[0], (z[:, 0] > middle).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "domain", [Domain([0.0] * 3, [1.0] * 3), Domain([0.0, 0.0], [1.0, 1.0], [((0.5, 0.0), (0.5003, 0.7))])]
)
def test_without_a_table_networks_are_asked(domain):
    with pytest.raises(ValueError, match="domain: expected one or two|cells: expected a number whose lines run along"):
        table_of(domain)
    game = Box(domain)
    learner = recipe_of(game, preset="smoke").build()["best_response"]
    assert learner.values.table is None
    x = game.initial(20, gen())
    learner.fit(Uniform(domain), 1, Random(0, 1))
    with torch.no_grad():
        assert torch.equal(learner.values(0, x), learner.values.network(0, x))
    assert learner.learned().keys() == learner.state().keys()


class Box(BoundedGame):
    """Agents of a box of any dimension who avoid each other; two of their coordinates are theirs to choose."""

    action_dim, horizon, a_bound = 2, 2, 0.1

    def __init__(self, domain):
        self.domain, low = domain, domain.lower
        self.start, self.noise = Law.box(low, low + 0.2), Law("uniform", 0.0, 0.02, domain.state_dim)

    def displacement(self, t, x, a, population):
        return torch.nn.functional.pad(clip(a, self.a_bound), (0, self.state_dim - 2))

    def reward(self, t, x, a, population):
        return -population.log_prob(t, x) - a.square().sum(1)


class Uniform:
    def __init__(self, domain):
        self.domain = domain

    def sample(self, t, n, generator=None):
        return self.domain.uniform(n, generator)

    def log_prob(self, t, x):
        return x.new_zeros(len(x))

    def mean(self, t):
        return torch.full((self.domain.state_dim,), 0.5)


def test_a_refit_is_least_squares_held_to_what_was():
    """It minimises |h w − y|² + λ |w − before|², λ = RIDGE · mean of the diagonal of hᵀh."""
    with isolated(0, "net"):
        net = torch.nn.Sequential(*mlp(3, (16,)), head(16, 1))
    x = torch.randn(500, 3, generator=gen())
    target = x.square().sum(1) + 0.1 * torch.randn(500, generator=gen())

    def last():
        return torch.cat([net[-1].weight[0], net[-1].bias]).detach().double()

    before, loss = last(), (net(x).squeeze(-1) - target).square().mean()
    _refit(net, x, target)
    h = torch.cat([net[:-1](x), torch.ones(500, 1)], 1).detach().double()
    held = RIDGE * (h * h).sum(0).mean() * (last() - before)
    torch.testing.assert_close(h.T @ (target.double() - h @ last()), held, atol=1e-3, rtol=1e-3)
    assert (net(x).squeeze(-1) - target).square().mean() < 0.1 * loss


# --- what can be asked for


def test_games_that_can_look_ahead():
    class Own(BeachBar):
        def step(self, t, x, a, population, generator):
            return self.domain.move(x, a)

    assert all(known_moves(game) for game in (BeachBar(), FourRooms(), FourRooms.fast(), LinearQuadratic.paper()))
    unbounded = LinearQuadratic(), LinearQuadratic(x_bound=1.0), LinearQuadratic(a_bound=0.1)
    assert not any(known_moves(game) for game in (*unbounded, Own(), Congestion(), None))


def test_games_with_correlated_noise_cannot_look_ahead():
    assert not known_moves(LinearQuadratic(noise_std=[[0.1, 0.0], [0.05, 0.1]], x_bound=1.0, a_bound=0.1))


@pytest.mark.parametrize("game", [LinearQuadratic(horizon=3), Congestion()], ids=["unbounded", "of one's own"])
def test_games_that_cannot_look_ahead_are_refused_by_name(game):
    with pytest.raises(ValueError, match="best_response: expected another learner for this game, got one that looks"):
        recipe_of(game, preset="smoke", best_response="look-ahead").build()
