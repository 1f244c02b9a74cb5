"""Stored runs: they resume, open again, are replayed and certified anew, whatever they were made of."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import gen
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import BAR, GAME, assert_same, assert_same_step, tiny

from mfglib import replay, runs
from mfglib.certificates import COLUMNS, Certify, CertifyConfig
from mfglib.games import LinearQuadratic
from mfglib.runs import RunDirectory
from mfglib.schedules import constant

RUNS = [dict(algorithm=a, best_response=r) for a in ("algo-1", "algo-2", "deda-fp") for r in ("ppo", "look-ahead")]
# here the population moves agents, so that what looks ahead depends on the one that it faces
RUNS += [dict(game=LinearQuadratic(horizon=3, A_bar=0.5, x_bound=1.0, a_bound=0.2))]
RUNS += [dict(algorithm="algo-1", averaging="linear"), dict(averaging=constant(0.3))]
RUNS += [
    dict(algorithm=a, averaging="corrective", best_response=r)
    for a, r in (("algo-1", "ppo"), ("deda-fp", "look-ahead"))
]
RUNS += [dict(best_response="ppo", sizes={"ppo": dict(temperature=0.5), "cloned": dict(capacity=100)})]


@pytest.fixture(
    scope="module",
    params=RUNS,
    ids=lambda options: ", ".join(str(value).partition("(")[0] for value in options.values()),
)
def run(request, tmp_path_factory):
    """What it was made of, where it is stored, and its solution."""
    options, directory = dict(game=BAR, iterations=3) | request.param, tmp_path_factory.mktemp("run")
    return options, directory, tiny(directory=directory, **options)


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.name != ".lock"}


def test_more_iterations_go_on_bit_for_bit(run, tmp_path):
    options, _, solution = run
    tiny(directory=tmp_path, **options | dict(iterations=1))
    assert_same(tiny(directory=tmp_path, **options), solution)


def test_a_finished_run_opened_again_is_the_same_solution(run):
    options, directory, solution = run
    before = contents(directory)
    assert_same(tiny(directory=directory, **options), solution)
    assert contents(directory) == before
    short = tiny(directory=directory, **options | dict(iterations=2))  # its first iterations
    first = solution.history[:3].drop(columns="weight_3", errors="ignore")  # of the third best response
    pd.testing.assert_frame_equal(short.history, first, check_exact=True)
    assert_same_step(list(replay(options["game"], directory))[2], short)
    assert contents(directory) == before


def test_a_replay_gives_back_every_iteration_and_its_certificate_bit_for_bit(run):
    options, directory, solution = run
    game, steps = options["game"], list(replay(options["game"], directory))
    assert [step.k for step in steps] == [0, 1, 2, 3] and steps[0].best_response is None
    assert_same_step(steps[-1], solution)
    certify = Certify(game, CertifyConfig(agents=200, cells=20), seed=0)
    again = pd.DataFrame([certify(step) for step in steps])
    pd.testing.assert_frame_equal(again, solution.history[list(COLUMNS)], check_exact=True)
    assert torch.equal(steps[2].faced.sample(1, 9, gen()), steps[1].population.sample(1, 9, gen()))
    x = torch.linspace(0, 1, 9)[:, None]
    assert not torch.equal(steps[1].policy.sample(1, x, gen()), steps[2].policy.sample(1, x, gen()))


def test_another_certificate_measures_a_stored_run_again_without_training(run, tmp_path):
    options, directory, solution = run
    shutil.copytree(directory, tmp_path / "run")
    sizes = options.get("sizes", {}) | {"certify": dict(cells=24, every=2)}
    again = tiny(directory=tmp_path / "run", **options | dict(sizes=sizes))
    assert_same(again, tiny(**options | dict(sizes=sizes)))  # as if it had been certified so from the start
    assert again.history["exploitability"].isna().tolist() == [False, True, False, True]
    assert not np.isclose(again.history["exploitability"][2], solution.history["exploitability"][2], rtol=1e-9)
    for file in sorted(directory.glob("*.safetensors")):
        one, other = load_file(file), load_file(tmp_path / "run" / file.name)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
        if file.name.startswith("learners"):
            assert file.read_bytes() == (tmp_path / "run" / file.name).read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "run" / "history.csv"), again.history)


def test_the_best_response_that_comes_back_faces_the_population_that_it_was_trained_on(tmp_path):
    solution = tiny(BAR, directory=tmp_path)
    before, last = list(replay(BAR, tmp_path))[-2:]
    faced = solution.best_response.population
    assert torch.equal(faced.sample(1, 9, gen()), before.population.sample(1, 9, gen()))
    assert not torch.equal(faced.sample(1, 9, gen()), last.population.sample(1, 9, gen()))


def test_directory_holds_plain_files_and_one_checkpoint(run):
    options, directory, solution = run
    names = sorted(file.name for file in directory.iterdir() if file.name[0] != ".")
    learners = [f"learners-{k:04d}.safetensors" for k in range(4)]
    assert names == ["checkpoint-0003.safetensors", "history.csv", "history.csv.digest", *learners, "settings.json"]
    pd.testing.assert_frame_equal(pd.read_csv(directory / "history.csv"), solution.history)
    with safe_open(directory / names[0], framework="pt") as checkpoint:
        assert {name.partition(".")[0] for name in checkpoint.keys()} >= {"average", "best_response", "population"}  # noqa: SIM118
        if "capacity" in options.get("sizes", {}).get("cloned", {}):
            assert len(checkpoint.get_tensor("average.memory.t")) == 100


# --- kills, other runs, and other things in the way


@pytest.mark.parametrize("leftover", [".settings.json.part", ".checkpoint-0002.safetensors.part", ".history.csv.part"])
def test_half_written_files_do_not_stop_a_run(tmp_path, leftover):
    """A kill can fall between writing beside and renaming, before anything else is there or later."""
    if "settings" not in leftover:
        tiny(iterations=1, directory=tmp_path)
    (tmp_path / leftover).write_bytes(b"{half")
    assert_same(tiny(directory=tmp_path), tiny())


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    tiny(iterations=1, directory=directory)
    return directory


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(seed=1), "seed"),
        (dict(averaging="linear"), "averaging"),
        (dict(averaging=constant(0.25)), "averaging"),
        (dict(game=LinearQuadratic(horizon=3, c_m=2.0)), "behaviour, game"),
        (dict(sizes={"cloned": dict(initial_std=0.2)}), "learners"),
        (dict(sizes={"networks": dict(hidden=(9,))}), "networks"),
        (dict(algorithm="algo-2"), "algorithm, .*learners, wanted"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_directory_of_another_run_is_refused_by_name_and_overwritten_on_demand(small, tmp_path, change, named):
    directory = shutil.copytree(small, tmp_path / "run")
    before, options = contents(directory), dict(iterations=1, directory=directory)
    with pytest.raises(ValueError, match=rf"other settings \({named}\).*overwrite=True"):
        tiny(**options | change)
    assert contents(directory) == before
    assert_same(tiny(overwrite=True, **options | change), tiny(iterations=1, **change))


def test_the_size_of_a_learner_that_a_run_does_not_have_does_not_matter(small):
    before = contents(small)
    tiny(iterations=1, directory=small, sizes={"agents": dict(agents=7), "look-ahead": dict(steps=99)})
    assert contents(small) == before


def test_sizes_of_algo_1s_clones_make_another_run(tmp_path):
    options = dict(game=BAR, algorithm="algo-1", iterations=1, directory=tmp_path)
    tiny(**options)
    with pytest.raises(ValueError, match=r"other settings \(learners\)"):
        tiny(**options, sizes={"cloned": dict(steps=6)})


def test_directory_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="not empty and holds no run"):
            tiny(directory=tmp_path, overwrite=overwrite)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_numbers_from_numpy_and_paths_as_text_will_do(small):
    assert_same(tiny(iterations=np.int64(1), seed=np.int64(0), directory=str(small)), tiny(iterations=1))


def test_without_certificates_the_same_is_learned(small, tmp_path):
    directory = shutil.copytree(small, tmp_path / "run")
    bare = tiny(iterations=1, directory=directory, certify=False)
    assert_same_step(bare, tiny(iterations=1))
    assert_same(bare, tiny(iterations=1))  # what was certified stays so
    assert tiny(iterations=1, certify=False).history[list(COLUMNS)].isna().all(axis=None)
    longer = tiny(iterations=2, directory=directory, certify=False)
    assert longer.history[list(COLUMNS)][2:].isna().all(axis=None)
    assert_same(tiny(iterations=2, directory=directory), tiny(iterations=2))  # and certified again


def test_replay_asks_for_a_finished_run_of_the_same_game(small, tmp_path):
    directory = shutil.copytree(small, tmp_path / "run")
    with pytest.raises(ValueError, match=r"expected a run of LinearQuadratic\(.*horizon=5.*got one of LinearQuadratic"):
        replay(LinearQuadratic(horizon=5), directory)
    (directory / "learners-0001.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="learners-0001"):
        list(replay(GAME, directory))
    (directory / "history.csv").unlink()
    with pytest.raises(ValueError, match="no history.csv"):
        replay(GAME, directory)


# --- the directory itself


def test_write_makes_folders_and_leaves_no_half_file(tmp_path):
    file = tmp_path / "a" / "b.txt"
    runs.write(file, "one")
    os.utime(file, (1, 1))
    runs.write(file, "one")
    assert file.stat().st_mtime == 1  # an unchanged file keeps its time
    runs.write(file, "two")
    assert file.read_text(encoding="utf-8") == "two" and file.stat().st_mtime > 1
    assert [f.name for f in file.parent.iterdir()] == ["b.txt"]


def test_latest_is_the_newest_whole_checkpoint(tmp_path):
    run = RunDirectory(tmp_path, dict(certificate=None))
    assert run.latest() is None
    for name in ("checkpoint-0002.safetensors", "checkpoint-0010.safetensors", ".checkpoint-0011.safetensors.part"):
        (tmp_path / name).touch()
    assert run.latest().name == "checkpoint-0010.safetensors"


def test_a_run_of_other_code_or_libraries_is_refused(tmp_path):
    settings = dict(seed=0, code="a", libraries={"torch": "1"}, certificate=1)
    RunDirectory(tmp_path / "run", settings).close()
    again = RunDirectory(tmp_path / "run", settings | dict(certificate=2))
    assert again.certified == 1
    again.close()
    for change in (dict(code="b"), dict(libraries={"torch": "2"})):
        with pytest.raises(ValueError, match=rf"other settings \({next(iter(change))}\)"):
            RunDirectory(tmp_path / "run", settings | change)


# --- packed runs


def test_a_packed_run_is_the_same_solution_and_cannot_go_on(run, tmp_path):
    options, directory, solution = run
    runs.pack(directory, tmp_path)
    files = contents(tmp_path)
    assert not list(tmp_path.glob("checkpoint-*")) and len(list(tmp_path.glob("learners-*"))) == 2
    assert_same(tiny(directory=tmp_path, **options), solution)
    assert contents(tmp_path) == files
    for other in (2, 4):
        with pytest.raises(ValueError, match=r"is packed: 3 iterations, learners from 2 on.*overwrite"):
            tiny(directory=tmp_path, **options | dict(iterations=other))
    with pytest.raises(ValueError, match="expected a whole run, got a packed one"):
        replay(options["game"], tmp_path)
    assert contents(tmp_path) == files


def test_the_judge_of_today_measures_the_last_learners_of_a_packed_run_and_marks_the_rest(run, tmp_path):
    options, directory, _ = run
    runs.pack(directory, tmp_path / "packed")
    whole = shutil.copytree(directory, tmp_path / "whole")
    finer = options | dict(sizes=options.get("sizes", {}) | {"certify": dict(agents=300, cells=25)})
    wanted = tiny(directory=whole, **finer).history
    found = tiny(directory=tmp_path / "packed", **finer).history
    old = tiny(directory=directory, **options).history
    assert found["stale"].tolist()[:3] == [True] * 3 and pd.isna(found["stale"].iloc[3])
    pd.testing.assert_frame_equal(found[list(COLUMNS)][:3], old[list(COLUMNS)][:3], check_exact=True)
    pd.testing.assert_frame_equal(found[list(COLUMNS)][3:], wanted[list(COLUMNS)][3:], check_exact=True)


def test_a_history_alone_opens_nothing_and_overwrite_trains_anew(tmp_path):
    solution = tiny(directory=tmp_path / "whole", iterations=1)
    runs.pack(tmp_path / "whole", tmp_path / "history", learners=False)
    assert {file.name for file in (tmp_path / "history").iterdir()} == {
        "history.csv",
        "history.csv.digest",
        "settings.json",
    }
    with pytest.raises(ValueError, match="is packed: 1 iterations, learners from 2 on"):
        tiny(directory=tmp_path / "history", iterations=1)
    assert_same(tiny(directory=tmp_path / "history", iterations=1, overwrite=True), solution)
    assert replay(GAME, tmp_path / "history")  # a whole run


def test_a_packed_run_of_one_iteration(tmp_path):
    solution = tiny(directory=tmp_path / "whole", iterations=1)
    runs.pack(tmp_path / "whole", tmp_path / "packed")
    assert_same(tiny(directory=tmp_path / "packed", iterations=1), solution)
