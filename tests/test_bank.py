"""Candidates drawn ahead: what a table holds, when it changes, and that a resumed run finds the same."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.algorithms.bear import BEAR, BEARConfig
from offline_vi.algorithms.emaq import EMaQ, EMaQConfig
from offline_vi.bank import CandidateBank, Fresh
from offline_vi.behavior import BehaviorModel, GaussianBehavior, GaussianBehaviorConfig
from offline_vi.checkpoint import RunDirectory
from offline_vi.data import Sampler, Transitions
from offline_vi.errors import ConfigError
from offline_vi.training import fit
from offline_vi.types import Batch, Metrics, Spec

SPEC = Spec((3,), 2)
ROWS = 230


def transitions(rows: int = ROWS) -> Transitions:
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(rows, 3)).astype(np.float32)
    return Transitions(
        obs=obs,
        action=rng.uniform(-1, 1, size=(rows, 2)).astype(np.float32),
        reward=rng.normal(size=rows).astype(np.float32),
        next_obs=(obs + 0.1).astype(np.float32),
        terminated=np.zeros(rows, np.bool_),
        episode_end=np.arange(rows) % 10 == 9,
        spec=SPEC,
    )


def frozen() -> GaussianBehavior:
    return GaussianBehavior(SPEC, GaussianBehaviorConfig(hidden=(8,))).eval().requires_grad_(False)


class Echo(BehaviorModel):
    """Actions that tell whose state they were drawn for, and when: (first feature, a counter of calls), scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SPEC
        self.calls = 0

    def loss(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Metrics]:
        raise NotImplementedError

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        self.calls += 1
        action = torch.stack([obs[:, 0] / 8.0, torch.full((len(obs),), self.calls / 1024.0)], -1)
        return action.expand(num_samples, -1, -1)


def whole(data: Transitions) -> Batch:
    obs, action, reward, next_obs = (torch.from_numpy(x) for x in (data.obs, data.action, data.reward, data.next_obs))
    return Batch(obs, action, reward, next_obs, torch.zeros(len(data)), torch.arange(len(data)))


def test_a_row_reads_candidates_of_its_own_state() -> None:
    data = transitions()
    bank = CandidateBank(Echo(), data)
    batch = Sampler(data, 64, 1).sample()
    now, later = bank.at_obs(batch, 1), bank.at_next_obs(batch, 5)
    assert (now.shape, later.shape) == ((1, 64, 2), (5, 64, 2))
    torch.testing.assert_close(now[0, :, 0], batch.obs[:, 0] / 8.0, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(later[3, :, 0], batch.next_obs[:, 0] / 8.0, rtol=1e-3, atol=1e-4)


def test_every_row_is_drawn_anew_once_in_a_period() -> None:
    data, period = transitions(), 400
    bank = CandidateBank(Echo(), data, period=period)
    batch = whole(data)
    first = bank.at_next_obs(batch, 2)
    seen = [first]
    for step in range(1, period + 1):
        bank.advance(step)
        seen.append(bank.at_next_obs(batch, 2))
    changed = torch.stack([(a != b).any(-1).any(0) for a, b in pairwise(seen)])  # (period, rows)
    assert changed.sum(0).tolist() == [1] * ROWS
    assert set((changed.any(1).nonzero().squeeze(-1) + 1).tolist()) == set(range(50, period + 1, 50))


def test_contents_are_a_function_of_seed_and_step() -> None:
    data, batch = transitions(), whole(transitions())
    model = frozen()
    walked, jumped = (CandidateBank(model, data, period=300, seed=3) for _ in range(2))
    walked.at_next_obs(batch, 4)
    for step in range(1, 731):
        walked.advance(step)
    jumped.advance(730)  # as after a resume
    expected = walked.at_next_obs(batch, 4)
    assert torch.equal(jumped.at_next_obs(batch, 4), expected)
    late = CandidateBank(model, data, period=300, seed=3)
    late.at_next_obs(batch, 4)
    late.advance(730)  # as after a resume where the table was made before
    assert torch.equal(late.at_next_obs(batch, 4), expected)
    other = CandidateBank(model, data, period=300, seed=4)
    other.advance(730)
    assert not torch.equal(other.at_next_obs(batch, 4), expected)


def test_candidates_have_the_law_of_the_model() -> None:
    data = transitions(4)
    bank, model = CandidateBank(frozen(), data), frozen()
    model.load_state_dict(bank.behavior.state_dict())
    batch = whole(data)
    drawn = bank.at_obs(batch, 4000)
    fresh = Fresh(model).at_obs(batch, 4000)
    error = (drawn.var(0) / 4000 + fresh.var(0) / 4000).sqrt()
    assert ((drawn.mean(0) - fresh.mean(0)).abs() < 4 * error + 1e-3).all()
    assert drawn.abs().max() <= 1.0
    assert not torch.equal(bank.at_obs(batch, 7), bank.at_next_obs(batch, 7))


def test_drawing_leaves_the_random_state_alone() -> None:
    data = transitions()
    bank = CandidateBank(frozen(), data, period=50)
    before = torch.get_rng_state()
    bank.at_obs(whole(data), 2)
    for step in range(1, 101):
        bank.advance(step)
    assert torch.equal(torch.get_rng_state(), before)


def test_beyond_the_budget_the_table_is_a_file() -> None:
    data, batch = transitions(), whole(transitions())
    model = frozen()
    small, large = CandidateBank(model, data, memory_budget=0), CandidateBank(model, data)
    assert torch.equal(small.at_obs(batch, 3), large.at_obs(batch, 3))
    (file,) = Path(small._files.name).iterdir()
    assert file.stat().st_size == ROWS * 3 * 2 * 2
    assert not list(Path(large._files.name).iterdir())


def test_a_model_that_is_still_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="still being trained"):
        CandidateBank(GaussianBehavior(SPEC), transitions())


BANKED: dict[str, Any] = {
    "bcq": lambda bank: BCQ(SPEC, bank.behavior, BCQConfig(hidden=(8,), batch_size=8), bank),
    "emaq": lambda bank: EMaQ(SPEC, bank.behavior, EMaQConfig(hidden=(8,), batch_size=8), bank),
    "bear": lambda bank: BEAR(SPEC, bank.behavior, BEARConfig(hidden=(8,), batch_size=8, warmup=10), bank),
}


@pytest.mark.parametrize("name", BANKED)
def test_an_interrupted_run_on_a_bank_ends_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    data, model = transitions(), frozen()

    def train(folder: str, stop_at: int | None) -> dict[str, Tensor]:
        def build() -> Any:
            torch.manual_seed(0)
            return BANKED[name](CandidateBank(model, data, period=100))

        def on_eval(step: int, _: object) -> dict[str, float]:
            if step == stop_at and not resumed:
                raise KeyboardInterrupt
            return {}

        resumed = False
        options: Any = {"eval_every": 30, "save_every": 40, "progress": False, "on_eval": on_eval}
        with RunDirectory.create(tmp_path / folder) as run, suppress(KeyboardInterrupt):
            fit(build(), data, 160, run=run, **options)
        if stop_at is None:
            return RunDirectory.resume(tmp_path / folder).latest().model
        resumed = True
        with RunDirectory.resume(tmp_path / folder) as run:
            fit(build(), data, 160, run=run, resume=True, **options)
            return run.latest().model

    straight, cut = train("straight", None), train("cut", 90)
    assert straight.keys() == cut.keys()
    assert all(torch.equal(straight[key], cut[key]) for key in straight)
