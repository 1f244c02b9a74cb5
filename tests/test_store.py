"""Stored runs are opened instead of trained, as long as they belong to the code of today, and compared with others."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from tiny import BAR, GAME, assert_same, tiny

from deda_fp import comparison, store, taken
from deda_fp.batch import RUNS, learned_by, seconds_file
from mfglib import runs
from mfglib.presets import PRESETS

CELLS = {"certify": dict(agents=200, cells=20)}


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A store of two variants with two seeds each, of the smallest runs; the results that it is made of."""
    judge = dict(CELLS)

    def solve(game, variant, preset, seed, directory, **options):
        algorithm, averaging = learned_by(variant)
        options = dict(averaging=averaging, seed=seed, directory=directory, sizes=judge) | options
        return tiny({"lq": GAME, "beach-bar": BAR}[game], algorithm, **options)

    monkeypatch.setattr(store, "_solve", solve)
    monkeypatch.setattr(store, "STORE", tmp_path / "store")
    monkeypatch.setattr(store, "VARIANTS", [("lq", "geometric"), ("beach-bar", "deda-fp")])
    monkeypatch.setattr(store, "SEEDS", {"lecture": range(2)})
    monkeypatch.setenv("MFGLIB_PRESET", "lecture")
    made = tmp_path / "made"
    for game, variant in store.VARIANTS:
        for seed in range(2):
            solve(game, variant, "lecture", seed, made / "lecture" / game / variant / f"seed-{seed}")
    for seed in range(2):
        runs.write_table(made / f"lecture/beach-bar/deda-fp/seed-{seed}/errors.csv", pd.DataFrame({"e_true": [seed]}))
    for name in store.TABLES:
        runs.write(made / "lecture" / name, "seconds\n1\n")
    store.keep(made)
    return made, judge


def test_stored_runs_are_placed_and_opened_without_training(small, tmp_path, capsys):
    made, _ = small
    assert store.take(tmp_path / "new") == []
    for game, variant in store.VARIANTS:
        placed = tmp_path / "new/lecture" / game / variant
        assert not list(placed.rglob("checkpoint-*")) and len(list(placed.glob("seed-1/learners-*"))) == 0
        opened = store.stored_run(game, variant, results=str(tmp_path / "new"))
        whole = store.stored_run(game, variant, results=str(made))
        assert_same(opened, whole)
        pd.testing.assert_frame_equal(opened.history, whole.history, check_exact=True)
    errors = tmp_path / "new/lecture/beach-bar/deda-fp/seed-1/errors.csv"
    assert runs.read_table(errors)["e_true"].item() == 1
    assert errors.stat().st_mtime_ns >= errors.with_name("history.csv").stat().st_mtime_ns  # as the batch asks
    assert all((tmp_path / "new/lecture" / name).exists() for name in store.TABLES)
    assert store.take(tmp_path / "new") == [] and capsys.readouterr().out == ""


def test_a_notebook_opens_the_store_or_trains_and_says_so(small, tmp_path, capsys):
    store.stored_run("lq", "geometric", results=str(tmp_path / "alone"))
    assert capsys.readouterr().out == ""
    store.stored_run("lq", "geometric", seed=7, results=str(tmp_path / "alone"))
    assert "seed 7: no finished run belongs to this code, so it is trained now" in capsys.readouterr().out
    store.stored_run("lq", "geometric", seed=7, results=str(tmp_path / "alone"))
    assert capsys.readouterr().out == ""


def test_a_run_of_other_code_is_not_taken_but_trained(small, tmp_path, capsys):
    for seed in range(2):
        file = store.STORE / f"lq/geometric/seed-{seed}/settings.json"
        runs.write(file, json.dumps(runs.read_settings(file.parent) | dict(code="other")))
    (said,) = store.take(tmp_path / "new")
    assert said.startswith("lq, geometric: trained anew") and "other settings (code)" in said
    assert not (tmp_path / "new/lecture/lq/geometric/seed-0").exists()
    assert (tmp_path / "new/lecture/beach-bar/deda-fp/seed-0/history.csv").exists()
    store.stored_run("lq", "geometric", results=str(tmp_path / "new"))
    out = capsys.readouterr().out
    assert "other settings (code)" in out and "trained now" in out
    assert list((tmp_path / "new/lecture/lq/geometric/seed-0").glob("checkpoint-*"))  # a whole run
    assert len(store.take(tmp_path / "new")) == 0  # which stays


def test_a_seed_of_other_settings_is_not_taken(small, tmp_path):
    file = store.STORE / "lq/geometric/seed-1/settings.json"
    runs.write(file, json.dumps(runs.read_settings(file.parent) | dict(code="other")))
    (said,) = store.take(tmp_path / "new")
    assert "the settings of seed 1 differ from those of seed 0" in said


def test_after_a_change_of_the_judge_what_cannot_be_measured_is_marked(small, tmp_path):
    _, judge = small
    judge["certify"] = dict(agents=300, cells=25)
    assert store.take(tmp_path / "new") == []
    for game, variant in store.VARIANTS:
        folder = tmp_path / "new/lecture" / game / variant
        first, other = (runs.read_table(folder / f"seed-{seed}/history.csv")["stale"] for seed in range(2))
        assert first[:-1].eq(True).all() and pd.isna(first.iloc[-1]) and other.eq(True).all()
    assert store.take(tmp_path / "new") == []


def test_runs_with_error_terms_of_other_code_are_trained(small, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ERRORS", ("mfglib.seeds",))
    (said,) = store.take(tmp_path / "new")
    assert said.startswith("beach-bar, deda-fp: trained anew") and "error terms" in said


def test_the_speed_of_sampling_is_measured_anew_after_a_change_of_its_code(small, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "SAMPLING", ("mfglib.seeds",))
    said = store.take(tmp_path / "new")
    assert [line.split(":")[0] for line in said] == list(store.INFERENCE)
    assert not any((tmp_path / "new/lecture" / name).exists() for name in store.INFERENCE)


def test_the_sweep_is_trained_anew_after_a_change_of_its_sizes(small, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "sizes", lambda *_: "others")
    (said,) = store.take(tmp_path / "new")
    assert said.startswith(f"{store.SWEEP_TABLE}: measured anew")


def test_compare_says_equal_on_the_same_machine_and_counts_errors_on_another(small, monkeypatch):
    made, _ = small
    assert comparison.compare(made)["equal"].all() and len(comparison.compare(made)) == 4
    file = made / "lecture/lq/geometric/seed-1/history.csv"
    runs.write_table(file, runs.read_table(file).assign(flow_loss=0.0))
    assert comparison.compare(made).query("not equal")[["game", "seed"]].values.tolist() == [["lq", 1]]
    shutil.rmtree(made / "lecture/lq/geometric/seed-0")
    with pytest.raises(FileNotFoundError):
        comparison.compare(made)
    here = store.here()
    monkeypatch.setattr(store, "here", lambda: here.replace(store.processor(), "another"))
    beach = [pair for pair in store.VARIANTS if pair[0] == "beach-bar"]
    monkeypatch.setattr(store, "VARIANTS", beach)
    table = comparison.compare(made)
    assert len(table) == 1 and table["standard_errors"].item() == 0 and np.isfinite(table["new_std"]).all()


def test_named_runs_alone_are_renewed_and_each_knows_its_machine(small, monkeypatch):
    made, _ = small
    before = {file: file.read_bytes() for file in (store.STORE / "beach-bar").rglob("*") if file.is_file()}
    for seed in range(2):
        file = made / f"lecture/lq/geometric/seed-{seed}/history.csv"
        runs.write_table(file, runs.read_table(file).assign(flow_loss=0.0))
    monkeypatch.setattr(store, "here", lambda: "another machine")
    for name in store.INFERENCE:
        (made / "lecture" / name).unlink()
    store.keep(made, ["lq/geometric"])
    assert before and all(file.read_bytes() == content for file, content in before.items())
    assert runs.read_table(store.STORE / "lq/geometric/seed-1/history.csv")["flow_loss"].eq(0).all()
    table = comparison.compare(made)
    assert table.query("game == 'lq'")["equal"].all() and table.query("game == 'beach-bar'")["equal"].isna().all()
    known = "lq/geometric, beach-bar/deda-fp, sampling, sweep"
    with pytest.raises(ValueError, match=f"only: expected names among {known}, got lq/linear"):
        store.keep(made, ["lq/linear"])


def test_processors_of_one_name_are_told_apart(monkeypatch, tmp_path):
    texts = [f"processor\t: 0\nmodel name\t: EPYC\nmodel\t\t: {n}\nflags\t\t: fpu avx2\n\nprocessor: 1" for n in (1, 2)]
    found = []
    for text in (*texts, texts[0]):
        monkeypatch.setattr(store.Path, "read_text", lambda self, encoding, text=text: text)
        found.append(store.processor())
    assert found[0] == found[2] != found[1] and all(name.startswith("EPYC (") for name in found)


# --- the committed store


def test_once_placed_nothing_is_asked_again(tmp_path, monkeypatch):
    assert not taken.taken(tmp_path)
    shutil.copytree(store.STORE, tmp_path / "lecture")
    runs.write(tmp_path / taken.STAMP, taken.stamp())
    assert taken.taken(tmp_path)
    (tmp_path / "lecture/lq/uniform/seed-2/history.csv").unlink()
    assert not taken.taken(tmp_path)
    monkeypatch.setattr(taken, "fingerprint", lambda *_: "other")
    assert taken.stamp() != (tmp_path / taken.STAMP).read_text(encoding="utf-8")


def test_every_stored_run_belongs_to_the_code(tmp_path, monkeypatch):
    """To mend: `make reproduce STORE=1` (an hour), or `python -m mfglib confirm OLD`; then `make notebooks`."""
    monkeypatch.delenv("MFGLIB_PRESET", raising=False)
    assert store.take(tmp_path) == []


def test_the_store_is_small_and_whole():
    files = [file for file in store.STORE.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 10e6
    assert {file.suffix for file in files} == {".csv", ".digest", ".json", ".safetensors"}  # nothing can execute code
    for game, variants in RUNS.items():
        for variant in variants:
            assert len(list((store.STORE / game / variant).glob("seed-*/history.csv"))) == len(store.SEEDS["lecture"])


@pytest.mark.parametrize("game", RUNS)
def test_tables_of_figures_are_summaries_of_the_stored_runs(game):
    """One quantity has one source."""
    table = pd.read_csv(store.ROOT / f"figures/data/{game}_runs.csv")
    seconds = pd.read_csv(seconds_file(store.ROOT / f"figures/data/{game}_runs.csv"))
    for variant in RUNS[game]:
        algorithm, averaging = learned_by(variant)
        for seed in store.SEEDS["lecture"]:
            history = runs.read_table(store.STORE / f"{game}/{variant}/seed-{seed}/history.csv")
            chosen = "algorithm == @algorithm and averaging == @averaging and seed == @seed"
            for part in (table, seconds):
                mine = part.query(chosen).reset_index(drop=True)
                common = [name for name in history if name in mine]
                pd.testing.assert_frame_equal(mine[common], history[common], rtol=1e-5, check_dtype=False)
    assert set(PRESETS) == set(store.SEEDS)


def test_the_bias_of_a_grid_is_that_of_the_benchmark():
    text = (store.ROOT / "figures/data/grid_benchmark.json").read_text(encoding="utf-8")
    rows = {r["measure"]: r["value"] for r in json.loads(text)}
    bias = store.grid_bias("four-rooms", 40)
    assert list(bias) == [1, 2, 5, 10, 20]
    assert bias[20] == rows["four-rooms, equilibrium, 40 cells, t = 20: total variation"]
    with pytest.raises(KeyError, match="no rows of four-rooms, equilibrium, 41 cells: run benchmarks/grid.py"):
        store.grid_bias("four-rooms", 41)


@pytest.fixture
def older(small, monkeypatch, tmp_path):
    """The same store, of code that said it otherwise, and what stands in for the processes that train."""
    seeds = {"old": 0, "new": 0}

    def relabel(run):
        runs.write(run / "settings.json", json.dumps(runs.read_settings(run) | dict(code="older")))

    def train(root, game, variant, iterations, folder):
        run = folder / game / variant
        store._solve(game, variant, "lecture", seeds[folder.name], run, iterations=iterations, overwrite=True)
        if folder.name == "old":
            relabel(run)
        runs.write_table(run / "errors.csv", pd.DataFrame({"e_true": [1.0]}))
        return SimpleNamespace(wait=lambda: 0)

    for run in store.STORE.glob("*/*/seed-*"):
        relabel(run)
    monkeypatch.setattr(comparison, "_train", train)
    monkeypatch.setattr(store, "RESULTS", tmp_path / "results")
    return seeds


def test_runs_of_code_that_trains_the_same_are_confirmed(older, tmp_path, capsys):
    assert [line.split(":")[0] for line in store.take(tmp_path / "new")] == ["lq, geometric", "beach-bar, deda-fp"]
    comparison.confirm(tmp_path, 1, ["lq/geometric"])
    assert capsys.readouterr().out == "lq/geometric: equal\n"
    assert [line.split(":")[0] for line in store.take(tmp_path / "new")] == ["beach-bar, deda-fp"]
    with pytest.raises(
        ValueError, match="lq/geometric: expected stored runs of the code in .*, got ones of other code"
    ):
        comparison.confirm(tmp_path, 1)  # it belongs to today's by now
    comparison.confirm(tmp_path, 1, ["beach-bar/deda-fp"])
    assert store.take(tmp_path / "new") == []


def test_the_sweep_is_confirmed_with_its_run_if_it_belonged_to_the_old_code(older, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "_swept", lambda root: "before" if root == tmp_path else "now")
    for made, found in (("another", "another"), ("before", "now")):
        runs.write(store.STORE / "made_by.json", json.dumps(store.made_by() | dict(sweep=made)))
        for name in ("lq/geometric", "beach-bar/deda-fp"):
            assert store.made_by()["sweep"] == made
            for run in store.STORE.glob("*/*/seed-*"):
                runs.write(run / "settings.json", json.dumps(runs.read_settings(run) | dict(code="older")))
            comparison.confirm(tmp_path, 1, [name])
        assert store.made_by()["sweep"] == found


def test_runs_of_code_that_trains_something_else_are_not_confirmed(older, tmp_path):
    older["new"] = 1
    with pytest.raises(ValueError, match="lq/geometric: expected what the code in .* trains, got something else"):
        comparison.confirm(tmp_path, 1)
    assert len(store.take(tmp_path / "new")) == 2


def test_both_codes_train_with_the_same_words(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(comparison.subprocess, "Popen", lambda script, **options: asked.append((script, options)))
    for root in (tmp_path / "old", store.ROOT):
        comparison._train(root, "beach-bar", "deda-fp", 3, tmp_path / root.name)
    (one, where), (other, here) = asked
    assert one.replace("/old/", f"/{store.ROOT.name}/") == other and one.count("mfglib") == 2  # errors too
    assert where["cwd"] != here["cwd"] and where["env"]["PYTHONPATH"] == str(where["cwd"])
    assert "train beach-bar --algorithm deda-fp --averaging uniform --iterations 3" in one
