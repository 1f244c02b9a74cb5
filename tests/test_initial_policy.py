"""`solve` from a given policy, and its iterates as they come (`mfglib.solver`, `mfglib.runs`)."""

import numpy as np
import pytest
import torch
from helpers import gen
from tiny import BAR, GAME, assert_same, assert_same_step, tiny
from torch import nn

from mfglib import exploitability, replay
from mfglib.exact import grid_equilibrium, lq_equilibrium
from mfglib.policies import AffinePolicy, EpisodeMixture, NoisePolicy
from mfglib.rollout import rollout
from mfglib.runs.identity import describe_policy, same_policy
from mfglib.solver import Solution


class Towards(nn.Module):
    """A torch module from elsewhere."""

    def __init__(self, gain=0.5):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def sample(self, t, x):
        return self.gain * (0.5 - x)


@pytest.fixture(scope="module")
def table():
    return grid_equilibrium(BAR, 20, 0.01, progress=False).policy


def test_iteration_zero_is_the_initial_policy_and_its_population(table):
    steps = []
    history = tiny(BAR, iterations=1, initial_policy=table, callback=steps.append).history
    assert history["exploitability"][0] == exploitability(BAR, table, cells=20, error=False).value
    assert torch.equal(steps[0].policy.shares, table.shares) and steps[0].best_response is None
    plain = tiny(BAR, iterations=1).history
    assert history["exploitability"][0] < 0.01 * plain["exploitability"][0]
    seen = {}
    for name, policy in dict(table=table, still=NoisePolicy(torch.zeros(1))).items():
        options = dict(callback=steps.append, initial_policy=policy, sizes=dict(agents=dict(agents=5000)))
        tiny(BAR, "algo-2", iterations=1, **options)
        seen[name] = steps[-2].population.x[3]
        own = rollout(BAR, policy, n=5000, generator=gen(1), rewards=False).x[3]
        assert abs(seen[name].std() - own.std()) < 0.02  # its agents, at the end
    assert seen["table"].std() < seen["still"].std() - 0.03


@pytest.mark.parametrize("algorithm", ["deda-fp", "algo-1", "algo-2"])
def test_resumes_and_is_replayed_bit_for_bit(algorithm, table, tmp_path):
    steps, options = [], dict(initial_policy=table, directory=tmp_path / "run")
    whole = tiny(BAR, algorithm, iterations=3, initial_policy=table, callback=steps.append)
    tiny(BAR, algorithm, iterations=1, **options)
    resumed = tiny(BAR, algorithm, iterations=3, **options)
    assert_same(whole, resumed)
    again = list(replay(BAR, tmp_path / "run", initial_policy=table))
    assert torch.equal(again[0].policy.shares, table.shares)
    assert torch.equal(
        again[0].population.sample(1, 50, torch.Generator()), steps[0].population.sample(1, 50, torch.Generator())
    )
    for one, other in zip(steps[1:], again[1:], strict=True):
        assert_same_step(one, other)
    shorter = tiny(BAR, algorithm, iterations=1, **options)  # the first iterations of a longer run
    assert_same_step(shorter, steps[1])
    whole.save(tmp_path / "saved")
    assert_same(whole, Solution.load(BAR, tmp_path / "saved", initial_policy=table))


@pytest.mark.parametrize("averaging", ["linear", "corrective", "mirror"])
def test_every_averaging_begins_from_it(averaging, table):
    history = tiny(BAR, iterations=2, averaging=averaging, initial_policy=table).history
    assert history["exploitability"][0] == exploitability(BAR, table, cells=20, error=False).value
    assert np.isfinite(history["exploitability"]).all()


def test_a_run_goes_on_with_the_same_policy_only(tmp_path):
    run = tmp_path / "run"
    tiny(BAR, iterations=1, initial_policy=Towards(), directory=run)
    tiny(BAR, iterations=2, initial_policy=Towards(), directory=run)  # another object, the same policy
    for other in (None, Towards(0.5001), NoisePolicy(torch.ones(1))):
        with pytest.raises(ValueError, match="other settings .initial_policy."):
            tiny(BAR, iterations=3, initial_policy=other, directory=run)
    with pytest.raises(ValueError, match="initial_policy: expected the one that the run was made with, a .*Towards"):
        replay(BAR, run)
    with pytest.raises(ValueError, match="initial_policy: expected the one that the run was made with, if any"):
        replay(BAR, run, initial_policy=Towards(0.6))
    plain = tmp_path / "plain"
    tiny(BAR, iterations=1, directory=plain)
    with pytest.raises(ValueError, match="other settings .initial_policy."):
        tiny(BAR, iterations=2, initial_policy=Towards(), directory=plain)
    with pytest.raises(ValueError, match="initial_policy: expected the one that the run was made with, if any"):
        replay(BAR, plain, initial_policy=Towards())


def test_policies_are_told_apart_by_what_they_do_and_hold():
    K, k = torch.zeros(3, 1, 1), torch.zeros(3, 1)
    bumped = K.clone()
    bumped[2] = 1e-3

    class Own:
        def __init__(self, gain):
            self.act = lambda t, x: gain * x

        def sample(self, t, x):
            return self.act(t, x)

    policies = [
        AffinePolicy(K, k), AffinePolicy(bumped, k), Own(0.1), Own(0.2), Towards(), NoisePolicy(torch.ones(1)),
        EpisodeMixture([Own(0.1), Towards()], [1, 3]), EpisodeMixture([Own(0.1), Towards()], [3, 1]),
    ]  # fmt: skip
    one, other = ([describe_policy(GAME, policy) for policy in policies] for _ in range(2))
    for i, first in enumerate(one):
        assert [same_policy(first, second) for second in other] == [i == j for j in range(len(policies))]
    assert same_policy(None, None) and not same_policy(None, one[0])


def test_callback_gets_what_later_iterations_leave_alone(tmp_path):
    steps, run = [], tmp_path / "run"
    tiny(iterations=1, directory=run, callback=steps.append)
    tiny(iterations=3, directory=run, callback=steps.append)  # those of this call
    assert [step.k for step in steps] == [0, 1, 2, 3]
    for one, other in zip(steps[1:], list(replay(GAME, run))[1:], strict=True):
        assert_same_step(one, other)


def test_what_a_callback_raises_costs_no_iteration(tmp_path):
    def stop(step):
        if step.k == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny(iterations=3, directory=tmp_path / "run", callback=stop)
    assert_same(tiny(iterations=3, directory=tmp_path / "run"), tiny(iterations=3))


def test_an_exact_closed_form_is_a_policy_to_start_from():
    policy = lq_equilibrium(GAME).policy
    history = tiny(iterations=1, initial_policy=policy).history
    assert history["exploitability"][0] == pytest.approx(exploitability(GAME, policy).value, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(initial_policy=3), TypeError, "initial_policy: expected a policy"),
        (dict(initial_policy=NoisePolicy(torch.ones(2))), ValueError, "initial_policy: expected .* shape"),
        (dict(initial_policy=Towards(float("nan"))), ValueError, "initial_policy: expected finite actions"),
        (dict(callback=3), TypeError, "callback: expected None or a function, got 3"),
    ],
)
def test_bad_arguments_are_named_before_anything_is_written(options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        tiny(directory=tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()
