"""Tables of one's own as files: CSV and Parquet, and the file that names their columns."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from offline_vi import datasets
from offline_vi.data.transitions import Transitions
from offline_vi.datasets.safe import delimited
from offline_vi.errors import (
    ConfigError,
    DatasetCorruptError,
    DatasetFormatError,
    DatasetTooLargeError,
    DataWarning,
    EmptyDatasetError,
    MissingDependencyError,
    MissingInputError,
    NonFiniteDataError,
    OfflineVIError,
    UsageError,
)
from offline_vi.scripts import data as command
from offline_vi.study.data import DataOptions
from offline_vi.study.plan import read_data
from offline_vi.study.suite import suite_from

pandas = pytest.importorskip("pandas")

TOML = """
episode = "patient"
time = "day"
obs = ["pulse", "lab_*"]
action = "dose"
reward = "reward"
terminated = "died"
action_low = 0
action_high = [10.0]
"""


def frame() -> Any:
    """Two patients of three and four days; the second one died."""
    return pandas.DataFrame(
        {
            "patient": ["P-2"] * 3 + ["P-1"] * 4,
            "day": [f"2024-{day}" for day in ("02-27", "02-28", "02-29", "03-01", "03-02", "03-03", "03-04")],
            "pulse": [60, 61, 62, 70, 71, 72, 73],
            "lab_b": np.arange(7) / 8,
            "lab_a": np.arange(7) * 1000.5,
            "dose": [0.0, 5.0, 10.0, 2.5, 7.5, 0.0, 10.0],
            "reward": np.arange(7.0),
            "died": [False] * 6 + [True],
            "note": "as before; he says",
        }
    )


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    (tmp_path / "columns.toml").write_text(TOML)
    return tmp_path / "columns.toml"


def is_right(found: Transitions) -> None:
    """By hand: the third day of the first patient is dropped, because nobody knows the fourth."""
    np.testing.assert_array_equal(found.obs[:, 0], [60, 61, 70, 71, 72, 73])
    np.testing.assert_array_equal(found.obs[:, 1], np.array([0, 1, 3, 4, 5, 6], np.float32) / 8)
    np.testing.assert_array_equal(found.obs[:, 2], np.array([0, 1, 3, 4, 5, 6], np.float32) * np.float32(1000.5))
    np.testing.assert_array_equal(found.action[:, 0], [-1.0, 0.0, -0.5, 0.5, -1.0, 1.0])
    np.testing.assert_array_equal(found.reward, [0, 1, 3, 4, 5, 6])
    np.testing.assert_array_equal(found.next_obs[:, 0], [61, 62, 71, 72, 73, 73])
    np.testing.assert_array_equal(found.terminated, [0, 0, 0, 0, 0, 1])
    np.testing.assert_array_equal(found.episode_end, [0, 1, 0, 0, 0, 1])


WRITERS: dict[str, Callable[[Any, Path], Any]] = {
    "plain.csv": lambda table, path: table.to_csv(path, index=False),
    "bom, semicolons.csv": lambda table, path: table.to_csv(path, index=False, sep=";", encoding="utf-8-sig"),
    "tabs.tsv": lambda table, path: table.to_csv(path, index=False, sep="\t"),
    "quoted.csv": lambda table, path: table.to_csv(path, index=False, quoting=1, lineterminator="\r\n"),
    "an index.csv": lambda table, path: table.to_csv(path),
    "parquet.parquet": lambda table, path: table.to_parquet(path),
    "types.parquet": lambda table, path: table.astype({"patient": "category", "day": "datetime64[ms]"}).to_parquet(
        path, row_group_size=2
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_in_physical_units(name: str, tmp_path: Path, toml: Path) -> None:
    path = tmp_path / name
    WRITERS[name](frame(), path)
    found = datasets.load(path, columns=toml)
    is_right(found)
    assert found.source.sha256 == (hashlib.sha256(path.read_bytes()).hexdigest(),)
    assert found.source.columns == str(toml) and found.source.next_obs == "within_episode"
    assert found.task is not None and (found.task.action_low, found.task.action_high) == ((0.0,), (10.0,))
    again = DataOptions.of(found)
    assert (again.dataset, again.columns) == ((str(path),), str(toml))
    is_right(again.load())


def test_data_say_how_they_were_read(tmp_path: Path, toml: Path) -> None:
    path, rows = tmp_path / "log.csv", frame()
    rows["lab_b"] = [0.0, np.nan, *np.arange(5) / 8]
    rows.to_csv(path, index=False)
    with pytest.warns(DataWarning):
        found = datasets.load(path, columns=toml, on_nonfinite="split", action_range="data", max_episode_steps=50)
    again = DataOptions.of(found)
    assert (again.on_nonfinite, again.action_range, again.max_episode_steps) == ("split", "data", 50)
    with pytest.warns(DataWarning):
        loaded = again.load()
    assert np.array_equal(loaded.obs, found.obs) and np.array_equal(loaded.action, found.action)
    whole = tmp_path / "whole.csv"
    frame().to_csv(whole, index=False)
    assert DataOptions.of(datasets.load(whole, columns=toml)).on_nonfinite == "error"


def test_the_check_of_a_table_counts_the_rows_that_the_file_has(tmp_path: Path, toml: Path) -> None:
    path = tmp_path / "log.csv"
    frame().to_csv(path, index=False)
    with pytest.warns(DataWarning, match="1 episode cut without"):
        data = datasets.load(path, columns=toml)
    report = datasets.inspect(path, columns=toml)
    assert (report.rows, report.episodes, report.transitions) == (7, 2, 6)
    assert report.dropped == {"NaN or infinities": 0, "next state unknown": 1}
    assert not report.next_obs_stored
    assert data.observed_returns().tolist() == [0 + 1 + 2, 3 + 4 + 5 + 6]
    assert report.returns.min == 3.0 and report.lengths.max == 4.0


def test_several_tables_are_checked_as_they_are_trained_on(
    tmp_path: Path, toml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "may.csv", tmp_path / "june.csv"]
    for file in files:
        frame().to_csv(file, index=False)
    command.main(["check", *map(str, files), "--columns", str(toml)])
    assert "12 transitions, 4 episodes" in capsys.readouterr().out
    with pytest.warns(DataWarning, match=r"2 episodes .*all 2 data sets") as warned:
        data = datasets.load(*files, columns=toml)
    assert data.task is not None and data.task.name == "may+june"
    assert len(warned) == 1  # for both files
    said, large = datasets.inspect(*files, columns=toml).warnings
    assert said == str(warned[0].message) and "--normalize" in large
    with pytest.raises(MissingInputError) as caught:
        command.main(["check", str(tmp_path / "*.csv"), "--columns", str(toml)])
    assert "quotes" in caught.value.hint
    with pytest.raises(UsageError, match="no data set"):
        command.main(["check"])


def test_a_time_with_decimal_commas_may_be_an_observation(tmp_path: Path) -> None:
    lines = [f"1;{hour // 4},{25 * (hour % 4):02d};0,{hour};1,5;0" for hour in (2, 0, 3, 1, 5, 4)]
    (tmp_path / "log.csv").write_text("\n".join(["day;hour;a;r;end", *lines]))
    columns = tmp_path / "columns.toml"
    columns.write_text(
        'episode = "day"\ntime = "hour"\nobs = ["hour"]\naction = "a"\nreward = "r"\nterminated = "end"\n'
        'action_low = 0\naction_high = 1\ndecimal = ","\n'
    )
    with pytest.warns(DataWarning, match="moved into the order"):
        data = datasets.load(tmp_path / "log.csv", columns=columns)
    np.testing.assert_allclose(data.obs[:, 0], [0.0, 0.25, 0.5, 0.75, 1.0])


def test_decimal_commas_and_thousands(tmp_path: Path, toml: Path) -> None:
    path = tmp_path / "log.csv"
    frame().to_csv(path, index=False, sep=";", decimal=",")
    with pytest.raises(DatasetFormatError, match=r"line 2: 'lab_b' is '0,0'") as caught:
        datasets.load(path, columns=toml)
    assert 'decimal = ","' in caught.value.hint
    toml.write_text(f'{TOML}decimal = ","\n')
    is_right(datasets.load(path, columns=toml))
    path.write_text(path.read_text().replace("1000,5", "1.000,5"))
    with pytest.raises(DatasetFormatError, match="line 3: 'lab_a'"):
        datasets.load(path, columns=toml)
    path.write_text(path.read_text().replace("1.000,5", "1.000"))  # a thousand, not one
    with pytest.raises(DatasetFormatError, match="line 3: 'lab_a'"):
        datasets.load(path, columns=toml)


def test_rows_in_any_order_with_times(tmp_path: Path, toml: Path) -> None:
    path = tmp_path / "log.csv"
    frame().iloc[[1, 6, 2, 0, 3, 5, 4]].to_csv(path, index=False)
    with pytest.warns(DataWarning, match="moved"):
        is_right(datasets.load(path, columns=toml))
    toml.write_text(TOML.replace('time = "day"', ""))
    with pytest.raises(DatasetFormatError, match="interleaved"):
        datasets.load(path, columns=toml)


def test_options_of_the_call_go_before_those_of_the_file(tmp_path: Path, toml: Path) -> None:
    path = tmp_path / "log.csv"
    frame().to_csv(path, index=False)
    found = datasets.load(path, columns=toml, action_low=-10.0, action_high=30.0)
    np.testing.assert_allclose(found.action[:, 0], np.array([0.0, 5.0, 2.5, 7.5, 0.0, 10.0]) / 20.0 - 0.5)
    found = datasets.load(path, columns=toml, action_range="data")
    assert found.task is not None and found.task.action_high == (10.0,)


def test_ends_by_length_and_nothing_that_ended_the_task(tmp_path: Path, toml: Path) -> None:
    path = tmp_path / "log.csv"
    frame().to_csv(path, index=False)
    toml.write_text(
        'obs = "pulse"\naction = ["dose"]\nreward = "reward"\nterminated = false\naction_low = 0\naction_high = 10\n'
    )
    with pytest.raises(UsageError, match="episodes end"):
        datasets.load(path, columns=toml)
    found = datasets.load(path, columns=toml, max_episode_steps=3)
    np.testing.assert_array_equal(found.reward, [0, 1, 3, 4])
    assert not found.terminated.any()


# ------------------------------------------------------------------ what is refused


def test_without_a_file_of_columns_the_columns_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    frame().to_csv(path, index=False)
    with pytest.raises(UsageError, match="patient, day, pulse, lab_b") as caught:
        datasets.load(path)
    assert "columns=" in caught.value.hint and 'episode = "patient"' in caught.value.hint
    with pytest.raises(UsageError, match="only tables"):
        datasets.load(tmp_path / "data.hdf5", columns="columns.toml")
    with pytest.raises(MissingInputError):
        datasets.load(path, columns=tmp_path / "nothing.toml")
    with pytest.raises(MissingInputError):
        datasets.load(tmp_path / "nothing.csv", columns=tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    "line, fact",
    [
        ('rewrad = "reward"', "'reward'"),
        ("reward = 1", "reward"),
        ("obs = [1]", "obs"),
        ("action = []", "action"),
        ("terminated = 1", "terminated"),
        ('action_low = "0"', "action_low"),
        ('max_episode_steps = "9"', "max_episode_steps"),
        ('delimiter = "::"', "delimiter"),
        ('decimal = ";"', "decimal"),
        ("= 7", "line"),
        ("", "does not say"),
    ],
)
def test_files_of_columns_that_say_nothing_or_too_much(line: str, fact: str, tmp_path: Path, toml: Path) -> None:
    frame().to_csv(tmp_path / "log.csv", index=False)
    key = line.split(" =")[0]
    kept = [old for old in TOML.splitlines() if not line or not old.startswith(f"{key} =")]
    toml.write_text("\n".join([*(kept if line else kept[:3]), line]))
    with pytest.raises(ConfigError) as caught:
        datasets.load(tmp_path / "log.csv", columns=toml)
    assert fact in f"{caught.value} {caught.value.hint}"


def changed(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    "change, error, facts",
    [
        (changed("0.125", "abc"), DatasetFormatError, ["line 3", "lab_b", "abc"]),
        (changed("0.125", "1_000"), DatasetFormatError, ["line 3", "lab_b"]),
        (changed("0.125", ""), NonFiniteDataError, ["row 1"]),
        (changed("0.125", "NA"), NonFiniteDataError, ["row 1"]),
        (changed("0.125", "1e999"), NonFiniteDataError, ["row 1"]),
        (changed(",5.0,1.0", ",5.0"), DatasetFormatError, ["line 3", "8 cells"]),
        (changed("61,", '"61,'), DatasetFormatError, ["line"]),
        (changed("pulse", "lab_b"), DatasetFormatError, ["'pulse'"]),
        (changed("note", "pulse"), DatasetFormatError, ["2 columns"]),
        (changed("P-2", ""), DatasetFormatError, ["episode", "row 0"]),
        (changed("2024-02-28", "later"), DatasetFormatError, ["day", "later"]),
        (changed("True", "2"), DatasetFormatError, ["terminated"]),
        (changed("True", ""), DatasetFormatError, ["terminated"]),
        (lambda text: text.split("\n")[0], EmptyDatasetError, []),
        (lambda text: "", EmptyDatasetError, []),
        (lambda text: text.split("\n", 1)[1].replace("P-", "").replace("as before; he says", "1"), OfflineVIError, []),
        (lambda text: "1,2,3\n4,5,6\n", DatasetFormatError, ["first line"]),
        (lambda text: text + "x" * 200_000, DatasetFormatError, ["line 9"]),
    ],
)  # fmt: skip
def test_cells_that_are_refused_by_line(
    change: Callable[[str], str], error: type[OfflineVIError], facts: list[str], tmp_path: Path, toml: Path
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(change(frame().to_csv(index=False)))
    with pytest.raises(error) as caught:
        datasets.load(path, columns=toml)
    for fact in facts:
        assert fact in f"{caught.value} {caught.value.hint}"


def test_bytes_that_are_no_table(tmp_path: Path, toml: Path) -> None:
    text = frame().to_csv(index=False)
    for name, content, error in (
        ("utf-16.csv", text.encode("utf-16"), DatasetFormatError),
        ("latin.csv", text.replace("note", "Größe").encode("latin-1"), DatasetFormatError),
        ("no.parquet", b"PAR1" + b"\0" * 100 + b"PAR1", DatasetCorruptError),
        ("empty.parquet", b"", DatasetCorruptError),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(error):
            datasets.load(tmp_path / name, columns=toml)


def test_columns_of_parquet_that_are_no_numbers(tmp_path: Path, toml: Path) -> None:
    path = tmp_path / "log.parquet"
    for column, values in (("pulse", ["a"] * 7), ("reward", [[1.0]] * 7), ("dose", [None] * 7), ("died", ["no"] * 7)):
        frame().assign(**{column: values}).to_parquet(path)
        with pytest.raises(OfflineVIError):
            datasets.load(path, columns=toml)
    frame().assign(pulse=pandas.array([60, 61, None, 70, 71, 72, 73], "Int64")).to_parquet(path)
    with pytest.raises(NonFiniteDataError, match="next_observations"):
        datasets.load(path, columns=toml)


@pytest.mark.parametrize("name", ["plain.csv", "parquet.parquet"])
def test_sizes_and_hashes_before_anything_is_read(name: str, tmp_path: Path, toml: Path) -> None:
    path = tmp_path / name
    WRITERS[name](frame(), path)
    for bound in ("max_dataset_bytes", "memory_budget"):
        with pytest.raises(DatasetTooLargeError):
            datasets.load(path, columns=toml, **{bound: 100})  # type: ignore[arg-type]
    with pytest.raises(DatasetCorruptError):
        datasets.load(path, columns=toml, sha256="ab")


def test_parquet_without_its_package(tmp_path: Path, toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame().to_parquet(tmp_path / "log.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError) as caught:
        datasets.load(tmp_path / "log.parquet", columns=toml)
    assert "offline-vi[arrow]" in caught.value.hint


def test_thousands_of_columns_and_blocks_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK", 3)
    wide = np.arange(8 * 3000).reshape(8, 3000)
    table = pandas.DataFrame(wide, columns=[f"x{i}" for i in range(3000)])
    table = table.assign(a=0.5, r=np.arange(8), e=7)
    path, toml = tmp_path / "wide.csv", tmp_path / "wide.toml"
    path.write_text(table.to_csv(index=False).replace("\n", "\n\n", 6))  # with empty lines
    toml.write_text('episode = "e"\nobs = "x*"\naction = "a"\nreward = "r"\nterminated = false\n')
    found = datasets.load(path, columns=toml)
    np.testing.assert_array_equal(found.obs, wide[:7])
    np.testing.assert_array_equal(found.next_obs, wide[1:])


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60), st.integers(0, 400))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_a_file_is_read_or_refused(tmp_path: Path, text: str, at: int) -> None:
    """One of our errors, and no other."""
    whole = frame().to_csv(index=False)
    (tmp_path / "any.csv").write_text(whole[:at] + text + whole[at:], newline="")
    (tmp_path / "any.toml").write_text(TOML)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = datasets.load(tmp_path / "any.csv", columns=tmp_path / "any.toml")
        except OfflineVIError:
            return
    assert len(found) > 0 and np.isfinite(found.obs).all()


# ------------------------------------------------------------------ the same everywhere


def test_the_command_and_suites_read_the_same(tmp_path: Path, toml: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.csv"
    frame().to_csv(path, index=False)
    command.main(["check", str(path), "--columns", str(toml)])
    assert "6 transitions, 2 episodes" in capsys.readouterr().out
    record = {
        "algorithms": ["bc"],
        "datasets": [str(path)],
        "train": {"columns": str(toml), "steps": 5},
        "behavior": {"model": "cvae"},
    }
    suite = suite_from(record, "own")
    assert suite.datasets == {"log": (str(path),)} and read_data(suite)[1] == {}
