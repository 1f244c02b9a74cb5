"""Certificates beside the loop: what exact solvers say of each iteration. They train nothing and change nothing."""

import math
from dataclasses import dataclass

from mfglib.checks import require_positive
from mfglib.fictitious_play import Step
from mfglib.judge import best_response_gap, exploitability
from mfglib.protocols import Game
from mfglib.seeds import Random

COLUMNS = ("best_response_gap", "exploitability", "exploitability_error", "policy_value")


@dataclass(frozen=True)
class CertifyConfig:
    """Which iterations are certified, and how finely."""

    every: int = 1
    """iterations from one certificate to the next: 0, every, 2 every, ... are measured"""
    agents: int = 20_000
    """agents simulated for a certificate, where that needs any"""
    cells: int | None = None
    """cells along the longest side of the grid, where a certificate needs one; None for the judge's own default"""

    def __post_init__(self) -> None:
        require_positive(self, "every", "agents")


@dataclass(frozen=True)
class Certify:
    """The certificate of a step: gap of its best response, exploitability, its error, and value of its policy."""

    game: Game
    config: CertifyConfig
    seed: int
    device: str = "cpu"

    def __call__(self, step: Step) -> dict[str, float]:
        """The columns `COLUMNS`; NaN at iterations that are not certified."""
        row, k, cells = dict.fromkeys(COLUMNS, math.nan), step.k, self.config.cells
        if k % self.config.every:
            return row
        if step.best_response is not None:
            options, draws = dict(cells=cells), getattr(step.best_response, "affordable_draws", None)
            if draws is not None:  # a policy that is slow to sample
                options = dict(cells=cells and cells // 2, samples=draws)
            random = Random(self.seed, k, self.device)("gap")
            row["best_response_gap"] = best_response_gap(self.game, step.best_response, step.faced, random, **options)
        options = dict(n=self.config.agents, cells=cells, seed=self.seed, device=self.device)
        e = exploitability(self.game, step.policy, error=False, **options)
        return row | dict(exploitability=e.value, exploitability_error=e.error, policy_value=e.policy_value)
