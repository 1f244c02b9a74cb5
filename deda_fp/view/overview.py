"""One call for a picture of a solution: density over time, policy, exploitability."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deda_fp.view import plots, rooms
from mfglib.arguments import checked
from mfglib.checks import integer
from mfglib.games.base import clip
from mfglib.games.bounded import BoundedGame
from mfglib.policies import sampler
from mfglib.protocols import Game
from mfglib.seeds import generator

AGENTS, POINTS, ARROWS = 20_000, 80, 12
DRAWS = 2000  # of actions at a state of a line: a mean has 2% of their spread as its error


@checked
def overview(solution: Any, game: Game | None = None, seed: int = 0) -> Figure:
    """A figure of a `Solution` or `GridEquilibrium` of `game`: its population, its policy and its exploitability.

    One dimension: density and mean action over (t, x). Two: densities at three times, and arrows of the mean action
    at the middle one. More: the first two coordinates of sampled states at three times, and no policy.
    Densities are those of 20 000 samples of the population, and mean actions those of sampled ones within the game's
    bounds; `seed` draws both. `game` may be left out where the solution knows its own.
    Raises TypeError naming the argument, ValueError for a seed < 0.
    """
    integer("seed", seed, at_least=0, at_most=None)
    if not (hasattr(solution, "population") and hasattr(solution, "policy") and hasattr(solution, "history")):
        raise TypeError(f"solution: expected a Solution or a GridEquilibrium, got {type(solution).__name__}")
    game = _game(solution) if game is None else game
    if not isinstance(game, Game):
        raise TypeError(f"game: expected a game, got {type(game).__name__}")
    random = generator(seed, "overview")
    T, d = game.horizon, game.state_dim
    states = [solution.population.sample(t, AGENTS, random).detach().double().cpu().numpy() for t in range(T + 1)]
    if isinstance(game, BoundedGame):
        low, high = (np.asarray(end, dtype=float) for end in (game.domain.lower, game.domain.upper))
    else:
        low, high = (np.quantile(np.concatenate(states), q, axis=0) for q in (0.001, 0.999))
    times = [0, T // 2, T]
    fig, axes = plots.panels(1, 3 if d == 1 else 5 if d == 2 else 4, height=3.6, layout="constrained")
    if d == 1:
        _line(fig, axes[0], game, solution.policy, states, float(low[0]), float(high[0]), random)
    else:
        _plane(fig, axes[0], game, states, times, low, high)
        if d == 2:
            _arrows(axes[0, 3], game, solution.policy, T // 2, low, high, random)
    _exploitability(axes[0, -1], solution.history)
    plots.whole_numbers(fig)
    return fig


def _game(solution: Any) -> Game:
    kept, grid = getattr(solution, "kept", None), getattr(getattr(solution, "policy", None), "grid", None)
    if kept is None and grid is None:
        raise TypeError("game: expected the game of the solution, which does not know it itself, got None")
    return grid.game if kept is None else kept.recipe.game


def _mean_action(game: Game, policy: Any, t: int, x: np.ndarray, draws: int, random: torch.Generator) -> np.ndarray:
    """Means (n, k) of `draws` actions at x: (n, d), within the bounds."""
    with torch.no_grad():
        at = torch.as_tensor(x, dtype=torch.get_default_dtype()).repeat_interleave(draws, 0)
        a = clip(sampler(policy, random)(t, at), getattr(game, "a_bound", None))
        return a.reshape(len(x), draws, -1).mean(1).double().cpu().numpy()


def _top(density: np.ndarray) -> float:
    """The top of a scale on which few crowded places do not hide all others."""
    return min(density.max(), 1.5 * np.quantile(density, 0.98)) or 1.0


def _line(
    fig: Figure, axes: Any, game: Game, policy: Any, states: list, low: float, high: float, random: torch.Generator
) -> None:
    edges = np.linspace(low, high, POINTS + 1)
    density = np.stack([np.histogram(x[:, 0], edges)[0] / len(x) / (edges[1] - edges[0]) for x in states])
    acting = edges[::2]
    middle = (acting[1:] + acting[:-1])[:, None] / 2
    action = np.stack([_mean_action(game, policy, t, middle, DRAWS, random)[:, 0] for t in range(len(states) - 1)])
    top = np.abs(action).max() or 1.0
    most = _top(density)
    looks = (dict(cmap="viridis", vmin=0, vmax=most), dict(cmap="RdBu_r", vmin=-top, vmax=top))
    parts = ((density, edges), (action, acting))
    for ax, (shown, ends), look, name in zip(axes, parts, looks, ("density", "mean action"), strict=False):
        image = ax.pcolormesh(np.arange(len(shown) + 1) - 0.5, ends, shown.T, rasterized=True, **look)
        fig.colorbar(image, ax=ax, label=name, extend="max" if shown.max() > image.norm.vmax else "neither")
        ax.set(title=f"{name} over time", xlabel="time t", ylabel="state x")
        ax.grid(False)


def _plane(fig: Figure, axes: Any, game: Game, states: list, times: list, low: np.ndarray, high: np.ndarray) -> None:
    edges = [np.linspace(a, b, POINTS // 2 + 1) for a, b in zip(low[:2], high[:2], strict=True)]
    counts = [np.histogram2d(*states[t][:, :2].T, bins=edges, density=True)[0] for t in times]
    top = _top(np.stack(counts))
    for ax, t, shown in zip(axes, times, counts, strict=False):
        image = ax.pcolormesh(*edges, shown.T, vmin=0, vmax=top, cmap="viridis", rasterized=True)
        _plan(ax, game)
        ax.set(title=f"density, t = {t}" + (f" (x₁, x₂ of {len(low)})" if len(low) > 2 else ""))
    fig.colorbar(image, ax=list(axes[:3]), label="density", extend="max" if np.max(counts) > top else "neither")


def _arrows(
    ax: Axes, game: Game, policy: Any, t: int, low: np.ndarray, high: np.ndarray, random: torch.Generator
) -> None:
    ends = [np.linspace(a, b, 2 * ARROWS + 1)[1::2] for a, b in zip(low, high, strict=True)]
    x = np.stack(np.meshgrid(*ends), -1).reshape(-1, 2)
    if isinstance(game, BoundedGame):
        walls = np.asarray(game.domain.walls, dtype=float).reshape(-1, 2, 2)
        x = x[[not any((w[0] <= p).all() and (p <= w[1]).all() for w in walls) for p in x]]
    v = _mean_action(game, policy, t, x, 256, random)[:, :2]
    rooms.arrows(ax, x, v, length=0.8 * (high - low).max() / ARROWS / (np.abs(v).max() or 1.0))
    _plan(ax, game)
    ax.set(title=f"mean action, t = {t}", xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _plan(ax: Axes, game: Game) -> None:
    if isinstance(game, BoundedGame) and game.state_dim == 2:
        rooms.plan(ax, game.domain)
    ax.set(xlabel="x₁", ylabel="x₂")
    ax.grid(False)


def _exploitability(ax: Axes, history: Any) -> None:
    known = history.dropna(subset=["exploitability"])
    ax.set(title="exploitability", xlabel="iteration", ylabel="in units of the reward")
    if not len(known):
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "no exact solver:\nnot certified", transform=ax.transAxes, ha="center", va="center")
        return
    ax.plot(known["iteration"], known["exploitability"], color=plots.LEARNED, marker=".")
    last = max(int(history["iteration"].max()), 1)
    ax.set(xlim=(-0.05 * last, 1.05 * last))  # certificates may be rarer than iterations
    least, most = known["exploitability"].min(), known["exploitability"].max()
    if 0 < 10 * least < most:
        ax.set(yscale="log")
    else:
        ax.set(ylim=(min(0.0, least), 1.05 * most))
