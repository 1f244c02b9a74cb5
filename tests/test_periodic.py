"""Rings and tori: periodic coordinates from the domain through grid and flow to `solve`, against what is known."""

import math

import numpy as np
import pytest
import torch
from helpers import gen

from mfglib import exploitability, solve
from mfglib.exact.equilibrium import grid_equilibrium
from mfglib.exact.grid import Grid
from mfglib.games import BoundedGame, Domain, Law
from mfglib.games.base import squared_norm
from mfglib.games.cells import Cells
from mfglib.learn.flow import FlowConfig, TimeFlow, fit_flow
from mfglib.learn.networks import Networks, NetworkConfig, StateFeatures
from mfglib.learn.table import Table
from mfglib.populations import CellPopulation
from mfglib.rollout import rollout
from mfglib.policies import NoisePolicy
from mfglib.seeds import isolated

RING, TORUS = Domain(-1.0, 2.0, periodic=True), Domain([0.0, 0.0], [2.0, 1.0], periodic=True)
CYLINDER = Domain([0.0, 0.0], [1.0, 1.0], [((0.0, 0.4), (0.2, 0.6)), ((0.7, 0.4), (1.0, 0.6))], periodic=(True, False))
SPACES = {"ring": RING, "torus": TORUS, "cylinder": CYLINDER}
every_space = pytest.mark.parametrize("domain", SPACES.values(), ids=SPACES)


class Stalls(BoundedGame):
    """Agents near `bar` earn more, less in a crowd; they start within `wide` of 0. On [0, 1] with reflecting ends, or
    on the ring of 2 around it, turned by `shift`, where everything is even: the interval is its fold."""

    def __init__(self, ring=True, bar=0.3, wide=0.4, shift=0.0, noise=None):
        self.ring, self.bar, self.shift, self.horizon, self.a_bound, self.action_dim = ring, bar, shift, 4, 0.3, 1
        self.domain = Domain(0.0, 2.0, periodic=True) if ring else Domain(0.0, 1.0)
        self.start = Law.box(shift - wide, shift + wide) if ring else Law.box(0.0, wide)
        self.noise = noise or Law.box(-0.1, 0.1)

    def reward(self, t, x, a, population):
        near = torch.cos(math.pi * (x - self.shift)) - math.cos(math.pi * self.bar)
        crowd = population.log_prob(t, x).to(x).exp() * (2 if self.ring else 1)
        return -3 * squared_norm(near) - 2 * squared_norm(a) - 0.5 * crowd


