"""The loop: same seed same bytes, interruption leaves no trace, NaN stops it, evaluation does not disturb it."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.behavior import CVAE, CVAEConfig, DecoderMeans
from offline_vi.data.samplers import Sampler
from offline_vi.data.transitions import Transitions
from offline_vi.errors import CheckpointCorruptError, Interrupted, NonFiniteLossError, UsageError
from offline_vi.nn.optim import gradient_step
from offline_vi.nn.state import snapshot
from offline_vi.rl.algorithm import Algorithm, Jointly
from offline_vi.runs.directory import RunDirectory
from offline_vi.training import progress
from offline_vi.training.behavior import fit_behavior
from offline_vi.training.loop import fit
from offline_vi.training.metrics import IntervalMean
from offline_vi.training.randomness import seeds
from offline_vi.types import Spec

SPEC = Spec((3,), 2)


def toy(rows: int = 300) -> Transitions:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows + 1, 3)).astype(np.float32)
    end = np.zeros(rows, bool)
    end[99::100] = True
    return Transitions(
        obs[:-1],
        rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rng.normal(size=rows).astype(np.float32),
        obs[1:],
        rng.random(rows) < 0.02,
        end,
        SPEC,
    )


def bcq() -> Algorithm:
    torch.manual_seed(7)
    model = CVAE(SPEC, CVAEConfig(hidden=(16,)))
    return Jointly(model, BCQ(SPEC, DecoderMeans(model), BCQConfig(hidden=(16,), batch_size=20)))


def digest(algorithm: Algorithm) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in algorithm.snapshot().items()}


def test_same_seed_same_bytes_and_another_seed_others() -> None:
    first, again, other = bcq(), bcq(), bcq()
    histories = [
        fit(a, toy(), 30, seed=s, log_every=10, progress=False) for a, s in ((first, 3), (again, 3), (other, 4))
    ]
    assert digest(first) == digest(again)
    assert histories[0].rows == histories[1].rows
    assert digest(first) != digest(other)


def test_the_callers_random_state_is_left_alone_and_does_not_matter() -> None:
    first, second = bcq(), bcq()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    fit(first, toy(), 5, progress=False)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    fit(second, toy(), 5, progress=False)
    assert digest(first) == digest(second)


def test_evaluating_does_not_disturb_training() -> None:
    def look(step: int, policy: Algorithm) -> dict[str, float]:
        policy.act(torch.zeros(1, 3))
        return {}

    plain, watched = bcq(), bcq()
    fit(plain, toy(), 12, progress=False)
    with torch.random.fork_rng():
        fit(watched, toy(), 12, eval_every=12, on_eval=look, progress=False)
    assert digest(plain) == digest(watched)


@pytest.mark.parametrize("stop_at", [1, 7, 10, 23])
def test_a_run_interrupted_anywhere_ends_with_the_same_bytes(tmp_path: Path, stop_at: int) -> None:
    whole, broken = bcq(), bcq()
    with RunDirectory.create(tmp_path / "whole") as run:
        fit(whole, toy(), 30, log_every=10, save_every=8, run=run, progress=False)

    class Raising:
        """Signals on the way, as an operator or a scheduler would."""

        def __init__(self, source: Any) -> None:
            self.source, self.count = source, 0

        def sample(self) -> Any:
            self.count += 1
            if self.count == stop_at:
                signal.raise_signal(signal.SIGTERM)
            return self.source.sample()

        def state(self) -> dict[str, Any]:
            state: dict[str, Any] = self.source.state()
            return state

        def load_state(self, state: dict[str, Any]) -> None:
            self.source.load_state(state)

    source = Sampler(toy(), 20, seeds(0)["batches"])
    with (
        RunDirectory.create(tmp_path / "broken") as run,
        pytest.raises(Interrupted, match=f"step {stop_at}") as stopped,
    ):
        fit(broken, Raising(source), 30, log_every=10, save_every=8, run=run, progress=False)
    assert stopped.value.exit_code == 143
    resumed = bcq()
    with torch.no_grad():
        for parameter in resumed.parameters():
            parameter.zero_()
    with RunDirectory.resume(tmp_path / "broken") as run:
        fit(resumed, toy(), 30, log_every=10, save_every=8, run=run, resume=True, progress=False)
    assert digest(resumed) == digest(whole)
    assert snapshot(resumed).values == snapshot(whole).values  # counters and settings of the optimizers
    metrics = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("whole", "broken")]
    assert metrics[0] == metrics[1]


def diverging() -> BC:
    """Finite for one step, then not."""
    return BC(SPEC, BCConfig(lr=float("inf"), hidden=(8,), batch_size=20))


def test_a_loss_that_is_not_finite_stops_within_a_hundred_steps() -> None:
    with pytest.raises(NonFiniteLossError, match="at step 100: actor/loss"):
        fit(diverging(), toy(), 500, log_every=1000, progress=False)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path / "run") as run:
        with pytest.raises(NonFiniteLossError, match=r"actor.net.0.weight is not finite at step 1"):
            fit(diverging(), toy(), 500, save_every=1, run=run, progress=False)
        assert not run.has_checkpoint()


def test_a_metric_that_only_some_steps_have_is_averaged_over_those() -> None:
    interval = IntervalMean()
    for step in range(4):
        metrics = {"critic/loss": torch.tensor(float(step))}
        interval.add(metrics | {"actor/loss": torch.tensor(10.0 * step)} if step % 2 else metrics)
    twin = IntervalMean()
    twin.load_state(json.loads(json.dumps(interval.state())))
    assert twin.read() == interval.read() == {"critic/loss": 1.5, "actor/loss": 20.0}
    assert interval.read() == {}


def test_metrics_of_seeds_numbers_and_integers_are_averaged_side_by_side() -> None:
    interval: Any = IntervalMean()  # it takes Python's numbers too
    interval.add({"loss": torch.tensor([1.0, 3.0]), "rate": 0.5, "count": 2**24 + 1})
    twin: Any = IntervalMean()
    twin.load_state(json.loads(json.dumps(interval.state())))
    for mean in (interval, twin):
        mean.add({"rate": torch.tensor(1.5), "loss": torch.tensor([5.0, float("nan")]), "count": 2**24 + 3})
        assert mean.finite()  # one seed is
        row = mean.read()
        assert (row["loss.0"], row["rate"], row["count"]) == (3.0, 1.0, 2**24 + 2)
        assert np.isnan(row["loss.1"])
    interval.add({"loss": torch.tensor([1.0, 1.0]), "rate": float("nan")})
    assert not interval.finite()


def test_a_gradient_step_trains_its_own_parameters_only() -> None:
    mine, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 2)
    gradient_step(torch.optim.SGD(mine.parameters(), lr=0.1), mine(other(torch.ones(3, 2))).square().mean())
    assert all(parameter.grad is None for parameter in other.parameters())
    assert all(parameter.grad is not None for parameter in mine.parameters())


def test_restoring_copies_and_names_what_does_not_fit() -> None:
    algorithm = bcq()
    fit(algorithm, toy(), 3, progress=False)
    tensors = algorithm.snapshot()
    twin = bcq()
    twin.restore(tensors)
    assert digest(twin) == {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}
    fit(twin, toy(), 3, progress=False)
    assert digest(algorithm) == {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}  # not aliased
    with pytest.raises(CheckpointCorruptError, match=r"algorithm\.actor\.net\.0\.weight is missing"):
        twin.restore({name: t for name, t in tensors.items() if name != "algorithm.actor.net.0.weight"})
    with pytest.raises(CheckpointCorruptError, match="holds stranger"):
        twin.restore({**tensors, "stranger": torch.zeros(1)})


def test_fit_behavior_raises_the_bound() -> None:
    data = toy()
    model = CVAE(SPEC, CVAEConfig(hidden=(32,)))
    history = fit_behavior(model, data, 200, batch_size=64, log_every=20, progress=False)
    elbo = history.column("behavior/elbo")
    assert elbo[-1] > elbo[0] + 0.2


def test_an_option_that_there_is_not_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="eval_every"):
        fit(BC(SPEC, BCConfig(hidden=(8,))), toy(), 1, evel_every=5)  # type: ignore[call-arg]


def test_off_a_terminal_the_speed_is_known_within_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slow algorithm reaches its first log interval after minutes: until then one line says how long it will take."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    bar = progress.Progress(0, 50_000, True, None, "bcq")
    for seconds in (5.0, 4.0, 4.0, 30.0):
        now[0] += seconds
        bar.advance(10)
    (line,) = capsys.readouterr().err.splitlines()
    assert "bcq: step" in line and "30/50,000" in line and f"{30 / 13:.1f} steps/s" in line and " left" in line
    quiet = progress.Progress(0, 50_000, False, None)
    now[0] += 60.0
    quiet.advance(10)
    assert capsys.readouterr().err == ""
