"""What the pipeline of `make figures` must know of a run before anything is loaded. Needs no torch."""

from mfglib.presets import ALGORITHMS, LEARNERS

GAMES = {  # name -> its module, and the learner of its best responses
    "lq": ("mfglib.games.linear_quadratic", "ppo"),
    "lq-bounded": ("mfglib.games.linear_quadratic", "look-ahead"),
    "beach-bar": ("mfglib.games.beach_bar", "look-ahead"),
    "four-rooms": ("mfglib.games.four_rooms", "look-ahead"),
}


def modules_of_run(game: str, variant: str) -> list[str]:
    """The modules that a training run follows from; a variant is an algorithm, or a schedule of averaging."""
    module, response = GAMES[game]
    names = ALGORITHMS.get(variant, ALGORITHMS["deda-fp"]) | dict(best_response=response)
    learners = [LEARNERS[part][name].partition(":")[0] for part, name in names.items()]
    return sorted({"mfglib.fictitious_play", "mfglib.schedules", module, *learners})


def modules_of_learners(text: str) -> list[str]:
    """The modules of the learners that a program which calls `solve` may load by name: all, but Stable-Baselines3 only
    where the program's text names it."""
    learners = [(name, path) for part in LEARNERS.values() for name, path in part.items()]
    return sorted({path.partition(":")[0] for name, path in learners if "sb3" not in name or "sb3" in text})
