"""Linear-quadratic games whose coefficients change over time, and terminal rewards."""

import numpy as np
import pytest
import torch
from helpers import gen, random_game
from scipy.integrate import solve_ivp

from mfglib import exploitability
from mfglib.exact import grid_equilibrium, lq_equilibrium, lq_fictitious_play
from mfglib.games import LinearQuadratic
from mfglib.games.linear_quadratic import OVER_TIME
from mfglib.populations import MeanPath
from mfglib.rollout import rollout


def over_time(game, random=None, coupling=0.2):
    """`game` with the same coefficients as arrays over time, or with random ones."""
    d, k, T = game.state_dim, game.action_dim, game.horizon
    values = {name: game.coefficients(name).copy() for name in OVER_TIME}
    if random is not None:
        scatter = {name: random.normal(size=v.shape) for name, v in values.items()}
        for name in ("A", "B"):
            values[name] += 0.3 * scatter[name]
        values["x_target"] = scatter["x_target"]
        for name in ("c_x", "c_m"):
            values[name] = scatter[name] @ scatter[name].transpose(0, 2, 1) / d
        values["c_a"] = scatter["c_a"] @ scatter["c_a"].transpose(0, 2, 1) / k + np.eye(k)
        for name in ("A_bar", "h"):
            values[name] = coupling * scatter[name]
    others = {name: getattr(game, name) for name in ("initial_mean", "initial_std", "noise_std")}
    return LinearQuadratic(**values, **others, horizon=T)


def varying(d, k, T, seed):
    return over_time(random_game(d, k, T, seed), np.random.default_rng(seed))


GAMES = [(1, 1, 6, 0), (2, 2, 5, 1), (3, 2, 4, 2), (2, 3, 5, 3)]


@pytest.mark.parametrize(("d", "k"), [(1, 1), (3, 2)])
def test_constants_given_over_time_change_nothing(d, k):
    one = random_game(d, k, 5, 4)
    other = over_time(one)
    assert other.A.ndim == 3 and other.x_target.ndim == 2
    found, again = lq_equilibrium(one), lq_equilibrium(other)
    for name in ("K", "k", "mean", "cov", "value"):
        np.testing.assert_array_equal(getattr(found, name), getattr(again, name))
    x, crowd = torch.randn(9, d, generator=gen()), MeanPath(found.mean)
    a = torch.randn(9, k, generator=gen(1))
    for t in range(one.horizon):
        assert torch.equal(one.reward(t, x, a, crowd), other.reward(t, x, a, crowd))
        assert torch.equal(one.step(t, x, a, crowd, gen(t)), other.step(t, x, a, crowd, gen(t)))


@pytest.mark.parametrize("shape", GAMES)
def test_nobody_gains_by_other_actions(shape):
    """By automatic differentiation of the game's own steps and rewards, without noise: at the equilibrium the slope in
    each action is 0, and no second derivative is positive."""
    game = varying(*shape)
    eq = lq_equilibrium(game)
    crowd = MeanPath(eq.mean, eq.actions)

    def earned(actions):
        x, total = eq.mean[:1], 0.0
        for t, a in enumerate(actions):
            total = total + game.reward(t, x, a[None], crowd).sum()
            x = game.moved(t, x, a[None], crowd)
        return total + game.reward(game.horizon, x, torch.zeros_like(actions[:1]), crowd).sum()

    size = earned(eq.actions).abs()
    assert torch.autograd.functional.jacobian(earned, eq.actions).abs().max() < 1e-9 * (1 + size)
    curvature = torch.autograd.functional.hessian(earned, eq.actions).reshape(eq.actions.numel(), -1)
    assert torch.linalg.eigvalsh(curvature).max() < 0
    x = eq.mean[0]
    for t, a in enumerate(eq.actions):  # and the crowd goes where it is said to be
        x = game.moved(t, x[None], a[None], crowd)[0]
        torch.testing.assert_close(x, eq.mean[t + 1], atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", GAMES)
def test_the_value_is_what_the_moments_earn(shape):
    game = varying(*shape)
    eq, total = lq_equilibrium(game), 0.0
    for t in range(game.horizon + 1):
        m, S = eq.mean[t].numpy(), eq.cov[t].numpy()
        c_x, c_m = game.coefficient("c_x", t), game.coefficient("c_m", t)
        off = m - game.coefficient("x_target", t)
        total -= off @ c_x @ off + np.trace((c_x + c_m) @ S)
        if t < game.horizon:
            K, a = eq.K[t].numpy(), eq.actions[t].numpy()
            c_a = game.coefficient("c_a", t)
            total -= a @ c_a @ a + np.trace(c_a @ K @ S @ K.T) - m @ game.coefficient("h", t) @ a
    assert eq.value == pytest.approx(total, rel=1e-10)
    assert exploitability(game, eq.policy).value < 1e-10 * abs(total)


def test_simulated_agents_are_the_population():
    game = varying(2, 2, 5, 1)
    eq = lq_equilibrium(game)
    play = rollout(game, eq.policy, n=100_000, generator=gen())
    spread = eq.cov.diagonal(dim1=1, dim2=2).sqrt()
    assert ((play.x.mean(1) - eq.mean).abs() / spread).max() < 0.02
    assert play.reward.sum(0).mean() == pytest.approx(eq.value, rel=0.02)


def test_exact_fictitious_play_goes_there():
    game = varying(1, 1, 6, 0)
    eq, play = lq_equilibrium(game), lq_fictitious_play(game, 60)
    assert play.exploitability[-1] < 0.02 * play.exploitability[0]
    assert np.abs(play.mean[-1] - eq.mean.numpy()).max() < 0.1


# --- terminal rewards


def test_a_terminal_weight_is_the_last_of_the_weights_over_time():
    weights = np.full((7, 1, 1), 5.0)
    weights[-1] = 40.0
    one, other = LinearQuadratic(horizon=6, c_T=40.0), LinearQuadratic(horizon=6, c_x=weights)
    assert repr(one) == repr(other)
    assert lq_equilibrium(one).value == lq_equilibrium(other).value
    same = LinearQuadratic(horizon=6, c_T=5.0)
    assert lq_equilibrium(same).value == lq_equilibrium(LinearQuadratic(horizon=6)).value
    games = [LinearQuadratic(horizon=6, c_x=0.1, c_T=c) for c in (0.1, 1.0, 10.0)]
    far = [abs(lq_equilibrium(game).mean[-1].item() - 0.6) for game in games]
    assert far[0] > 5 * far[1] > 25 * far[2]


def test_on_a_wide_grid_it_is_the_same_game():
    changing = np.linspace(1.0, 0.8, 4)[:, None, None]
    options = dict(A=changing, c_x=1.0, c_T=3.0, c_a=1.0, horizon=4, initial_std=0.3, noise_std=0.1)
    exact = lq_equilibrium(LinearQuadratic(**options))
    found = grid_equilibrium(LinearQuadratic(**options, x_bound=2.0, a_bound=1.0), 200, progress=False)
    assert found.value == pytest.approx(exact.value, rel=5e-3)
    path = torch.stack([found.population.mean(t) for t in range(5)])
    torch.testing.assert_close(path, exact.mean, atol=5e-3, rtol=0)


@pytest.mark.parametrize("c", [0.0, 2.0])
@pytest.mark.parametrize("q", [0.0, 0.5])
def test_systemic_risk_in_continuous_time(c, q):
    """Carmona, Fouque and Sun (arXiv 1308.2172), without common noise: banks lend and borrow at rate α,
    dX = a (m − X) dt + α dt + σ dW, and pay α²/2 − q α (m − X) + ε (m − X)²/2, and c (m − X)²/2 in the end.

    With β = α − q (m − X) the cross term is gone: dX = (a + q)(m − X) dt + β dt + σ dW, at a cost of β²/2 +
    (ε − q²)(m − X)²/2. The equilibrium is β = η_t (m − X), η' = 2 (a + q) η + η² − (ε − q²), η_T = c.
    """
    a, eps, T = 1.0, 4.0, 1.0
    eta = solve_ivp(
        lambda t, y: 2 * (a + q) * y + y**2 - (eps - q**2), (T, 0.0), [c], rtol=1e-11, atol=1e-12, dense_output=True
    ).sol
    errors, counts = [], np.array([50, 100, 200, 400])
    for n in counts:
        dt, weights = T / n, np.full((n + 1, 1, 1), (eps - q**2) / 2 * T / n)
        weights[-1] = c / 2
        rate = (a + q) * dt
        game = LinearQuadratic(
            A=1 - rate, A_bar=rate, B=dt, c_x=0.0, c_a=dt / 2, c_m=weights, horizon=int(n), noise_std=0.5 * dt**0.5
        )
        eq = lq_equilibrium(game)
        errors.append(np.abs(-eq.K[:, 0, 0].numpy() - eta(np.arange(n) * dt)[0]).max())
        torch.testing.assert_close(eq.k[:, 0], -eq.K[:, 0, 0] * eq.mean[:-1, 0], atol=1e-9, rtol=0)  # β = η (m − X)
        assert eq.mean.std() < 1e-9  # nobody moves the mean
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order == pytest.approx(1.0, abs=0.1) and errors[-1] < 0.02


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(A=np.ones((3, 1, 1))), "A: expected its values at 4 times, got shape .3, 1, 1."),
        (dict(c_x=np.ones((4, 1, 1))), "c_x: expected its values at 5 times, got shape"),
        (dict(x_target=np.ones((4, 1))), "x_target: expected its values at 5 times, got shape"),
        (dict(c_a=np.array([1.0, 1.0, 0.0, 1.0])[:, None, None]), r"c_a\[2\]: expected > 0"),
        (dict(c_m=-np.ones((5, 1, 1))), r"c_m\[0\]: expected >= 0"),
        (dict(B=np.ones((4, 2, 1)), A=1.0, c_x=np.ones(3)), r"B\[0\]: expected|c_x: expected"),
        (dict(c_T=-1.0), "c_T: expected >= 0"),
        (dict(c_T=np.ones((5, 1, 1))), "c_T: expected"),
        (dict(noise_std=np.ones((4, 1, 1))), "noise_std: expected"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        LinearQuadratic(horizon=4, **changes)
