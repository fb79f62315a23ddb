"""What the speed of BCQ is measured against takes the reference's steps."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle_bcq import ReferenceBCQ
from test_bcq import NormalDraws, all_layers, linear_layers

from offline_vi.scripts.compare_speed import told


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/plain_bcq.py with networks of float64."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parents[2] / "benchmarks")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield importlib.import_module("plain_bcq")
    torch.set_default_dtype(before)


def restated(bcq: Any) -> ReferenceBCQ:
    vae = bcq.vae
    mean, log_std = linear_layers(vae.mean)[0], linear_layers(vae.log_std)[0]
    heads = [(np.concatenate([mean[0], log_std[0]], 1), np.concatenate([mean[1], log_std[1]]))]
    return ReferenceBCQ(
        encoder=linear_layers(vae.encoder) + heads,
        decoder=linear_layers(vae.decoder),
        actor=linear_layers(bcq.actor),
        actor_target=linear_layers(bcq.actor_target),
        critics=[linear_layers(bcq.critic.first), linear_layers(bcq.critic.second)],
        critic_targets=[linear_layers(bcq.critic_target.first), linear_layers(bcq.critic_target.second)],
    )


def test_three_steps_of_the_pytorch_restatement_equal_those_of_the_numpy_one(plain: Any) -> None:
    rng, rows = np.random.default_rng(0), 300
    columns = {
        "observations": rng.normal(size=(rows, 11)),
        "actions": rng.uniform(-1, 1, (rows, 3)),
        "rewards": rng.normal(size=rows),
        "terminals": rng.random(rows) < 0.2,
    }
    bcq = plain.PlainBCQ(11, 3)
    reference = restated(bcq)
    for _ in range(3):
        index = np.random.default_rng(1).integers(rows - 1, size=bcq.batch)
        with NormalDraws() as noise:
            bcq.step(columns, np.random.default_rng(1))
        encoder, target, actor = noise.draws
        reference.train(
            {
                "state": columns["observations"][index],
                "action": columns["actions"][index],
                "reward": columns["rewards"][index],
                "next_state": columns["observations"][index + 1],
                "not_done": 1.0 - columns["terminals"][index],
            },
            # a state's candidates lie side by side there
            {"encoder": encoder, "target": target.reshape(bcq.batch, 10, -1).transpose(1, 0, 2), "actor": actor},
        )
    for expected, found in zip(all_layers(reference), all_layers(restated(bcq)), strict=True):
        # 1 - terminated is rounded to float32 there, which is exact
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_ratio_is_of_neighbours_in_time() -> None:
    record = {
        "milliseconds": {"a theirs": [10.0, 20.0, 30.0], "a ours": [5.0, 5.0, 10.0]},
        "ratios": {"a theirs": {}, "a ours": {"a theirs": [2.0, 4.0, 3.0]}},
    }
    theirs, ours = told(record).splitlines()[2:]
    assert theirs == "| a theirs | 20.00 |  |"
    assert ours == "| a ours | 5.00 | theirs 3.00 (2.00 to 4.00) |"
