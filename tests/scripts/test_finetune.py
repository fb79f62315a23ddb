"""From offline to online: what a batch is made of, where a run goes on, and that it does so bit for bit."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from offline_vi.algorithms.sac import SAC, SACConfig
from offline_vi.algorithms.td3_bc import TD3BC, TD3BCConfig
from offline_vi.data.samplers import Sampler
from offline_vi.data.transitions import Transitions
from offline_vi.datasets import environment
from offline_vi.errors import ConfigError, Interrupted, SpaceMismatchError, UsageError
from offline_vi.rl.policies import GaussianNoise
from offline_vi.runs.directory import RunDirectory
from offline_vi.scripts import main
from offline_vi.study.finetune import explorer_of
from offline_vi.study.kept import load_agent
from offline_vi.training.collector import Blended, Collection, Collector
from offline_vi.training.online import fit_online
from offline_vi.types import Spec

SPEC = Spec((3,), 1)
PENDULUM = "offline-vi/pendulum/mixed-v0"
TRAIN = ["--dataset", PENDULUM, "--steps", "20", "--eval-every", "20", "--eval-episodes", "2", "-q", "--hidden", "8"]
TUNE = ["--steps", "20", "--warmup", "15", "--eval-every", "10", "--eval-episodes", "2", "--log-every", "10", "-q"]


def offline(rows: int = 50) -> Transitions:
    """Rewards tell them from Pendulum's, which are never positive."""
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, 3)).astype(np.float32)
    action, ends = rng.uniform(-1, 1, (rows, 1)).astype(np.float32), np.zeros(rows, bool)
    return Transitions(obs, action, np.arange(1, rows + 1, dtype=np.float32), obs, ends, ends, SPEC)


class Still:
    """Does nothing."""

    def explore(self, obs: Tensor) -> Tensor:
        return torch.zeros(len(obs), 1)


def blended() -> Blended:
    how = Collection(warmup=20, warmup_policy=Still())
    collector = Collector(Still(), environment("Pendulum-v1"), SPEC, 9, how, seed=1)
    return Blended(Sampler(offline(), 3, 2), collector)


def test_every_batch_has_its_share_of_both() -> None:
    source, rows = blended(), offline()
    for _ in range(10):
        batch = source.sample()
        ours = batch.reward > 0.0
        assert ours.tolist() == [True] * 3 + [False] * 9
        np.testing.assert_array_equal(batch.reward[ours], rows.reward[batch.index[ours].numpy()])
        assert (batch.index[~ours] >= len(rows)).all()
        assert (batch.action[~ours] == 0.0).all()  # of the warm-up too: the warm-up policy's, not uniform ones
    assert source.online.replay.count == 30


def test_a_blend_continues_from_its_state() -> None:
    first, second = blended(), blended()
    for _ in range(5):
        first.sample()
    first.pause()
    second.load_state(json.loads(json.dumps(first.state())))
    second.load_tensors(first.tensors())
    for _ in range(5):
        for ours, theirs in zip(first.sample(), second.sample(), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("share", [0.0, 0.01, 1.0, 2.0])
def test_a_share_that_leaves_one_side_nothing_is_refused(share: float) -> None:
    agent = TD3BC(SPEC, TD3BCConfig(hidden=(8,), batch_size=8))
    with pytest.raises(UsageError, match="of the 8 rows"):
        fit_online(
            agent, environment("Pendulum-v1"), SPEC, 5, explorer=GaussianNoise(agent), offline=offline(), share=share
        )


def test_an_interrupted_fine_tuning_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def run(path: Path, stop: int | None) -> dict[str, Tensor]:
        with RunDirectory.create(path) as directory:
            for end in (None,) if stop is None else (stop, None):
                torch.manual_seed(0)
                agent = SAC(SPEC, SACConfig(hidden=(8,), batch_size=8))

                def look(step: int, _: Any, end: int | None = end) -> dict[str, float]:
                    if step == end:
                        os.kill(os.getpid(), signal.SIGTERM)
                    return {}

                with nullcontext() if end is None else pytest.raises(Interrupted):
                    fit_online(
                        agent,
                        environment("Pendulum-v1"),
                        SPEC,
                        80,
                        warmup_policy=agent,
                        offline=offline(),
                        warmup=10,
                        run=directory,
                        save_every=30,
                        eval_every=10,
                        on_eval=look,
                        resume=end is None and stop is not None,
                        progress=False,
                    )
        return agent.snapshot()

    whole, cut = run(tmp_path / "whole", None), run(tmp_path / "cut", 50)
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


# ------------------------------------------------------------------ the command


def result_of(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "result.json").read_text())
    return record


def episodes(run: Path, step: int) -> list[str]:
    return [line for line in (run / "episodes.csv").read_text().splitlines() if line.startswith(f"{step},")]


@pytest.mark.parametrize(
    "algorithm",
    [
        ["td3-bc", "--normalize"],
        ["bcq", "--behavior.hidden", "8"],
        ["emaq", "--behavior.hidden", "8", "--behavior-steps", "10", "--bank-period", "100"],
        ["sac"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_run_goes_on_from_the_policy_that_it_had(algorithm: list[str], tmp_path: Path) -> None:
    start, path = tmp_path / "start", tmp_path / "tuned"
    main(["train", *algorithm, *TRAIN, "--output", str(start)])
    before = {name.name: name.read_bytes() for name in start.iterdir() if name.is_file()}
    main(["finetune", str(start), "--output", str(path), *TUNE])
    assert before == {name.name: name.read_bytes() for name in start.iterdir() if name.is_file()}
    result = result_of(path)
    assert set(result["curve"]) == {"0", "10", "20"}
    first = [line.partition(",")[2] for line in episodes(path, 0)]
    assert first == [line.partition(",")[2] for line in episodes(start, 20)]  # every digit of every episode
    assert first != [line.partition(",")[2] for line in episodes(path, 20)]
    config = json.loads((path / "config.json").read_text())
    assert config["start"] == {"run": str(start), "seed_index": 0, "step": 20}
    assert load_agent(path).act(torch.zeros(2, 3)).shape == (2, 1)
    main(["finetune", str(start), "--output", str(path), *TUNE, "--resume"])
    assert result_of(path) == result
    main(["finetune", str(path), "--output", str(tmp_path / "again"), *TUNE])  # and on from there
    again = [line.partition(",")[2] for line in episodes(tmp_path / "again", 0)]
    assert again == [line.partition(",")[2] for line in episodes(path, 20)]


def test_one_seed_of_several_goes_on(tmp_path: Path) -> None:
    start, path = tmp_path / "start", tmp_path / "tuned"
    main(["train", "td3-bc", *TRAIN, "--seeds-at-once", "2", "--output", str(start)])
    main(["finetune", str(start), "--member", "1", "--output", str(path), *TUNE, "--alpha", "5.0"])
    returns = [float(line.split(",")[2]) for line in episodes(path, 0)]
    assert returns == result_of(start)["seeds"]["1"]["returns"]
    assert json.loads((path / "config.json").read_text())["algorithm_options"]["alpha"] == 5.0


def test_an_algorithm_that_explores_does_so_itself() -> None:
    agent = SAC(SPEC, SACConfig(hidden=(8,)))
    assert explorer_of(agent, 0.1) is agent
    noisy = explorer_of(TD3BC(SPEC, TD3BCConfig(hidden=(8,))), 0.3)
    assert isinstance(noisy, GaussianNoise)
    assert noisy.sigma == 0.3


def test_the_command_tells_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["finetune", "--help"])
    assert "offline-vi finetune RUN" in capsys.readouterr().out
    start = tmp_path / "start"
    main(["train", "td3-bc", *TRAIN, "--output", str(start)])
    model = tmp_path / "model"
    main(["fit-behavior", "gaussian", "--dataset", PENDULUM, "--steps", "5", "--output", str(model), "-q"])

    def refused(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stopped:
            main(["finetune", *arguments])
        return int(stopped.value.code or 0), capsys.readouterr().err

    code, error = refused()
    assert (code, "no run is given" in error, "hint: " in error) == (UsageError.exit_code, True, True)
    code, told = refused(str(model))
    assert (code, "holds no policy" in told) == (ConfigError.exit_code, True)
    code, told = refused(str(tmp_path / "nowhere"))
    assert (code, "is not there" in told) == (66, True)
    other = write_other_shapes(tmp_path / "other.hdf5")
    code, told = refused(str(start), "--dataset", other, "--env", "Pendulum-v1", "-q")
    assert (code, "other shapes" in told) == (SpaceMismatchError.exit_code, True)


def write_other_shapes(path: Path) -> str:
    import h5py

    with h5py.File(path, "w") as file:
        file["observations"] = np.zeros((20, 5), np.float32)
        file["actions"] = np.zeros((20, 1), np.float32)
        file["rewards"] = np.zeros(20, np.float32)
        file["terminals"] = np.zeros(20, bool)
        file["timeouts"] = np.arange(20) == 19
    return str(path)
