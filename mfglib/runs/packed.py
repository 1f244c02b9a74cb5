"""A finished run without what only going on needs: its history and its last learners, small enough to be committed."""

import json
from pathlib import Path

from mfglib.files import Parts, read_table, write, write_parts, write_table
from mfglib.runs.directory import learners_file, read_learners, read_settings


def pack(directory: Path, destination: Path, *, learners: bool = True) -> None:
    """Write the packed copy of a whole, finished run of K >= 1 iterations to `destination`.

    `solve` opens it for K iterations as it opens the run itself, and measures its last iteration again if the judge has
    changed; it can neither go on nor be replayed. With `learners=False` it is the history alone.
    Raises what `read_settings`, `read_table` and `read_learners` raise for a directory that holds no such run.
    """
    settings, history = read_settings(directory), read_table(directory / "history.csv")
    K = len(history) - 1
    if learners:
        before: Parts = {}  # what the last best response faced; learners that keep news only want all of it
        for k in range(K):
            for part, tensors in read_learners(directory, k).items():
                before.setdefault(part, {}).update(tensors)
        before.pop("best_response", None)
        write_parts(learners_file(destination, K - 1), before, K - 1)
        write_parts(learners_file(destination, K), read_learners(directory, K), K)
    write_table(destination / "history.csv", history)
    kept = K - 1 if learners else K + 1  # the first iteration of which there are learners
    write(destination / "settings.json", json.dumps(settings | dict(kept=kept), indent=1))
