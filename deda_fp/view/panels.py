"""The panels of the notebooks 00, 01, 02, 04, 05 and 08; that of 03 is in `deda_fp.view.error_panel`."""

import copy
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from deda_fp.finite import lq_gain
from deda_fp.view import plots, rooms
from deda_fp.view.panel import Panel, choice, row_of_axes, slider, whole
from mfglib.exact import LQEquilibrium, lq_equilibrium, lq_fictitious_play
from mfglib.exact.dynamic_programming import grid_evaluate
from mfglib.exact.grid import Grid
from mfglib.exact.responses import best_response
from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.judge import exploitability
from mfglib.policies import AffinePolicy
from mfglib.populations import CellPopulation, Particles
from mfglib.protocols import Exploitability, Population
from mfglib.rollout import rollout
from mfglib.schedules import constant
from mfglib.seeds import generator

# --- 00: the equilibrium

SLIDERS = {  # name: label, start, end, step
    "c_m": ("attraction c_m", 0.0, 20.0, 0.5),
    "c_a": ("cost of moving c_a", 1.0, 40.0, 1.0),
    "A_bar": ("drag of the crowd Ā", -0.5, 0.5, 0.02),
    "x_target": ("target (state)", -1.0, 1.0, 0.1),
    "share": ("share of its actions", 0.0, 1.5, 0.05),
}


def equilibrium_explorer(share: float = 0.5, **parameters: Any) -> Panel:
    """Sliders for c_m, c_a, Ā, target and `share`, beside the equilibrium and the population of a chosen policy.

    The chosen policy plays a = share · (K_t x + k_t): 0 does nothing, 1 is the equilibrium.
    `parameters`: those of a one-dimensional, unbounded `LinearQuadratic`; scalars.
    """
    start = {"c_m": 1.0, "c_a": 0.1, "A_bar": 0.06, "x_target": 0.6, "share": share} | parameters
    dials = {n: slider(label, start[n], low, high, step) for n, (label, low, high, step) in SLIDERS.items()}
    t = np.arange(LinearQuadratic(**parameters).horizon + 1)
    fig, (ax,) = row_of_axes(1, 8.4)
    spread = ax.fill_between(t, 0 * t, 0 * t, color=plots.EXACT, alpha=0.18, linewidth=0)
    (mean,) = ax.plot(t, 0 * t, color=plots.EXACT, label="equilibrium, mean ± std")
    (other,) = ax.plot(t, 0 * t, color=plots.LEARNED, linestyle="--", label="mean if all play the share")
    target = ax.axhline(0.0, color=plots.GREY, linewidth=1, linestyle=":", label="target")
    ax.set(xlim=(0, t[-1]), ylim=(-1.6, 1.6), xlabel="time t", ylabel="state x", title=" ")
    ax.legend(loc="lower right", ncols=3)
    plots.whole_numbers(fig)

    def draw(share: float, **chosen: float) -> None:
        eq, judged = scaled_equilibrium(LinearQuadratic(**{**parameters, **chosen}), share)
        middle, std = eq.mean[:, 0].numpy(), eq.cov[:, 0, 0].sqrt().numpy()
        _refill(spread, t, middle - std, middle + std)
        mean.set_ydata(middle)
        other.set_ydata(judged.mean[:, 0])
        target.set_ydata([chosen["x_target"]] * 2)
        ax.set_title(f"exploitability of the chosen policy: {judged.value:.4f}")

    return Panel(fig, draw, dials)


def scaled_equilibrium(game: LinearQuadratic, share: float) -> tuple[LQEquilibrium, Exploitability]:
    """The equilibrium, and the exact exploitability of a = share · (K_t x + k_t) in its own population."""
    eq = lq_equilibrium(game)
    return eq, exploitability(game, AffinePolicy(share * eq.K, share * eq.k))


def _refill(filled: Any, x: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """New edges of a `fill_between`."""
    filled.set_verts([np.column_stack([np.r_[x, x[::-1]], np.r_[low, high[::-1]]])])


# --- 01: steps of fictitious play


def schedule_explorer(iterations: int = 20, **parameters: Any) -> Panel:
    """Dials for the constant step η and for c_m, beside the exploitability of exact fictitious play with that step and
    with the paper's 1/k, in % of the equilibrium's value. `parameters`: of a `LinearQuadratic`, c_m excepted."""

    @cache
    def curve(c_m: float, step: float | None) -> np.ndarray:
        game = LinearQuadratic(**parameters, c_m=c_m)
        play = lq_fictitious_play(game, iterations, "uniform" if step is None else constant(step))
        return 100 * play.exploitability / abs(lq_equilibrium(game).value)

    k = np.arange(iterations + 1)
    fig, (ax,) = row_of_axes(1, 8.4)
    (uniform,) = ax.plot(k, k + 1.0, color=plots.OTHER, marker=".", label="uniform: step 1/k")
    (stepped,) = ax.plot(k, k + 1.0, color=plots.PALETTE[0], marker=".", label="constant step η")
    ax.set(yscale="log", ylim=(1e-8, 1e4), xlabel="iteration k", ylabel="exploitability, % of the value", title=" ")
    ax.legend(loc="lower left")
    plots.whole_numbers(fig)

    def draw(step: float, c_m: float) -> None:
        uniform.set_ydata(curve(c_m, None))
        stepped.set_ydata(np.maximum(curve(c_m, step), 1e-14))
        ax.set_title(f"after {iterations} iterations: 1/k {curve(c_m, None)[-1]:.3g}%, η {curve(c_m, step)[-1]:.3g}%")

    dials = {"step": slider("step η", 0.5, 0.05, 1.0, 0.05), "c_m": slider("attraction c_m", 10.0, 0.0, 20.0, 1.0)}
    return Panel(fig, draw, dials)


# --- 02: iterations of a run


def iterations_explorer(
    x: np.ndarray,
    density: np.ndarray,
    action: np.ndarray,
    exploitability: np.ndarray,
    exact_density: np.ndarray,
    exact_action: np.ndarray,
    times: Sequence[int],
) -> Panel:
    """A run, iteration by iteration: density of the flow (K+1, len(times), n) and mean action of the average policy of
    the same shape at states x (n,), beside the exact ones (len(times), n), and exploitability (K+1,) so far."""
    K = len(exploitability) - 1
    fig, (left, middle, right) = row_of_axes(3, 3.9, 3.3)
    (crowd,) = left.plot(x, density[0, 0], color=plots.LEARNED, label="flow")
    (truth,) = left.plot(x, exact_density[0], label="exact", **plots.EXACT_LINE)
    (act,) = middle.plot(x, action[0, 0], color=plots.LEARNED, label="average policy")
    (law,) = middle.plot(x, exact_action[0], label="exact", **plots.EXACT_LINE)
    right.plot(range(K + 1), exploitability, color="0.85", marker=".")
    (way,) = right.plot([0], exploitability[:1], color=plots.LEARNED, marker=".")
    left.set(xlabel="state x", ylabel="density", ylim=(0, 1.1 * np.nanmax(exact_density)), title=" ")
    middle.set(xlabel="state x", ylabel="mean action", ylim=1.1 * np.array([exact_action.min(), exact_action.max()]))
    right.set(yscale="log", xlabel="iteration k", ylabel="exploitability", title=" ")
    plots.legends(left, middle)
    plots.whole_numbers(fig)

    def draw(k: int, time: int) -> None:
        i = list(times).index(time)
        crowd.set_ydata(density[k, i])
        truth.set_ydata(exact_density[i])
        act.set_ydata(action[k, i])
        law.set_ydata(exact_action[i])
        way.set_data(range(k + 1), exploitability[: k + 1])
        left.set_title(f"iteration {k}, time {time}")
        right.set_title(f"exploitability {exploitability[k]:.3g}")

    return Panel(fig, draw, {"k": whole("iteration k", K, 0, K), "time": choice("time t", times, times[-1])})


# --- 04: one agent against the crowd of the beach


def beach_explorer(crowd: CellPopulation, game: BeachBar | None = None) -> Panel:
    """What one agent does against a given crowd on the beach, if crowding cost c_m, and with entropy bonus τ: the
    density of agents who best respond to it, and their mean action, at time t."""
    grid, game = crowd.grid, game or BeachBar()
    x = grid.x[:, 0].numpy()

    @cache
    def response(c_m: float, tau: float) -> tuple[np.ndarray, np.ndarray, float]:
        changed = copy.copy(game)
        changed.c_m = c_m
        other = Grid(changed, len(x))
        policy = best_response(other, CellPopulation(other, crowd.mass), tau)
        played = grid_evaluate(other, policy, CellPopulation(other, crowd.mass))
        mean = (policy.shares.double() @ grid.actions)[..., 0].numpy()
        density = np.stack([played.population.density(t) for t in range(game.horizon + 1)])
        return density, np.vstack([mean, np.full(len(x), np.nan)]), played.value

    fig, (left, right) = row_of_axes(2)
    (given,) = left.plot(x, x, label="the crowd", **plots.EXACT_LINE)
    (own,) = left.plot(x, x, color=plots.PALETTE[0], label="agents who best respond to it")
    (act,) = right.plot(x, x, color=plots.PALETTE[0])
    left.set(xlabel="state x", ylabel="density", ylim=(0, 8), title=" ")
    right.set(xlabel="state x", ylabel="mean action", ylim=(-0.35, 0.35), title="their mean action")
    left.legend(loc="upper left")

    def draw(c_m: float, tau: float, time: int) -> None:
        density, mean, value = response(c_m, tau)
        given.set_ydata(crowd.density(time))
        own.set_ydata(density[time])
        act.set_ydata(mean[time])
        left.set_title(f"time {time}; they earn {value:.2f}")

    dials = {
        "c_m": choice("cost of crowding c_m", [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0], 1.0),
        "tau": choice("entropy bonus τ", [0.0, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0], 0.05),
        "time": whole("time t", 2, 0, game.horizon),
    }
    return Panel(fig, draw, dials)


# --- 05: rooms over time


def rooms_explorer(game: FourRooms, exact: CellPopulation, flow: Population, agents: torch.Tensor) -> Panel:
    """The crowd at time t: exact, by the flow, and by a kernel on the first N of `agents` (T+1, n, 2) of the learned
    policy; and the path of one of them so far."""
    domain, points, T = game.domain, 40, game.horizon
    learned = [rooms.on_lattice(flow, domain, t, points) for t in range(T + 1)]

    @cache
    def kernel(n: int, t: int) -> np.ndarray:
        return rooms.on_lattice(Particles(agents[:, :n]), domain, t, points, walls=True)

    fig, axes = row_of_axes(4, 2.9, 3.2)
    rooms.densities(axes[:3], domain, [domain.volume * exact.density(0), learned[0], kernel(100, 0)])
    rooms.plan(axes[3], domain)
    (path,) = axes[3].plot([], [], color=plots.LEARNED, marker=".", linewidth=1)
    (here,) = axes[3].plot([], [], "o", color=plots.LEARNED)
    for ax, title in zip(axes, ("exact", "flow", "kernel", "one agent"), strict=True):
        ax.set_title(title)

    def draw(time: int, n: int, agent: int) -> None:
        for ax, values in zip(
            axes, (domain.volume * exact.density(time), learned[time], kernel(n, time)), strict=False
        ):
            ax.images[0].set_data(np.clip(values, *rooms.RANGE).T)
        axes[2].set_title(f"kernel, N = {n:,}")
        axes[3].set_title(f"agent {agent}, time {time}")
        way = agents[: time + 1, agent].numpy()
        path.set_data(*way.T)
        here.set_data(*way[-1:].T)

    dials = {
        "time": whole("time t", 8, 0, T),
        "n": choice("agents of the kernel N", [10, 100, 1000, agents.shape[1]], 100),
        "agent": whole("agent", 0, 0, min(99, agents.shape[1] - 1)),
    }
    return Panel(fig, draw, dials)


# --- 08: from N agents to the mean field


def crowd_explorer(game: LinearQuadratic, seed: int = 0) -> Panel:
    """N agents of a one-dimensional, unbounded game who play its mean field equilibrium: where they are at time t, and
    what one of them could gain."""
    eq, bins = lq_equilibrium(game), np.linspace(0.3, 0.9, 31)
    x, numbers = torch.linspace(0.3, 0.9, 300)[:, None].double(), [2, 3, 5, 10, 30, 100, 300, 1000, 10_000]

    @cache
    def crowd(n: int) -> np.ndarray:
        return rollout(game, eq.policy, n=n, generator=generator(seed, "panel", n), rewards=False).x[..., 0].numpy()

    gains = [lq_gain(game, eq.policy, n).value for n in numbers]
    fig, (left, right) = row_of_axes(2)
    bars = left.stairs(np.zeros(len(bins) - 1), bins, fill=True, color=plots.PALETTE[0], alpha=0.4, label="N agents")
    (limit,) = left.plot(x, 0 * x, label="mean field", **plots.EXACT_LINE)
    right.loglog(numbers, gains, color="0.8", marker=".")
    (here,) = right.plot(numbers[:1], gains[:1], "o", color=plots.PALETTE[0])
    left.set(xlim=(0.3, 0.9), ylim=(0, 16), xlabel="state x", ylabel="density", title=" ")
    right.set(xlabel="agents N", ylabel="gain of one deviation", title=" ")
    left.legend(loc="upper left")

    def draw(n: int, time: int) -> None:
        inside = np.histogram(crowd(n)[time], bins)[0]
        bars.set_data(inside / (n * np.diff(bins)))
        limit.set_ydata(eq.population.log_prob(time, x).exp())
        here.set_data([n], [gains[numbers.index(n)]])
        left.set_title(f"N = {n:,}, time {time}")
        right.set_title(f"gain {gains[numbers.index(n)]:.2g}")

    return Panel(fig, draw, {"n": choice("agents N", numbers, 30), "time": whole("time t", 10, 1, game.horizon)})
