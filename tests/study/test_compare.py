"""`offline-vi compare`, LaTeX tables and the data's own score: what they say is what the runs' files say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from test_report import DATASETS, LEVELS, fake_run, fake_study, rows_of

from offline_vi.errors import UsageError
from offline_vi.escaping import latex
from offline_vi.evaluation.statistics import compare, iqm
from offline_vi.study.compare import against_baseline
from offline_vi.study.report import contents, read_any
from offline_vi.study.results import read_study

DATA = {"hopper-medium-v2": 44.25, "walker2d-medium-expert-v2": 82.5}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A made-up study whose runs know their data's score."""
    fake_study(tmp_path / "study")
    for path in (tmp_path / "study" / "runs").iterdir():
        result = json.loads((path / "result.json").read_text())
        score = DATA[path.name.split("_")[0]]
        data = {"normalized_score": score, "return_mean": 1000.0, "episodes": 7}
        (path / "result.json").write_text(json.dumps({**result, "data": data}))
    return tmp_path / "study"


def test_any_method_may_be_the_baseline(study: Path) -> None:
    content = contents(against_baseline(read_study(study), "iql"))
    assert {row.baseline.algorithm for row in content.comparisons} == {"iql"}
    assert {row.method.algorithm for row in content.comparisons} == set(LEVELS) - {"iql"}
    values = {
        name: [
            [run.scores.final for run in read_study(study).runs if run.cell[:2] == (name, data)] for data in DATASETS
        ]
        for name in ("spot", "iql")
    }
    expected = compare(values["spot"], values["iql"], iqm, paired=True)  # type: ignore[arg-type]
    assert next(row.found for row in content.comparisons if row.method.algorithm == "spot") == expected
    assert expected.wins == 6  # three seeds on two data sets


def test_the_command_says_and_writes_it(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", str(study), "--baseline", "bc", "--output", str(tmp_path / "out"), "--latex"]
    code, out, _ = run(words, capsys)
    assert code == 0
    found = next(row.found for row in contents(read_study(study)).comparisons if row.method.algorithm == "bcq")
    (line,) = [line for line in out.splitlines() if line.startswith("  bcq ") and "P(better)" in line]
    for value in (f"{found.difference.value:.1f}", f"{found.difference.low:.1f}", f"{found.p_value:.4f}"):
        assert value in line
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"report.html", "report.md", "report.tex"}
    tex = (tmp_path / "out" / "report.tex").read_text()
    columns = [cell.strip() for cell in re.findall(r"data set & .*", tex)[0].rstrip("\\ ").split("&")]
    row = [cell.strip() for cell in re.findall(r"^hopper-medium-v2 & .*", tex, re.MULTILINE)[0].split("&")]
    assert row[columns.index("data")] == "44.2"
    assert len(columns) == len(row) and "textbf" not in tex  # no number is put forward before its test
    assert r"covers the truth of simulated scores in" in tex and r"for 3 seeds" in tex
    assert out.count("(covers ") == len(LEVELS) * len(DATASETS)
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2
    assert len({line.count("&") for line in tex.split(r"\midrule")[1].splitlines() if "&" in line}) == 1


def test_every_table_and_curve_has_the_datas_own_score(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(study)], capsys)[0] == 0
    content = contents(read_study(study))
    assert {row.dataset: row.data for row in content.scores} == DATA
    assert content.data_aggregates["mean"] == pytest.approx(np.mean(list(DATA.values())))
    markdown = (study / "report.md").read_text()
    assert all(row[6] == f"{DATA[name]:.1f}" for name in DATASETS for row in rows_of(markdown, name)[: len(LEVELS)])
    assert rows_of(markdown, "the data")[0][2:] == ["63.4", "–", "63.4", "63.4", "36.6"]
    for curve in content.plots.curves.values():
        assert 'class="level"' in curve
        assert "the data" in curve


def test_single_runs_are_compared_and_named_by_their_directory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = [str(fake_run(tmp_path / f"wide{seed}", 60.0 + seed, seed=seed, phi=0.2)) for seed in range(3)]
    theirs = [str(fake_run(tmp_path / f"narrow{seed}", 40.0 + seed, seed=seed)) for seed in range(3)]
    words = ["compare", *ours, *theirs, "--baseline", theirs[1], "--output", str(tmp_path / "out")]
    code, out, _ = run(words, capsys)
    assert code == 0
    (line,) = [line for line in out.splitlines() if "P(better)" in line]
    assert "bcq, phi 0.2" in line
    assert "20.0 (20.0 to 20.0), ahead in 3 of 3 seeds" in line
    assert "p 0.1000 (smallest possible 0.1000)" in line
    assert "0.05" in out.splitlines()[out.splitlines().index(line) + 1]  # three against three cannot reach it


def test_without_a_name_every_comparison_has_a_folder_of_its_own(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for baseline, folder in (("bc", "runs/compare"), ("iql", "runs/compare-2")):
        _, out, _ = run(["compare", str(study), "--baseline", baseline], capsys)
        assert out.splitlines()[-3:] == [f"{folder}/{name}" for name in ("results.csv", "report.html", "report.md")]
        assert f"Against {baseline}" in Path(folder, "report.md").read_text()
    assert "Against bc\n" in Path("runs/compare/report.md").read_text()


def test_methods_without_common_ground_are_compared_where_they_can_be(tmp_path: Path) -> None:
    paths = [
        fake_run(tmp_path / f"{name}{k}", 10.0 * k, algorithm=name, seed=k) for name in ("bc", "bcq") for k in (1, 2)
    ]
    other = fake_run(tmp_path / "elsewhere", 5.0, algorithm="iql", dataset="walker2d-medium-v2")
    rows = contents(read_any([*paths, other])).comparisons
    assert [(row.dataset, row.method.algorithm) for row in rows] == [("hopper-medium-v2", "bcq")]


def test_a_table_over_all_data_sets_is_there_for_several_data_sets_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        str(fake_run(tmp_path / f"{name}{k}", 10.0 * k, algorithm=name, seed=k))
        for name in ("bc", "bcq")
        for k in (1, 2)
    ]
    other = str(fake_run(tmp_path / "elsewhere", 5.0, dataset="walker2d-medium-v2", algorithm="bc", seed=1))
    for given, expected in ((runs, False), ([*runs, other], True)):
        assert run(["report", *given, "--output", str(tmp_path / "out")], capsys)[0] == 0
        for name in ("report.html", "report.md"):
            assert ("All data sets together" in (tmp_path / "out" / name).read_text()) is expected


def test_two_studies_are_compared_by_their_runs(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "runs").mkdir(parents=True)
        (tmp_path / name / "suite.json").write_text("{}")
    fake_run(tmp_path / "one" / "runs" / "a", 1.0)
    fake_run(tmp_path / "two" / "runs" / "b", 2.0, phi=0.1)
    assert len(read_any([tmp_path / "one", tmp_path / "two"]).methods) == 2


@pytest.mark.parametrize("name", ["bcqq", "bcq"])
def test_a_baseline_that_is_unknown_or_ambiguous_is_refused(name: str, tmp_path: Path) -> None:
    read = read_any([fake_run(tmp_path / "a", 1.0), fake_run(tmp_path / "b", 2.0, phi=0.1)])
    with pytest.raises(UsageError) as refused:
        against_baseline(read, name)
    assert "bcq, phi 0.05" in refused.value.hint


def test_one_method_alone_is_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one method"):
        against_baseline(read_any([fake_run(tmp_path / "a", 1.0)]), "")


def test_text_of_files_is_text_in_latex() -> None:
    assert latex("50% of $x_1$ & {y} #2 \\input{z} ~^") == (
        r"50\% of \$x\_1\$ \& \{y\} \#2 \textbackslash{}input\{z\} \textasciitilde{}\textasciicircum{}"
    )
    assert latex(3) == 3
