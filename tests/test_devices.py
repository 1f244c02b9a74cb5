"""What crosses between host and device while something is trained, counted without a GPU: on the device `meta`, whose
tensors have a shape and no numbers. An operation on tensors of two devices is an error there.

Whether a GPU learns what a CPU learns only tests/test_cuda.py can say, on one.
"""

import sys

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.games.base import constant
from mfglib.learn.cloning import CloningConfig, Memory, clone
from mfglib.learn.densities import GaussianPolicy
from mfglib.learn.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.learn.lookahead import Lookahead, LookaheadConfig
from mfglib.learn.networks import Networks
from mfglib.learn.ppo import Critic, PPOConfig, fit_ppo
from mfglib.rollout import rollout

DEVICE = torch.device("meta")
FLOW = FlowConfig(bins=4, hidden=(8,), batch=16)


class Random(torch.Generator):
    """Says that it is there. `meta` tensors draw nothing from it."""

    device = property(lambda self: DEVICE)


class Traffic(TorchDispatchMode):
    """Counts copies to the device and waits for it. Who waits for a number gets 0, for a truth that of "all" but not of
    "any", and for what is not zero, nothing."""

    def __init__(self):
        super().__init__()
        self.copies = self.waits = 0
        self.truths = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, aten = kwargs or {}, torch.ops.aten
        device = args[0].device if args and isinstance(args[0], torch.Tensor) else None
        if func is aten._to_copy.default and device.type == "cpu":
            self.copies += torch.device(kwargs.get("device") or "cpu") == DEVICE
        if device != DEVICE:
            return func(*args, **kwargs)
        if func is aten._local_scalar_dense.default:
            self.waits += 1
            return any(args[0] is true for true in self.truths) if args[0].dtype == torch.bool else 0.0
        if func is aten.nonzero.default:
            self.waits += 1
            return args[0].new_empty(0, args[0].ndim, dtype=torch.long)
        if func is aten.bincount.default:  # not known on this device
            return args[0].new_empty(kwargs.get("minlength", 1), dtype=torch.long)
        result = func(*args, **kwargs)
        if func is aten.all.default:
            self.truths.append(result)
        return result


def networks(game):
    d = game.state_dim
    return Networks(game.horizon, torch.zeros(d), torch.ones(d), torch.ones(game.action_dim), (8,))


def policy_of(game, components=1):
    return GaussianPolicy(networks(game), components=components).to(DEVICE)


def flow_of(game):
    return TimeFlow(game.horizon, game.state_dim, FLOW, getattr(game, "domain", None)).to(DEVICE)


def states(game, n=50):
    return torch.empty(game.horizon + 1, n, game.state_dim, device=DEVICE)


def cloning(game, steps):
    memory = Memory(game.state_dim, game.action_dim, device=DEVICE)
    memory.add(states(game), torch.empty(game.horizon, 50, game.action_dim, device=DEVICE), 1, Random())
    clone(policy_of(game, components=5), memory, [1.0], CloningConfig(steps=steps, batch=32), Random())


def fitting(game, steps):
    fit_flow(flow_of(game), states(game), FLOW, Random(), steps=steps)


def looking_ahead(game, steps):
    config = LookaheadConfig(first_steps=steps, states=32, batch=16, candidates=4)
    Lookahead(game, networks(game), config).to(DEVICE).sweep(flow_of(game), 1, Random())


def ppo(game, steps):
    critic = Critic(networks(game)).to(DEVICE)
    config = PPOConfig(agents=16, epochs=steps)
    fit_ppo(game, flow_of(game), policy_of(game), critic, config, Random(), updates=1)


LQ, BEACH, ROOMS = LinearQuadratic(horizon=2), BeachBar(horizon=2), FourRooms(horizon=2)


@pytest.mark.parametrize(
    ("loop", "game"),
    [(cloning, LQ), (cloning, ROOMS), (fitting, LQ), (fitting, BEACH), (fitting, ROOMS), (looking_ahead, BEACH)]
    + [(looking_ahead, ROOMS), (ppo, LQ)],
)
def test_gradient_steps_neither_copy_nor_wait(loop, game, monkeypatch):
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_: None)
    seen = []
    for steps in (2, 2, 20):  # the first time, constants are copied
        with Traffic() as traffic:
            loop(game, steps)
        seen.append((traffic.copies, traffic.waits))
    assert seen[1] == seen[2]


@pytest.mark.parametrize(("kind", "most"), [(LinearQuadratic, 0), (BeachBar, 2), (FourRooms, 4)])
def test_a_roll_out_copies_nothing_and_waits_a_few_times_a_step(kind, most):
    """The least it can wait: here nobody meets a wall, and each contact is one wait more."""
    seen = []
    for T in (5, 5, 50):
        game = kind(horizon=T)
        policy, population = policy_of(game), flow_of(game)
        with Traffic() as traffic:
            play = rollout(game, policy, population, n=50, generator=Random())
        assert play.x.device == play.a.device == play.reward.device == DEVICE
        seen.append((traffic.copies, traffic.waits))
    assert seen[1][0] == seen[2][0] <= seen[0][0]
    assert seen[2][1] - seen[1][1] <= 45 * most


def test_constants_have_the_dtype_and_the_device_of_their_like():
    for value in (0.25, np.array([0.5, 1.0]), np.eye(2)[:, 0]):
        for dtype in (torch.float32, torch.float64):
            here, there = (constant(value, torch.empty(1, dtype=dtype, device=d)) for d in ("cpu", DEVICE))
            assert (here.dtype, there.dtype, there.device) == (dtype, dtype, DEVICE)
            assert here.shape == there.shape == np.shape(value) and here.tolist() == np.asarray(value).tolist()
            assert constant(value, there) is there  # copied once
