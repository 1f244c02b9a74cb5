"""Every random number comes from an explicit generator derived from (seed, iteration, purpose)."""

import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch


def derive(seed: int, *path: object) -> int:
    """A 63-bit seed for the purpose named by `path`, e.g. derive(0, 3, "cloning"); the same on every machine."""
    digest = hashlib.blake2b(repr((int(seed), *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator(seed: int, *path: object, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator of its own for the purpose named by `path`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *path))


@dataclass(frozen=True)
class Random:
    """The random numbers of iteration k of a run: random("cloning") is a generator of its own for that purpose."""

    seed: int
    k: int
    device: str = "cpu"

    def __call__(self, purpose: str) -> torch.Generator:
        return generator(self.seed, self.k, purpose, device=self.device)

    def integer(self, purpose: str) -> int:
        """A 63-bit seed, for libraries that take no generator."""
        return derive(self.seed, self.k, purpose)


@contextlib.contextmanager
def torch_defaults() -> Iterator[None]:
    """Run code with float32 and gradients, as torch starts, whatever the caller has set: `no_grad`, for instance."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def isolated(seed: int, *path: object) -> Iterator[None]:
    """Run code that draws from torch's global generator (parameter initialisation) without touching its state."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive(seed, *path))
        yield
