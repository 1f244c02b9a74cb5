"""Every random number comes from an explicit generator derived from (seed, iteration, purpose)."""

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derive(seed: int, *path: object) -> int:
    """A 63-bit seed for the purpose named by `path`, e.g. derive(0, 3, "cloning"); the same on every machine."""
    digest = hashlib.blake2b(repr((int(seed), *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *path: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator of its own for the purpose named by `path`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *path))


@contextlib.contextmanager
def isolated(seed: int, *path: object) -> Iterator[None]:
    """Run code that draws from torch's global generator (parameter initialisation) without touching its state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *path))
        yield
