import pytest
import torch

from mfglib.seeds import Random, derive, generator, isolated


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ((0,), 7210762507766007076),
        ((0, 3, "cloning"), 2428991835404799441),
        ((12, "exploitability", 9), 444805983973759847),
    ],
)
def test_derived_seeds_are_the_same_on_every_machine(path, expected):
    assert derive(*path) == expected


def test_different_purposes_have_different_seeds():
    seeds = [derive(s, k, purpose) for s in range(20) for k in range(20) for purpose in ("flow", "cloning")]
    assert len(set(seeds)) == 800 and all(0 <= s < 2**63 for s in seeds)
    assert derive(1, 23) != derive(12, 3)  # the path is not just written out


def test_generator_is_reproducible_and_its_own():
    before = torch.get_rng_state()
    first, again, other = (torch.rand(5, generator=generator(*path)) for path in ((0, "a"), (0, "a"), (0, "b")))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_isolated_code_is_seeded_and_leaves_no_trace():
    before = torch.get_rng_state()
    draws = []
    for seed in (1, 1, 2):
        with isolated(seed, "parameters"):
            draws.append(torch.rand(3))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    with pytest.raises(KeyError), isolated(0):
        raise KeyError
    assert torch.equal(torch.get_rng_state(), before)


def test_an_iteration_has_a_generator_for_each_purpose():
    random = Random(4, 2)
    assert torch.equal(torch.rand(3, generator=random("flow")), torch.rand(3, generator=generator(4, 2, "flow")))
    first, again = (torch.rand(3, generator=random("memory")) for _ in range(2))
    assert torch.equal(first, again) and random.integer("best response") == derive(4, 2, "best response")
