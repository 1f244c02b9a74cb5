"""What networks read of time and state, and how (`mfglib.learn.networks`)."""

import math

import pytest
import torch
from contracts import T, network
from helpers import gen

from mfglib.games import BeachBar, FourRooms, LinearQuadratic
from mfglib.learn.networks import NetworkConfig, Networks, StateFeatures, TimeFeatures, TimeStateFeatures

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
    read = Networks(T, torch.ones(d), torch.full((d,), 2.0), torch.ones(1), frequencies=waves, cell_edges=EDGES[:d])
    place = StateFeatures(read)
    x = torch.rand(50, d, generator=gen()) * torch.tensor([4.0, 2.0])[:d] - torch.tensor([0.0, 1.0])[:d]
    x[:4, 0] = EDGES[0]  # on faces too
    features = place(x)
    assert features.shape == (50, place.width) and place.width == d * (1 + 2 * waves) + (6 if d == 1 else 8)
    torch.testing.assert_close(features, torch.tensor([features_of(row, waves) for row in x.tolist()]))
    torch.testing.assert_close(place(x.double()), features)
    torch.testing.assert_close(TimeStateFeatures(read)(2, x)[:, : place.width], features)


def test_both_read_the_state_and_the_time():
    both = TimeStateFeatures(Networks(T, torch.ones(2), torch.full((2,), 2.0), torch.ones(1)))
    x = torch.randn(9, 2, generator=gen())
    assert torch.equal(both(1, x), torch.cat([(x - 1) / 2, TimeFeatures(T)(1, 9)], 1))


def test_edges_change_the_policies_input_and_are_not_in_its_state():
    plain, cut = network(2, 3), network(2, 3, cell_edges=EDGES)
    assert cut.hidden[0].in_features == plain.hidden[0].in_features + 8
    assert set(cut.state_dict()) == set(plain.state_dict())


def test_time_features_tell_times_apart():
    features = TimeFeatures(T)
    assert features(2, 5).shape == (5, features.width)
    assert torch.equal(features(torch.tensor([0, 3]), 2), torch.cat([features(0, 1), features(3, 1)]))
    assert len(torch.unique(features.table, dim=0)) == T + 1


def test_typical_states_are_the_domains_or_those_of_agents_that_do_not_act():
    bar, rooms = Networks.of(BeachBar()), Networks.of(FourRooms(), NetworkConfig(hidden=(8,), frequencies=3))
    assert (bar.centre, bar.scale, bar.unit) == (0.5, 0.5, pytest.approx(0.3)) and bar.bounded
    assert (bar.frequencies, len(bar.cell_edges), len(rooms.cell_edges)) == (0, 0, 2)
    assert rooms.hidden == (8,) and rooms.unit.tolist() == pytest.approx([0.05, 0.05])
    free = Networks.of(LinearQuadratic(A_bar=0.0, initial_mean=3.0, noise_std=0.0), NetworkConfig(action_scale=2.0))
    assert free.centre.item() == pytest.approx(3, abs=0.05) and free.scale.item() == pytest.approx(0.58, rel=0.05)
    assert free.unit == 2 and not free.bounded and Networks.of(LinearQuadratic()).unit == 1
