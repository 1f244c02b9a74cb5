"""What the pipeline believes of its runs (`deda_fp.batch`) is what the runs are."""

import pytest

from deda_fp.batch import GAMES, learned_by, modules_of_learners, modules_of_run
from deda_fp.catalogue import GAMES as PLAYED
from mfglib.recipes import recipe_of
from mfglib.runs.identity import modules_of
from mfglib.sources import sources

VARIANTS = ["deda-fp", "algo-2", "algo-1", "geometric", "algo-2-linear", "algo-1-corrective", "deda-fp-corrective"]
VARIANTS += ["deda-fp-mirror", "algo-2-mirror"]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("game", GAMES)
def test_a_run_follows_from_the_code_that_it_stores_a_fingerprint_of(game, variant):
    algorithm, averaging = learned_by(variant)
    if averaging in ("corrective", "mirror") and game.startswith("lq"):
        return  # refused: its moves depend on the population
    recipe = recipe_of(PLAYED[game], algorithm, averaging=averaging, preset="smoke")
    used = modules_of(recipe.game, *recipe.build().values(), recipe.averaging)
    assert sources(modules_of_run(game, variant)) == sources(["mfglib.fictitious_play", *used])


def test_a_variant_is_an_algorithm_a_schedule_or_both():
    assert learned_by("algo-2") == ("algo-2", "uniform") and learned_by("geometric") == ("deda-fp", "geometric")
    assert learned_by("deda-fp-corrective") == ("deda-fp", "corrective")


def test_only_programs_that_name_stable_baselines_depend_on_it():
    plain, named = modules_of_learners("solve(game)"), modules_of_learners('solve(game, best_response="sb3-sac")')
    assert set(named) - set(plain) == {"mfglib.adapters.sb3"} and "mfglib.learn.ppo" in plain
