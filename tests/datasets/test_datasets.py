"""Names, tasks, downloads, real files and the `data` verb."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import subprocess
import sys
import threading
import urllib.request
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import real_data
from oracle_data import distinct_columns, qlearning_rows

from offline_vi import datasets
from offline_vi.datasets import d4rl
from offline_vi.datasets.tasks import (
    FAMILIES,
    d4rl_hashes,
    d4rl_name,
    d4rl_references,
    defects_of,
    family_of,
    task_of,
)
from offline_vi.errors import (
    ActionRangeError,
    DatasetCorruptError,
    DataWarning,
    MissingInputError,
    OfflineError,
    SpaceMismatchError,
    UsageError,
)
from offline_vi.scripts import data as verb


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders for everything that is looked for by name."""
    monkeypatch.delenv("OFFLINE_VI_DATA", raising=False)
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "d4rl"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


def write(path: Path, action_dim: int = 3, rows: int = 20, obs_dim: int = 2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, column in distinct_columns(rows, obs_dim, action_dim).items():
            file[key] = column
    return path


# ------------------------------------------------------------------ names and tasks


def test_reference_scores_are_d4rls() -> None:
    """Checked against values printed in D4RL's paper and infos.py."""
    assert task_of("hopper-medium-v2").normalized(np.array([1000.0]))[0] == pytest.approx(31.349, abs=1e-3)  # type: ignore[union-attr]
    assert task_of("halfcheetah-random-v2").ref_max == 12135.0  # type: ignore[union-attr]
    assert task_of("antmaze-large-play-v2").normalized(np.array([0.0, 1.0])).tolist() == [0.0, 100.0]  # type: ignore[union-attr]
    assert task_of("kitchen-mixed-v0").ref_max == 4.0  # type: ignore[union-attr]
    assert len(d4rl_hashes()) == 35 and len(d4rl_references()) == 155
    assert set(d4rl_hashes()) <= set(d4rl_references())


@pytest.mark.parametrize(
    ("stem", "env_id", "name"),
    [
        ("hopper-medium", "Hopper-v5", "hopper-medium"),
        ("hopper_medium-v2", "Hopper-v5", "hopper-medium-v2"),
        ("walker2d_medium_expert-v2", "Walker2d-v5", "walker2d-medium-expert-v2"),
        ("HalfCheetah_mine", "HalfCheetah-v5", "HalfCheetah_mine"),
        ("ant-medium-v2", "Ant-v4", "ant-medium-v2"),
        ("antmaze-large-diverse-v2", "", "antmaze-large-diverse-v2"),  # today's ant has other observations
        ("maze2d-umaze-dense-v1", "PointMaze_UMazeDense-v3", "maze2d-umaze-dense-v1"),
        ("maze2d-umaze-v1", "PointMaze_UMaze-v3", "maze2d-umaze-v1"),
        ("door-human", "AdroitHandDoor-v1", "door-human"),
    ],
)
def test_stems_tell_the_task(stem: str, env_id: str, name: str) -> None:
    task = task_of(stem)
    assert task is not None and (task.env_id, task.name) == (env_id, name)
    assert d4rl_name(stem) == name


@pytest.mark.parametrize("stem", ["hoppers", "anthill", "mydata", "bullet-hopper-medium-v0", "", "pendulum"])
def test_other_stems_tell_nothing(stem: str) -> None:
    assert task_of(stem) is None


def test_the_table_is_consistent() -> None:
    for family in FAMILIES:
        assert family_of(family.reference) is family, "an earlier prefix hides this family"
    incomparable = [family for family in FAMILIES if "maze" in family.prefix or "kitchen" in family.prefix]
    assert len(incomparable) == 12 and all("not comparable" in family.note for family in incomparable)
    assert len(set(datasets.names())) == len(datasets.names())


# observations in D4RL's files
@pytest.mark.parametrize(("prefix", "obs_dim"), [("hopper", 11), ("halfcheetah", 17), ("walker2d", 17), ("ant", 111)])
def test_environments_have_the_dimensions_of_the_data(
    prefix: str, obs_dim: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log where it runs
    family = family_of(prefix)
    assert family is not None
    pytest.importorskip("mujoco")
    gymnasium = pytest.importorskip("gymnasium")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = gymnasium.make(family.env_id, **family.kwargs)
    assert env.observation_space.shape == (obs_dim,)
    assert (env.action_space.low == -1).all() and env.action_space.shape == (family.action_dim,)
    assert env.spec.max_episode_steps == family.max_episode_steps


def test_known_defects() -> None:
    assert "swapped" in defects_of("hopper-medium-v1")[0]
    assert any("#162" in text for text in defects_of("hopper_medium_replay-v2"))
    assert defects_of("walker2d-medium-v2") == []


def test_unknown_names_get_the_nearest(nowhere: Path) -> None:
    for name, nearest in (
        ("hoper-medium-v2", "hopper-medium-v2"),
        ("mujoco/hoper/medium-v0", "mujoco/hopper/medium-v0"),
        ("offline-vi/pendulum/mix-v0", "offline-vi/pendulum/mixed-v0"),
    ):
        with pytest.raises(UsageError) as caught:
            datasets.load(name)
        assert nearest in caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize("name", ["hopper-medium-v2", "mujoco/hopper/medium-v0"])
def test_known_names_that_are_not_here_say_where_to_put_them(name: str, nowhere: Path) -> None:
    with pytest.raises(MissingInputError) as caught:
        datasets.load(name)
    assert caught.value.exit_code == 66
    assert f"data download {name}" in caught.value.hint and str(nowhere) in str(caught.value)


@pytest.mark.parametrize("file_name", ["hopper_expert-v1.hdf5", "hopper-expert-v1.hdf5"])
def test_d4rl_names_are_found_under_both_file_names(file_name: str, nowhere: Path) -> None:
    path = write(nowhere / "d4rl" / file_name, obs_dim=11)
    found = datasets.load("hopper-expert-v1")
    assert found.source.paths == (str(path),) and found.task is not None and found.task.env_id == "Hopper-v5"


def test_published_hashes_are_checked(nowhere: Path) -> None:
    write(nowhere / "d4rl" / "hopper_medium-v2.hdf5")
    with pytest.raises(DatasetCorruptError, match=d4rl_hashes()["hopper-medium-v2"]):
        datasets.load("hopper-medium-v2")


def test_a_bare_file_name_is_looked_for_in_the_folders_too(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE_VI_DATA", str(nowhere / "ours"))
    monkeypatch.chdir(nowhere)
    path = write(nowhere / "ours" / "hopper-mine.hdf5")
    assert datasets.hdf5_file("hopper-mine.hdf5")[0] == path
    assert datasets.hdf5_file("elsewhere/hopper-mine.hdf5")[0] == Path("elsewhere/hopper-mine.hdf5")
    here = write(nowhere / "hopper-mine.hdf5")
    assert datasets.hdf5_file("hopper-mine.hdf5")[0].resolve() == here.resolve()
    with pytest.raises(MissingInputError, match=r"nothing\.hdf5"):
        datasets.load("nothing.hdf5")


def test_our_folder_comes_first(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(nowhere / "d4rl" / "hopper-mine.hdf5")
    path = write(nowhere / "ours" / "hopper-mine.hdf5")
    monkeypatch.setenv("OFFLINE_VI_DATA", str(nowhere / "ours"))
    assert datasets.load("hopper-mine").source.paths == (str(path),)


def test_the_environment_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "swing.hdf5", action_dim=1)
    assert datasets.load(path).task is None
    found = datasets.load(path, env="Pendulum-v1")
    assert found.task is not None and found.task.action_high == (2.0,)
    np.testing.assert_allclose(found.action[1, 0], np.sin(1.0) / 2.0, rtol=1e-6)
    with pytest.raises(UsageError):
        datasets.load(path, env="Pendulum-v77")
    with pytest.raises(SpaceMismatchError, match=r"action \(3,\) vs Pendulum-v1 \(1,\)"):
        datasets.load(write(tmp_path / "wide.hdf5"), env="Pendulum-v1")
    with pytest.raises(SpaceMismatchError):
        datasets.load(path, env="CartPole-v1")


def test_several_files_are_read_alone(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"hopper-{name}.hdf5") for name in "ab"]
    joined = datasets.load(*paths)
    assert [part.stop - part.start for part in joined.episode_slices()] == [19, 19]
    with pytest.raises(UsageError, match="1 hashes for 2"):
        datasets.load(*paths, sha256="0" * 64)


# ------------------------------------------------------------------ downloads


class Server(http.server.BaseHTTPRequestHandler):
    content = b""
    cut_at: int | None = None  # bytes of each answer before the connection breaks
    ranges = True
    asked: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(self.content):
            self.send_error(416)
            return
        body = self.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.cut_at])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    handler = type("Handler", (Server,), {"asked": [], "content": np.random.default_rng(0).bytes(50_000)})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            socket.create_connection(("127.0.0.1", listening.server_port), timeout=5).close()
        except OSError as error:
            listening.shutdown()
            thread.join()
            pytest.skip(f"this machine cannot talk to itself: {error}")
        yield handler, f"http://127.0.0.1:{listening.server_port}/file.hdf5"
        listening.shutdown()
        thread.join()


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_broken_connections_are_resumed(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    handler.cut_at = 15_000
    d4rl.fetch(url, tmp_path / "file.hdf5", digest_of(handler.content))
    assert (tmp_path / "file.hdf5").read_bytes() == handler.content
    assert handler.asked == [None, "bytes=15000-", "bytes=30000-", "bytes=45000-"]
    assert [path.name for path in tmp_path.iterdir()] == ["file.hdf5"]


def test_an_interrupted_download_goes_on_next_time(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    handler.cut_at = 6_000
    with pytest.raises(OfflineError) as caught:
        d4rl.fetch(url, tmp_path / "file.hdf5")
    assert str(tmp_path / "file.hdf5") in caught.value.hint
    assert not (tmp_path / "file.hdf5").exists()
    handler.cut_at = None
    d4rl.fetch(url, tmp_path / "file.hdf5")
    assert handler.asked[-1] == "bytes=30000-" and (tmp_path / "file.hdf5").read_bytes() == handler.content


@pytest.mark.parametrize("cut_at", np.random.default_rng(1).integers(1, 60_000, 20).tolist())
def test_no_cut_leaves_a_bad_file(cut_at: int, server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    handler.cut_at, handler.ranges = cut_at, bool(cut_at % 2)
    try:
        d4rl.fetch(url, tmp_path / "file.hdf5", digest_of(handler.content))
    except OfflineError:
        assert not (tmp_path / "file.hdf5").exists()
    else:
        assert (tmp_path / "file.hdf5").read_bytes() == handler.content


def test_a_server_without_ranges_sends_everything_again(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    handler.ranges = False
    (tmp_path / ".file.hdf5.part").write_bytes(handler.content[:6_000])
    d4rl.fetch(url, tmp_path / "file.hdf5")
    assert (tmp_path / "file.hdf5").read_bytes() == handler.content
    assert handler.asked == ["bytes=6000-"]


def test_a_wrong_hash_leaves_nothing(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    with pytest.raises(DatasetCorruptError) as caught:
        d4rl.fetch(url, tmp_path / "file.hdf5", "0" * 64)
    assert digest_of(handler.content) in str(caught.value) and "0" * 64 in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_another_version_is_dropped(server: tuple[type[Server], str], tmp_path: Path) -> None:
    handler, url = server
    (tmp_path / ".file.hdf5.part").write_bytes(b"x" * 60_000)
    d4rl.fetch(url, tmp_path / "file.hdf5", digest_of(handler.content))
    assert (tmp_path / "file.hdf5").read_bytes() == handler.content


def test_without_a_network_the_path_is_told(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(OfflineError) as caught:
        datasets.load("hopper-medium-v2", download=True)
    assert caught.value.exit_code == 69
    assert str(nowhere / "d4rl" / "hopper_medium-v2.hdf5") in caught.value.hint


# ------------------------------------------------------------------ real data


@pytest.mark.parametrize("name", ["hopper-medium", "hopper-expert", "halfcheetah-medium", "hopper-medium-v2-layout"])
def test_real_files_load_without_a_warning(name: str) -> None:
    path = real_data(f"{name}.hdf5")
    with h5py.File(path) as file:
        columns = {key: file[key][()] for key in ("observations", "actions", "terminals", "timeouts")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = datasets.load(path)
    expected = qlearning_rows(columns["terminals"], columns["timeouts"], None)
    rows, after, done = map(list, zip(*expected, strict=True))
    assert found.obs.tobytes() == columns["observations"][rows].tobytes()
    assert found.next_obs.tobytes() == columns["observations"][after].tobytes()
    assert found.action.tobytes() == columns["actions"][rows].tobytes()
    assert found.terminated.tolist() == done
    assert (found.behavior_log_prob is not None) == name.startswith("hopper")


@pytest.mark.parametrize(("name", "score"), [("hopper-medium", 47), ("hopper-expert", 100), ("halfcheetah-medium", 46)])
def test_real_returns_have_the_documented_scores(name: str, score: float) -> None:
    found = datasets.load(real_data(f"{name}.hdf5"), next_obs="within_episode")
    assert found.task is not None
    assert found.task.normalized(found.episode_returns()).mean() == pytest.approx(score, abs=0.5)


def test_stored_next_states_agree_with_the_next_rows() -> None:
    strict = datasets.load(real_data("hopper-medium.hdf5"), next_obs="within_episode")
    inside = ~strict.episode_end[:-1]
    np.testing.assert_array_equal(strict.next_obs[:-1][inside], strict.obs[1:][inside])


def test_demonstrations_outside_the_bounds() -> None:
    path = real_data("door-human.hdf5")
    with pytest.raises(ActionRangeError, match="10595 of 188412"):
        datasets.load(path)
    with pytest.warns(DataWarning, match="clipped 10595"):
        clipped = datasets.load(path, action_range="clip")
    mapped = datasets.load(path, action_range="data")
    assert np.abs(clipped.action).max() == np.abs(mapped.action).max() == 1.0
    assert mapped.task is not None
    inside = np.abs(clipped.action) < 1.0
    np.testing.assert_allclose(mapped.task.to_env(mapped.action)[inside], clipped.action[inside], atol=1e-6)


# ------------------------------------------------------------------ the verb


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "offline_vi", "data", *arguments], capture_output=True, text=True)


def test_listing_imports_no_torch() -> None:
    code = "import sys; from offline_vi.scripts.data import main; main(['list']); assert 'torch' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "hopper-medium-v2" in result.stdout and "D4RL/door/human-v2" in result.stdout


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    verb.main(["list", "--json"])
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == datasets.names()


def test_info_counts_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hopper-mine.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((5, 2), np.float32)
        file["actions"] = np.array([[1, 0, 0], [0, 0, 0], [-1, 1, 0.5], [0, 0, 0], [0, 0, 0]], np.float32)
        file["rewards"] = np.array([1, 2, 3, 4, 5], np.float32)[:, None]
        file["terminals"] = np.array([0, 1, 0, 0, 0], bool)
        file["timeouts"] = np.array([0, 0, 0, 1, 0], bool)
    verb.main(["info", str(path), "--json"])
    record = json.loads(capsys.readouterr().out)
    assert (record["rows"], record["episodes"], record["terminations"], record["timeouts"]) == (5, 3, 1, 1)
    assert record["returns"] == {"mean": 5.0, "std": pytest.approx(np.std([3, 7, 5])), "min": 3.0, "max": 7.0}
    assert record["on the bounds"].startswith("33.33%")  # of the rows that become transitions
    assert record["sha256"] == [digest_of(path.read_bytes())]


def test_info_splits_by_length_where_there_are_no_timeouts(tmp_path: Path) -> None:
    path = tmp_path / "kitchen-mixed-mine.hdf5"
    with h5py.File(path, "w") as file:
        file["observations"], file["actions"] = np.zeros((600, 60)), np.zeros((600, 9))
        file["rewards"], file["terminals"] = np.ones(600), np.arange(600) == 9
    record = verb.describe(str(path))
    assert record["episodes"] == 4 and record["returns"]["max"] == 280.0


def test_check_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "hopper-mine.hdf5")
    verb.main(["check", str(path)])
    assert capsys.readouterr().out.startswith("ok: hopper-mine, 19 transitions, 1 episodes\n")
    with h5py.File(path, "a") as file:
        file["timeouts"][4], file["terminals"][4] = True, True
    verb.main(["check", str(path)])
    assert "warning: hopper-mine: 1 rows are both" in capsys.readouterr().out


def test_expected_failures_of_the_command(tmp_path: Path) -> None:
    for arguments, code in (
        (("check", str(tmp_path / "none.hdf5")), 66),
        (("download", "hopper-medium-v9"), 2),
        (("download", "offline-vi/pendulum/mixed-v0"), 2),
        (("collect", "offline-vi/pendulum/mixed-v9"), 2),
    ):
        result = run(*arguments)
        assert result.returncode == code and "Traceback" not in result.stderr
        assert result.stderr.startswith("error: ") and "\nhint: " in result.stderr
