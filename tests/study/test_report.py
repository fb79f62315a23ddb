"""The report: what it says is what the runs' files say, in HTML, Markdown and CSV alike."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run

from offline_vi.errors import ConfigError
from offline_vi.evaluation.statistics import Interval
from offline_vi.study.published import USUAL, claims
from offline_vi.study.report import FILTERS, contents, render
from offline_vi.study.report_plots import aggregate_plot
from offline_vi.study.results import Method, read_study, write_results
from offline_vi.study.single_runs import read_runs
from offline_vi.study.suite import suite_from
from offline_vi.study.tables import AggregateRow, digits_for

LEVELS = {"bc": 50.0, "bcq": 75.0, "emaq": 80.0, "plas": 70.0, "spot": 88.0, "td3-bc": 60.0, "iql": 66.0}
DATASETS = ["hopper-medium-v2", "walker2d-medium-expert-v2"]


def fake_study(folder: Path, seeds: int = 3, failed: tuple[str, ...] = ()) -> dict[tuple[str, str, int], float]:
    """A benchmark directory whose numbers are made up; returns the final scores."""
    record = {
        "name": "made-up",
        "description": "Nothing was trained",
        "algorithms": list(LEVELS),
        "datasets": DATASETS,
        "seeds": list(range(seeds)),
        "presets": ["fast"],
        "behavior": {"steps": 20_000},
    }
    suite, rng, scores = suite_from(record, "made-up"), np.random.default_rng(0), {}
    journal = ["run,host,pid,started,exit_code,seconds"]
    for cell in suite.cells():
        path = folder / "runs" / cell.name
        path.mkdir(parents=True)
        (path / "config.json").write_text(json.dumps({"task": {"note": "another <engine>"}}))
        if cell.name in failed:
            (path / "run.json").write_text(json.dumps({"status": "failed", "error": "a <b>loss</b> is not finite"}))
            continue
        curve = {
            str(step): LEVELS[cell.algorithm] * (1 - np.exp(-step / 8000)) + rng.normal(0, 6)
            for step in range(5000, 30001, 5000)
        }
        final, best = curve["30000"], max(curve, key=lambda step: curve[step])
        scores[cell.dataset, cell.algorithm, cell.seed] = final
        result = {
            "steps": 30_000,
            "normalized_score": final,
            "return_mean": 30.0 * final,
            "returns": [30.0 * final] * 10,
            "best": {"step": int(best), "normalized_score": curve[best]},
            "curve": curve,
            "env_id": "Hopper-v5",
            "mujoco": "4.0.0",
            "diagnostics": {"support/outside": 0.03, "support/log_prob": 1.5, "q/start": 200.0},
        }
        (path / "result.json").write_text(json.dumps(result))
        (path / "run.json").write_text(json.dumps({"status": "done", "wall_seconds": 100.0}))
        journal += [f"{cell.name},host,1,0,143,60.5", f"{cell.name},host,2,0,0,300.0"]
        model = folder / "behavior" / f"{cell.dataset}_cvae_seed{cell.seed}"
        model.mkdir(parents=True, exist_ok=True)
        held_out = {"rows": 100.0, "elbo": 2.1, "iwae_64": 2.4, "truth": 3.0, "gap": 0.6}
        (model / "result.json").write_text(json.dumps({"steps": 20_000, "held_out": held_out}))
        (model / "run.json").write_text(json.dumps({"status": "done"}))
    commands = {cell.name: ["offline-vi", "train", cell.algorithm, "--seed", str(cell.seed)] for cell in suite.cells()}
    (folder / "suite.json").write_text(json.dumps({"schema": 1, "suite": record, "commands": commands}))
    (folder / "environment.txt").write_text("mujoco 4.0.0\ntorch 2.13.0\n")
    (folder / "journal.csv").write_text("\n".join(journal) + "\n")
    return scores


class Page(HTMLParser):
    """Tags that are open at the end, links to elsewhere, text."""

    VOID = frozenset({"meta", "link", "br", "img", "input", "line", "circle", "polyline", "polygon"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.outside += [value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def rows_of(markdown: str, first: str) -> list[list[str]]:
    """The cells of the Markdown rows that begin with a word."""
    found = re.findall(rf"^\| {re.escape(first)} \|.*$", markdown, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def test_page_markdown_and_csv_say_what_the_runs_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = fake_study(tmp_path)
    assert run(["report", str(tmp_path)], capsys)[0] == 0
    text, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["dataset"], row["algorithm"], int(row["seed"])): float(row["final"]) for row in rows} == scores
    assert all(float(row["best"]) >= float(row["final"]) for row in rows)
    assert {float(row["seconds"]) for row in rows} == {360.5}  # both processes that worked on a run

    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.outside == ["data:,"]
    shown = " ".join(" ".join(page.words).split())
    for dataset in DATASETS:
        mine = {row[1]: row for row in rows_of(markdown, dataset)[: len(LEVELS)]}
        for algorithm in LEVELS:
            values = [scores[dataset, algorithm, seed] for seed in range(3)]
            told = f"{np.mean(values):.1f} +- {np.std(values, ddof=1):.1f}"
            assert mine[algorithm][2:4] == ["3", told]
            assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in shown
    assert "covers 7" in shown  # three seeds of one task: three quarters, and the page says so
    assert "offline-vi train spot --seed 2" in shown
    assert "another <engine>" in shown


def made_as(algorithm: str, dataset: str) -> dict[str, Any]:
    """The config.json of a run at the settings of the published score."""
    (claim,) = claims()[dataset, algorithm]
    config: dict[str, Any] = {}
    for name, value in {**USUAL, **claim.settings}.items():
        section, _, field = name.partition(".")
        config |= {section: config.get(section, {}) | {field: value}} if field else {section: value}
    return config


def test_a_published_score_stands_beside_runs_at_its_settings_alone(tmp_path: Path) -> None:
    fake_study(tmp_path)
    for path in tmp_path.glob("runs/hopper-medium-v2_*"):
        name = path.name.split("_")[1]
        config = made_as(name, "hopper-medium-v2") if name in ("iql", "td3-bc") else {}
        if name == "iql":
            config["algorithm_options"]["tau"] = 0.005
        (path / "config.json").write_text(json.dumps(config))
    content = contents(read_study(tmp_path))
    found = {(row.dataset, row.method.algorithm): row for row in content.scores}
    assert [score for score, _ in found["hopper-medium-v2", "td3-bc"].published] == [60.37]
    assert found["hopper-medium-v2", "iql"].published == []
    (unlike,) = found["hopper-medium-v2", "iql"].unlike
    assert (unlike.published.score, len(unlike.reasons)) == (67.53, 1)
    assert "tau" in unlike.reasons[0]
    (unlike,) = found["hopper-medium-v2", "bcq"].unlike  # the -v0 ones stay away
    assert unlike.published.score == 63.9
    assert any("last ten evaluations" in reason for reason in unlike.reasons)
    assert content.sources == ["CORL README, last scores, 4 seeds"]


def test_robomimics_scores_of_bcq_are_those_of_its_table() -> None:
    rows = {row["dataset"]: row["score"] for row in record() if row["source"].startswith("robomimic")}
    table = {"halfcheetah": (46.8, 89.9, 92.9), "hopper": (63.9, 79.5, 92.3), "walker2d": (74.6, 98.7, 108.6)}
    kinds = ("medium", "medium-expert", "expert")
    assert rows == {f"{name}-{kind}-v2": row[i] for name, row in table.items() for i, kind in enumerate(kinds)}


def record() -> list[dict[str, Any]]:
    path = Path(__file__).resolve().parents[2] / "datasets" / "published_scores.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["scores"]
    return rows


def test_no_published_number_is_there_twice_or_without_a_source() -> None:
    keys = [(row["dataset"], row["algorithm"], row["source"]) for row in record()]
    assert len(set(keys)) == len(keys)
    assert all(row["source"] and np.isfinite(row["score"]) for row in record())


def test_the_precision_is_that_of_the_runs_as_in_results_csv(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_study(tmp_path)
    with (tmp_path / "environment.txt").open("a") as file:
        file.write("precision bfloat16\n")
    for path in (tmp_path / "runs").glob("*/run.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "precision": "float32"}))
    assert run(["report", str(tmp_path)], capsys)[0] == 0
    with (tmp_path / "results.csv").open(newline="") as file:
        assert {row["precision"] for row in csv.DictReader(file)} == {"float32"}
    text = (tmp_path / "report.md").read_text()
    assert "- precision float32" in text and "bfloat16" not in text


def test_failed_runs_are_in_no_number_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tuple(f"{DATASETS[0]}_spot_fast_seed{seed}" for seed in range(3))
    fake_study(tmp_path, failed=broken)
    assert run(["report", str(tmp_path)], capsys)[0] == 0
    content = contents(read_study(tmp_path))
    assert content.comparable == [DATASETS[1]]  # aggregates only where everybody has a score
    assert {failure.name for failure in content.failures} == set(broken)
    text = (tmp_path / "report.html").read_text()
    assert "a &lt;b&gt;loss&lt;/b&gt; is not finite" in text
    assert "<b>loss</b>" not in text


@pytest.mark.parametrize("seeds", [1, 12])
def test_intervals_need_two_seeds_and_no_excuse_from_ten(
    seeds: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_study(tmp_path, seeds)
    assert run(["report", str(tmp_path)], capsys)[0] == 0
    markdown = (tmp_path / "report.md").read_text()
    assert "covers" not in markdown
    row = rows_of(markdown, DATASETS[0])[0]
    assert (row[5] == "–") == (seeds == 1)


def test_a_folder_without_a_suite_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(["report", str(tmp_path)], capsys)
    assert (code, "neither a benchmark directory nor a run" in error) == (66, True)


def test_numbers_read_well() -> None:
    shown = {name: FILTERS[name] for name in ("number", "clock", "percent", "thousands")}
    assert shown["number"](-3.14159) == "−3.1"
    assert [shown["clock"](value) for value in (59.0, 600.0, 9000.0, None)] == ["59 s", "10 min", "2.5 h", "–"]
    assert (shown["percent"](0.873), shown["thousands"](30000)) == ("87 %", "30,000")


SPOILED: dict[str, tuple[str, str, str]] = {  # file, its text, what the reason names
    "half a result": ("result.json", '{"normalized_score": 5', "result.json"),
    "a score of text": ("result.json", '{"normalized_score": "much"}', "normalized_score"),
    "a curve of another shape": ("result.json", '{"curve": [1, 2]}', "curve"),
    "a list": ("result.json", "[]", "no JSON object"),
    "a broken configuration": ("config.json", "{", "config.json"),
    "versions of another shape": ("run.json", '{"status": "done", "versions": [1]}', "versions"),
    "a broken record": ("run.json", "{", "run.json cannot be read"),
}


@pytest.mark.parametrize("case", list(SPOILED))
def test_a_study_with_a_malformed_cell_is_reported_without_it(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = fake_study(tmp_path)
    file, text, reason = SPOILED[case]
    name = f"{DATASETS[0]}_iql_fast_seed1"
    (tmp_path / "runs" / name / file).write_text(text)
    code, out, _ = run(["report", str(tmp_path)], capsys)
    assert code == 0
    assert f"left out: {name}: " in out
    content = contents(read_study(tmp_path))
    (failure,) = content.failures
    assert failure.name == name
    assert reason in failure.error
    row = next(row for row in content.scores if (row.dataset, row.method.algorithm) == (DATASETS[0], "iql"))
    assert row.per_seed == [scores[DATASETS[0], "iql", seed] for seed in (0, 2)]


def test_a_malformed_behavior_model_is_left_out(tmp_path: Path) -> None:
    fake_study(tmp_path)
    (tmp_path / "behavior" / f"{DATASETS[0]}_cvae_seed0" / "result.json").write_text('{"steps": 5}')
    content = contents(read_study(tmp_path))
    assert [failure.name for failure in content.failures] == [f"{DATASETS[0]}_cvae_seed0"]
    assert {row.dataset: row.seeds for row in content.densities} == {DATASETS[0]: 2, DATASETS[1]: 3}


# ------------------------------------------------------------------ runs of no suite


def fake_run(folder: Path, score: float, **changes: Any) -> Path:
    """A run directory whose numbers are made up."""
    about = {"algorithm": "bcq", "dataset": "hopper-medium-v2", "seed": 0, "phi": 0.05, "preset": "published"} | changes
    folder.mkdir(parents=True)
    config = {
        "schema": 1,
        "verb": "train",
        "recipe": {"algorithm": about["algorithm"], "spec": {"obs_shape": [11]}, "config": {"phi": about["phi"]}},
        "data": {"name": about["dataset"], "sha256": ["ab"]},
        "task": {"env_id": "Hopper-v5", "note": "another engine"},
        "steps": 100,
        "seed": about["seed"],
        "train_options": {"preset": about["preset"]},
    }
    record = {
        "status": "done",
        "algorithm": about["algorithm"],
        "versions": {"torch": "2.13.0", "mujoco": "4.0.0"},
        "wall_seconds": 61.0,
        "command": ["/bin/offline-vi", "train", about["algorithm"], "--seed", str(about["seed"])],
    }
    result = {"steps": 100, "normalized_score": score, "return_mean": 7.0, "returns": [7.0], "curve": {"100": score}}
    for name, content in (("config", config), ("run", record), ("result", result | changes.get("result", {}))):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_the_report_of_one_run_says_what_its_files_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fake_run(tmp_path / "mine", 41.25)
    assert run(["report", str(path)], capsys)[0] == 0
    text, markdown = ((path / name).read_text() for name in ("report.html", "report.md"))
    (row,) = rows_of(markdown, "hopper-medium-v2")[:1]
    assert row[1:6] == ["bcq", "1", "41.2", "41.2", "–"]
    for words in ("offline-vi train bcq --seed 0", "2.13.0", "another engine", "there is no interval"):
        assert words in text
        assert words in markdown
    assert "<polyline" in text  # the learning curve
    with (path / "results.csv").open(newline="") as file:
        assert [float(row["final"]) for row in csv.DictReader(file)] == [41.25]


def test_several_seeds_of_one_command_are_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(fake_run(tmp_path / f"seed{seed}", 40.0 + seed, seed=seed)) for seed in range(3)]
    assert run(["report", *paths, "--output", str(tmp_path / "out")], capsys)[0] == 0
    (row,) = rows_of((tmp_path / "out" / "report.md").read_text(), "hopper-medium-v2")[:1]
    assert row[1:4] == ["bcq", "3", "41.0 +- 1.0"]


def test_runs_that_differ_are_rows_of_their_own_labeled_by_what_differs(tmp_path: Path) -> None:
    read = read_runs([fake_run(tmp_path / "a", 1.0), fake_run(tmp_path / "b", 2.0, phi=0.1)])
    assert [method.label for method in read.methods] == ["bcq, phi 0.05", "bcq, phi 0.1"]
    read = read_runs([fake_run(tmp_path / "c", 1.0), fake_run(tmp_path / "d", 2.0, preset="fast")])
    assert [method.label for method in read.methods] == ["bcq, published", "bcq, fast"]
    other = fake_run(tmp_path / "e", 2.0, phi=0.1, dataset="walker2d-medium-v2")  # tuned for another data set
    assert [method.label for method in read_runs([tmp_path / "a", other]).methods] == ["bcq"]


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("task", {"env_id": "Hopper-v5", "kwargs": {"frame_skip": 8}}),
        ("task", {"env_id": "Hopper-v4"}),
        ("task", {"env_id": "Hopper-v5", "action_low": [-3.0], "action_high": [3.0]}),
        ("data_options", {"on_nonfinite": "hold"}),
    ],
)
def test_seeds_on_other_environments_or_other_rows_are_no_seeds_of_one_method(
    tmp_path: Path, part: str, value: dict[str, Any]
) -> None:
    first, second = fake_run(tmp_path / "a", 1.0), fake_run(tmp_path / "b", 2.0, seed=1)
    assert len(read_runs([first, second]).methods) == 1
    config = json.loads((second / "config.json").read_text())
    (second / "config.json").write_text(json.dumps(config | {part: value}))
    assert len(read_runs([first, second]).methods) == 2


def test_the_same_seed_twice_is_refused(tmp_path: Path) -> None:
    first = fake_run(tmp_path / "a", 1.0)
    assert len(read_runs([first, first]).runs) == 1
    with pytest.raises(ConfigError, match="a and b are the same seed"):
        read_runs([first, fake_run(tmp_path / "b", 1.0)])


def test_seeds_that_were_trained_in_parallel_are_counted_each(tmp_path: Path) -> None:
    seeds = {str(seed): {"normalized_score": 10.0 * seed, "returns": [1.0]} for seed in range(4)}
    read = read_runs([fake_run(tmp_path / "four", 15.0, result={"seeds": seeds})])
    assert [(run.cell.seed, run.scores.final) for run in read.runs] == [(0, 0.0), (1, 10.0), (2, 20.0), (3, 30.0)]
    assert sum(run.seconds for run in read.runs) == 61.0


def test_a_run_that_is_not_done_is_reported_with_the_reason(tmp_path: Path) -> None:
    broken = fake_run(tmp_path / "broken", 1.0)
    (broken / "run.json").write_text(json.dumps({"status": "failed", "error": "a loss is not finite"}))
    read = read_runs([broken, fake_run(tmp_path / "whole", 2.0, seed=1)])
    assert [(failure.name, failure.error) for failure in read.failures] == [("broken", "a loss is not finite")]
    assert contents(read).scores[0].per_seed == [2.0]


def test_a_run_that_was_interrupted_is_reported_with_the_command_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = fake_run(tmp_path / "my run", 1.0)
    stopped = "interrupted while training bcq, at step 7 of 60"
    (path / "run.json").write_text(json.dumps({"status": "interrupted", "error": f"Interrupted: {stopped}"}))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "plugins": [{"name": "mine.py", "sha256": "0"}]}))
    code, out, _ = run(["report", str(path)], capsys)
    command = f"offline-vi resume '{path}' --plugin mine.py"
    assert code == 0 and f"my run: {stopped}" in out and command in out
    text = (path / "report.md").read_text()
    assert command in text and "| data set |" not in text and "## Commands" not in text  # nothing would be in them
    assert '<table class="sortable">' not in (path / "report.html").read_text()


def test_results_csv_says_what_became_of_a_run(tmp_path: Path) -> None:
    for place, state in enumerate(("done", "failed", "interrupted", "running")):
        path = fake_run(tmp_path / state, 1.0, seed=place)
        if state != "done":
            (path / "run.json").write_text(json.dumps({"status": state}))
    paths = [tmp_path / state for state in ("done", "failed", "interrupted", "running")]
    write_results(read_runs(paths), tmp_path)
    with (tmp_path / "results.csv").open(newline="") as file:
        found = [row["status"] for row in csv.DictReader(file)]
    assert found == ["done", "failed", "interrupted", "interrupted"]  # of the last, the process was killed


def test_joined_data_sets_have_short_names_that_tell_them_apart(tmp_path: Path) -> None:
    names = ("a+b+c+d", "a+b+e+f", "a+b")
    study = read_runs([fake_run(tmp_path / f"run{place}", 1.0, dataset=name) for place, name in enumerate(names)])
    assert [row.dataset for row in contents(study).scores] == ["a+b+2 more", "a+b+e+f", "a+b"]


def test_commands_are_quoted_for_a_shell(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "mine", 1.0)
    words = ["train", "bcq", "--dataset", "my log.csv", "--env-kwargs", '{"a": 1}']
    record = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**record, "command": ["/usr/bin/offline-vi", *words]}))
    (found,) = read_runs([path]).runs
    assert shlex.split(found.command) == ["offline-vi", *words]


def test_a_task_without_reference_scores_has_a_curve_of_returns(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "mine", 1.0, result={"normalized_score": None, "curve": {"10": None}})
    rows = ["step,seed,return,normalized", "10,0,-4.0,nan", "10,1,-2.0,nan", "20,0,nan,nan", "20,1,-1.0,nan", "30,0,"]
    (path / "episodes.csv").write_text("\n".join(rows) + "\n")
    read = read_runs([path])
    assert read.runs[0].returns == {10: -3.0, 20: -1.0}
    content = contents(read)
    assert content.by_return == ["hopper-medium-v2"]
    assert (content.scores[0].per_seed, content.scores[0].mean) == ([7.0], 7.0)
    assert "IQM of the return" in content.plots.curves["hopper-medium-v2"]


def test_a_behavior_model_alone_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = fake_run(tmp_path / "model", 1.0, result={"held_out": {"rows": 9.0, "elbo": 1.25}})
    config = json.loads((path / "config.json").read_text())
    config |= {"verb": "fit-behavior", "recipe": {"algorithm": "", "behavior": "cvae"}}
    (path / "config.json").write_text(json.dumps(config))
    assert run(["report", str(path)], capsys)[0] == 0
    assert rows_of((path / "report.md").read_text(), "hopper-medium-v2")[0][1:5] == ["cvae", "1", "100", "1.250"]


def of_returns(folder: Path, seed: int, returns: list[float], **about: Any) -> Path:
    """A run on an environment without reference scores."""
    mean = sum(returns) / len(returns)
    own: dict[str, Any] = {"measure": "return_mean", "normalized_score": None, "return_mean": mean, "returns": returns}
    own |= {"best": {"step": 100, "return_mean": mean}, "curve": {"100": mean}, "data": {"return_mean": -7.25}}
    return fake_run(folder, 0.0, seed=seed, dataset="pumps", result=own, **about)


def test_returns_have_as_many_decimals_as_they_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two policies that one decimal would not tell apart."""
    for seed, level in enumerate((-1.812, -1.768)):
        of_returns(tmp_path / f"bcq{seed}", seed, [level, level])
        of_returns(tmp_path / f"bc{seed}", seed, [level - 0.031, level - 0.031], algorithm="bc")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    code, out, _ = run(["compare", *paths, "--baseline", "bc", "--output", str(tmp_path / "out"), "--latex"], capsys)
    assert code == 0
    for name in ("report.md", "report.html", "report.tex"):
        page = (tmp_path / "out" / name).read_text()
        for value in ("1.79", "1.82", "0.03"):
            assert value in page, (name, value)
    assert "−1.79" in out and "0.03" in out
    text = (tmp_path / "out" / "report.md").read_text()
    assert "normalized return" not in text and "| published |" not in text and "MuJoCo" not in text


def test_every_row_of_a_table_has_the_cells_of_its_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With returns alone, with normalized scores, with both, and with published ones."""
    own = of_returns(tmp_path / "own", 0, [-1.0, -2.0])
    scored = fake_run(tmp_path / "scored", 3.0)
    fake_study(tmp_path / "study")
    for place, paths in enumerate(([own], [scored], [own, scored], [tmp_path / "study"])):
        output = tmp_path / f"out{place}"
        assert run(["report", *map(str, paths), "--output", str(output)], capsys)[0] == 0
        page = re.sub(r"\\\|", "", (output / "report.md").read_text())
        tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
        assert tables
        for table in tables:
            assert len({line.count("|") for line in table.splitlines()}) == 1, table


def test_a_report_says_what_an_interval_over_seeds_leaves_out(tmp_path: Path) -> None:
    for seed in range(2):  # the same mean, from episodes that differ widely
        of_returns(tmp_path / f"bcq{seed}", seed, [-4.0, 0.0, -2.0 - seed / 10.0])
        of_returns(tmp_path / f"bc{seed}", seed, [-3.0 - 2.0 * seed] * 3, algorithm="bc")
    content = contents(read_runs(sorted(tmp_path.iterdir())))
    rows = {row.method.algorithm: row for row in content.scores}
    assert rows["bcq"].episodes == (3, 3)
    expected = np.sqrt(np.mean([np.var([-4.0, 0.0, last], ddof=1) / 3 for last in (-2.0, -2.1)]))
    assert rows["bcq"].over_episodes == pytest.approx(expected)
    about, noisy = content.episode_notes
    assert "3 episodes" in about
    assert f"bcq ({expected:.2f})" in noisy and "bc (" not in noisy


def test_all_returns_on_a_data_set_have_the_same_decimals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two methods on either side of a power of ten, in tables, comparisons and LaTeX alike."""
    for seed in range(2):
        of_returns(tmp_path / f"bc{seed}", seed, [-9.9, -9.9], algorithm="bc")
        of_returns(tmp_path / f"bcq{seed}", seed, [-12.5, -12.5])
    rows = contents(read_runs(sorted(tmp_path.iterdir()))).scores
    assert {row.digits for row in rows} == {1}
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    _, out, _ = run(["compare", *paths, "--baseline", "bc", "--output", str(tmp_path / "out"), "--latex"], capsys)
    assert "−9.9 " in out and "−9.90" not in out
    for name in ("report.md", "report.html", "report.tex"):
        assert "9.90" not in (tmp_path / "out" / name).read_text(), name


@pytest.mark.parametrize(
    ("values", "digits"),
    [
        ([1234.5, -2.0], 0),
        ([-999.0], 1),
        ([123.4], 1),
        ([-1.8, None], 2),
        ([0.031], 4),
        ([1e-6], 4),
        ([], 1),
        ([0.0], 1),
    ],
)
def test_decimals_follow_the_largest_return(values: list[float | None], digits: int) -> None:
    assert digits_for(values) == digits


def test_what_critics_expect_has_the_decimals_of_returns(tmp_path: Path) -> None:
    own = {"diagnostics": {"q/start": -1.234, "q/return": -0.456}}
    content = contents(read_runs([fake_run(tmp_path / "run", 1.0, result=own)]))
    assert "−1.23 | −0.46 |" in render("report.md", vars(content))
    assert ">−1.23<" in render("report.html", vars(content))


def test_the_return_is_not_repeated_where_it_is_the_score(tmp_path: Path) -> None:
    of_returns(tmp_path / "own", 0, [-1.0, -2.0])
    fake_run(tmp_path / "scored", 3.0, result={"return_mean": 0.62})
    page = render("report.md", vars(contents(read_runs([tmp_path / "own", tmp_path / "scored"]))))
    (own,), (scored,) = ([row for row in rows_of(page, name) if len(row) == 11][:1] for name in ("pumps", DATASETS[0]))
    assert (own[7], scored[7]) == ("–", "0.620")


def test_a_report_says_how_precise_a_mean_over_episodes_is(tmp_path: Path) -> None:
    """Also where the spread over seeds is larger, where runs have other numbers of episodes, and where no one does."""
    for seed, count in enumerate((2, 8)):
        of_returns(tmp_path / f"bcq{seed}", seed, [-1.0 - 9.0 * seed, -2.0 - 9.0 * seed] * (count // 2))
    (note,) = contents(read_runs(sorted(tmp_path.iterdir()))).episode_notes
    errors = [np.std([-1.0, -2.0] * (count // 2), ddof=1) / np.sqrt(count) for count in (2, 8)]
    assert "2 to 8 episodes" in note and "over training seeds alone" in note
    assert f"standard error of such a mean: {np.sqrt(np.mean(np.square(errors))):.1f}." in note
    (single,) = contents(read_runs([tmp_path / "bcq0"])).episode_notes
    assert "interval" not in single  # of one seed there is none
    none = fake_run(tmp_path / "none", 1.0, result={"returns": []})
    assert contents(read_runs([none])).episode_notes == []


def test_noisy_scores_come_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(of_returns(tmp_path / f"{kind}{seed}", seed, [-4.0, 0.0], algorithm=kind))
             for kind in ("bc", "bcq") for seed in range(2)]  # fmt: skip
    _, out, _ = run(["compare", *paths, "--baseline", "bc", "--output", str(tmp_path / "out")], capsys)
    for text in (out, *((tmp_path / "out" / name).read_text() for name in ("report.md", "report.html"))):
        words = " ".join(text.replace("\\", "").split())
        assert "--evaluations" in words


def test_a_report_says_what_a_score_is_and_mujocos_version_among_the_packages(tmp_path: Path) -> None:
    """Runs record the installed version of MuJoCo whether or not their environment uses it."""
    scored, own = fake_run(tmp_path / "scored", 3.0), of_returns(tmp_path / "own", 0, [-1.0, -2.0])
    for path, meaning in ((scored, "normalized return"), (own, "return in the environment's units")):
        content = vars(contents(read_runs([path])))
        html, markdown = render("report.html", content), render("report.md", content)
        assert f"the mean {meaning} of" in " ".join(html.replace("&#39;", "'").split())
        assert "MuJoCo" not in html + markdown
        assert "- mujoco 4.0.0" in markdown and "<td>mujoco</td>" in html


def test_runs_that_did_not_begin_are_counted_for_each_method(tmp_path: Path) -> None:
    """A long suite is reported while it runs: a line for each of its hundreds of cells helps nobody."""
    fake_study(tmp_path)
    for path in (tmp_path / "runs").iterdir():
        if "_bcq_" in path.name or path.name.endswith("iql_fast_seed2"):
            shutil.rmtree(path)
    study = read_study(tmp_path)
    assert [failure.name for failure in study.failures] == ["bcq, 6 runs", "iql, 2 runs"]
    content = vars(contents(study))
    assert (content["left"], content["done"]) == (8, len(study.runs) - 8)
    for name in ("report.md", "report.html"):
        assert "bcq, 6 runs" in render(name, content)


def test_a_report_says_how_many_episodes_the_task_ended(tmp_path: Path) -> None:
    """A short length may be a failure that pays: it is in the note and in results.csv."""
    cases = (("bc", 0, [False, True]), ("bcq", 0, [True, True]), ("bcq", 1, [False, False]))
    for kind, seed, ended in cases:
        path = of_returns(tmp_path / f"{kind}{seed}", seed, [-1.0, -2.0], algorithm=kind)
        result = json.loads((path / "result.json").read_text())
        (path / "result.json").write_text(json.dumps({**result, "terminated": ended, "lengths": [3, 9]}))
    study = read_runs(sorted(tmp_path.iterdir()))
    assert "bc 50 %; bcq 100 %, 0 %" in " ".join(contents(study).episode_notes)  # a mean would hide that seeds differ
    with write_results(study, tmp_path).open(newline="") as file:
        assert [(row["ended_by_task"], row["length"]) for row in csv.DictReader(file)] == [
            ("1", "6.0"),
            ("2", "6.0"),
            ("0", "6.0"),
        ]


@pytest.mark.parametrize("fewest", [1, 3])
def test_an_interval_is_drawn_where_each_data_set_has_several_runs(fewest: int) -> None:
    aggregates = {"IQM": Interval(20.0, 15.0, 26.0)}
    row = AggregateRow(Method("bc", "", "bc", 0), aggregates, 2, 6, fewest)
    (ends,) = re.findall(r'<line class="whisker s0" x1="([\d.]+)" x2="([\d.]+)"', aggregate_plot([row]))
    assert (float(ends[0]) < float(ends[1])) == (fewest > 1)
