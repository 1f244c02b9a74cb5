"""A trial of a game by some agents, before anything is built: what is wrong with it (`check_game`), what it does
(`behaviour`), by which one game is told from another, and whether it is `separable`."""

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mfglib.arguments import require_game
from mfglib.checks import array
from mfglib.games.base import uses_actions
from mfglib.games.bounded import BoundedGame, Law
from mfglib.games.domain import Domain
from mfglib.populations import GaussianPath
from mfglib.protocols import Game
from mfglib.seeds import generator, torch_defaults

AGENTS = 64
CROWD = 256  # agents in one state: enough to see noise that is common to all, if it is 0.3 of what is their own
SEEDS = 6
SAME = 1e-5  # of the largest answer: float32 rounds


def check_game(game: Any) -> None:
    """Try `game` with a few agents, at the first, middle and last times, against a Gaussian population.

    Raises TypeError for a missing member, one of another kind, or one with other arguments, and ValueError for sizes,
    bounds, shapes, numbers that are not finite, states that leave the domain, noise that does not come from the
    generator or is common to all agents, and answers that depend on the other agents of a batch or change what they are
    given. The message names the member, what was expected, what came, and how to mend it.

    Warns of states with few values, such as a type in {−1, 1}: a flow has a density, and smears them.
    """
    _require_members(game)
    with torch.no_grad(), torch_defaults():
        _Trial(game).run()


def behaviour(game: Game) -> dict[str, list[float]]:
    """What a game does: random projections of the first states of seeded agents, and, at each time, of their rewards
    and next states, each with a bound of its terms. Two games that differ for one of the agents differ here, by far
    more than processors do (`same_behaviour`)."""
    with torch.no_grad(), torch_defaults():
        return {name: _projected(name, value) for name, value in _Trial(game).answers()}


def separable(game: Game) -> bool:
    """Whether moves ignore the population and rewards split as r_t(x, a, μ) = c_t(x, a) + f_t(x, μ): by the game's own
    word, its member `separable`, or else as some agents find it with two actions each, against two populations."""
    said = getattr(game, "separable", None)
    if said is not None:
        return bool(said)
    with torch.no_grad(), torch_defaults():
        trial, answers = _Trial(game), []
        mean, cov = trial.population.mean(0), trial.population.cov
        further = (mean + cov[0].diagonal().sqrt()).expand(len(cov), -1)
        crowds = trial.population, GaussianPath(further, 2 * cov, trial.acted(-0.7))
        for actions, crowd in itertools.product((trial.a, trial.a.flip(0)), crowds):
            trial.a, trial.population = actions, crowd
            answers.append(dict(trial.answers()))
    for name, value in answers[0].items():
        one, other = (a[name].double() - b[name].double() for a, b in (answers[:2], answers[2:]))  # between crowds
        if name.startswith("step"):
            other = torch.zeros_like(one)
        if (one - other).abs().max() > SAME * value.abs().max():
            return False
    return True


def same_behaviour(one: dict[str, list[float]], other: dict[str, list[float]]) -> bool:
    """Whether two `behaviour`s are those of one game, but for rounding on another processor."""
    if one.keys() != other.keys():
        return False
    pairs = ((one[name], other[name]) for name in one)
    return all(abs(a - b) <= SAME * max(size, other_size) for (a, size), (b, other_size) in pairs)


def _projected(name: str, value: Tensor) -> list[float]:
    weight = torch.randn(value.shape, generator=generator(0, "projection", name), dtype=torch.float64)
    terms = weight * value.double()
    return [float(terms.sum()), float(terms.abs().sum())]


def _require_members(game: Any) -> None:
    require_game(game)
    bound, domain = getattr(game, "a_bound", None), getattr(game, "domain", None)
    if bound is not None:
        values = array("game.a_bound", bound)
        if values.shape not in ((), (game.action_dim,)) or not (values > 0).all():
            raise ValueError(
                f"game.a_bound: expected None, or a number or {game.action_dim} of them > 0, got {bound!r}"
            )
    if domain is not None and not isinstance(domain, Domain):
        raise TypeError(f"game.domain: expected None or a mfglib.games.Domain, got {domain!r}")
    if domain is not None and domain.state_dim != game.state_dim:
        raise ValueError(f"game.domain: expected {game.state_dim} dimensions (game.state_dim), got {domain.state_dim}")
    for name, member in (("start", "initial"), ("noise", "step")):
        if not isinstance(game, BoundedGame) or getattr(type(game), member) is not getattr(BoundedGame, member):
            continue  # one of its own need not ask for a law
        law = getattr(game, name, None)
        if not isinstance(law, Law):
            raise TypeError(f"game.{name}: expected a Law, such as Law.box([-0.1], [0.1]), got {law!r}")


class _Trial:
    """Agents of a game, and what its members answer them. `x`: (n, d) first states, `a`: (n, k) actions."""

    def __init__(self, game: Game, n: int = AGENTS) -> None:
        self.game, self.domain = game, getattr(game, "domain", None)
        self.x = self.called("initial", (n, game.state_dim), lambda: game.initial(n, generator(0, "trial")))
        bound = getattr(game, "a_bound", None)
        self.unit = torch.as_tensor(1.0 if bound is None else np.asarray(bound, dtype=float)).float()
        self.a = self.unit * 1.2 * (2 * torch.rand(n, game.action_dim, generator=generator(0, "trial actions")) - 1)
        mean, width = self.x.mean(0), self.x.std(0) + 0.1 * self.x.abs().mean(0)
        shift = torch.linspace(0, 0.1, game.horizon + 1)[:, None] * (width + 1e-6)  # times differ
        cov = torch.diag((width + 1e-6).square()).expand(game.horizon + 1, -1, -1)
        self.population = GaussianPath(mean + shift, cov.contiguous(), self.acted(0.2))

    def acted(self, share: float) -> Tensor | None:
        """Mean actions (T, k) of a crowd, in units of the bounds, for games that ask for them."""
        if not uses_actions(self.game):
            return None
        times = torch.linspace(share, share / 2, self.game.horizon)[:, None]
        return times * self.unit.expand(self.game.action_dim)

    def run(self) -> None:
        """Every check."""
        T = self.game.horizon
        self._initial()
        for t in sorted({0, T // 2, T - 1}):
            self._reward(t)
            self._step(t)
        self.a = torch.zeros_like(self.a)
        self._reward(T)
        self._noise()

    def answers(self) -> Iterator[tuple[str, Tensor]]:
        """Names and values of what the game answers: the states of its agents, and at up to 33 times, rewards and next
        states."""
        game, T = self.game, self.game.horizon
        yield "initial", self.x
        for t in sorted({round(s * T / 32) for s in range(33)} if T > 32 else range(T + 1)):
            a = self.a if t < T else torch.zeros_like(self.a)
            yield f"reward {t}", game.reward(t, self.x.clone(), a.clone(), self.population)
            if t < T:
                random = generator(0, "trial", t)
                yield f"step {t}", game.step(t, self.x.clone(), a.clone(), self.population, random)

    # --- calls

    def called(self, member: str, shape: tuple[int, ...], call: Callable[[], Any], at: str = "") -> Tensor:
        """What a member answers, as float32; an error names it."""
        name = f"game.{member}{at}"
        try:
            value = call()
        except Exception as error:
            error.add_note(f"{name}: raised in the trial of `mfglib.check_game`, with {len(shape) and shape[0]} agents")
            raise
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a torch tensor of shape {shape}, got {type(value).__name__}")
        if value.shape != shape:
            hint = _HINTS.get((member, value.ndim), "")
            raise ValueError(f"{name}: expected shape {shape}, got {tuple(value.shape)}{hint}")
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(f"{name}: expected numbers, got {value.dtype}")
        if value.device.type != "cpu":
            raise ValueError(f"{name}: expected a tensor on the device of what it is given, cpu, got {value.device}")
        if not value.isfinite().all():
            bad = value[~value.isfinite()][0].item()
            raise ValueError(f"{name}: expected finite numbers, got {bad} for {_share(~value.isfinite())} of them")
        value = value.float()
        if member != "reward" and self.domain is not None:
            outside = ~self.domain.contains(value)
            if outside.any():
                raise ValueError(
                    f"{name}: expected states in game.domain, got {value[outside][0].tolist()}; "
                    f"end with `self.domain.move(x, displacement)`, which reflects at the edge and at walls"
                )
        return value

    def reward(self, t: int, x: Tensor, a: Tensor) -> Tensor:
        at = f" at t = {t}"
        return self.called("reward", (len(x),), lambda: self.game.reward(t, x, a, self.population), at)

    def step(self, t: int, x: Tensor, a: Tensor, seed: int = 0) -> Tensor:
        random = generator(seed, "trial", t)
        shape, at = (len(x), self.game.state_dim), f" at t = {t}"
        return self.called("step", shape, lambda: self.game.step(t, x, a, self.population, random), at)

    # --- checks

    def _initial(self) -> None:
        again, other = (self.game.initial(len(self.x), generator(0, purpose)) for purpose in ("trial", "other"))
        if not torch.equal(again.float(), self.x):
            raise ValueError("game.initial: expected the same states from the same generator, got others; draw with it")
        if len(self.x.unique(dim=0)) > 1 and torch.equal(other.float(), self.x):
            raise ValueError(
                "game.initial: expected other states from another generator, got the same; draw with `generator`"
            )
        values = self.game.initial(CROWD, generator(0, "values")).float()
        for i, count in enumerate(len(v.unique()) for v in values.T):
            if 1 < count < CROWD / 4:
                warnings.warn(
                    f"game.initial: coordinate {i} takes {count} values among {CROWD} agents. A population with a "
                    f"density smears a discrete coordinate; if it is the resolution of float32, move the origin of the "
                    f"states closer to them",
                    stacklevel=4,
                )

    def _reward(self, t: int) -> None:
        member = f"game.reward at t = {t}"
        value = self._pure(member, lambda x, a: self.reward(t, x, a))
        if not torch.equal(self.reward(t, self.x.clone(), self.a.clone()), value):
            raise ValueError(f"{member}: expected the same rewards when asked again, got others; rewards have no noise")
        self._alone(member, value, lambda x, a, _: self.reward(t, x, a))

    def _step(self, t: int) -> None:
        member = f"game.step at t = {t}"
        value = self._pure(member, lambda x, a: self.step(t, x, a))
        if not torch.equal(self.step(t, self.x.clone(), self.a.clone()), value):
            raise ValueError(f"{member}: expected the same states from the same generator, got others; draw with it")
        if t == 0:
            self._alone(member, value, lambda x, a, seed: self.step(t, x, a, seed))

    def _pure(self, member: str, call: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        x, a = self.x.clone(), self.a.clone()
        value = call(x, a)
        for name, now, before in (("x", x, self.x), ("a", a, self.a)):
            if not torch.equal(now, before):
                raise ValueError(f"{member}: expected `{name}` as it was, got it changed in place; work on a copy")
        return value

    def _alone(self, member: str, value: Tensor, call: Callable[[Tensor, Tensor, int], Tensor]) -> None:
        """What one agent gets must not change when another is elsewhere. Noise may, if it is drawn for some agents
        only; so the change must be the same under two seeds to count."""
        x, a = self.x.clone(), self.a.clone()
        x[0], a[0] = x[-1], a[-1]
        before = value, call(self.x.clone(), self.a.clone(), 1)
        changes = [call(x.clone(), a.clone(), seed)[1:] - before[seed][1:] for seed in (0, 1)]
        size = 1e-5 * value.abs().amax()
        if changes[0].abs().amax() > size and torch.allclose(*changes, rtol=1e-2, atol=float(size)):
            raise ValueError(
                f"{member}: expected answers that depend on each agent's own state and action, got ones that change "
                f"with the other agents in x; what agents do to each other goes through `population`"
            )

    def _noise(self) -> None:
        """Noise comes from the generator, and agents in one state with one action move each on their own."""
        x, a = self.x[:1].expand(CROWD, -1), self.unit.expand(1, self.game.action_dim).expand(CROWD, -1) / 2
        moves = torch.stack([self.step(0, x.clone(), a.clone(), seed) for seed in range(SEEDS)]).double()  # (S, n, d)
        own, between = moves.var(1).mean(0), moves.mean(1).var(0)  # (d,) within a crowd, and of its mean
        rounding = (1e-6 * moves.abs().amax((0, 1))).square()
        if (own > 100 * rounding).any() and torch.equal(moves[0], moves[1]):
            raise ValueError(
                "game.step: expected other noise from another generator, got the same; draw with `generator`"
            )
        common = (between > rounding) & (CROWD * between > 12 * own)
        if common.any():
            i = int(common.nonzero()[0])
            raise ValueError(
                f"game.step: expected noise of its own for each agent, got noise that is common to all in coordinate "
                f"{i}: the mean move of {CROWD} agents in one state varies by {between[i].sqrt():.2g} from seed to "
                f"seed, each by {own[i].sqrt():.2g}; draw `torch.randn(x.shape, generator=generator)`. A mean field "
                f"game with common noise has a random population, which this library does not solve"
            )


_HINTS = {
    ("reward", 0): "; sum over the coordinates of each agent, `.sum(1)`, not over all agents",
    ("reward", 2): "; one number for each agent, `x[:, 0]` and not `x[:, :1]`",
    ("step", 1): "; keep the coordinates, `x[:, :1]` and not `x[:, 0]`",
    ("initial", 1): "; keep the coordinates: `torch.rand(n, d, generator=generator)`",
}


def _share(mask: Tensor) -> str:
    return f"{int(mask.sum())} of {mask.numel()}"
