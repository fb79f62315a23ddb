"""Planning from pixels: what the policy remembers, that it beats the data, and that its plans stay where they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import offline_vi
from offline_vi.algorithms.latent_planning import LatentPlanning, LatentPlanningConfig
from offline_vi.data.frames import Frames, SequenceSampler
from offline_vi.datasets import load_images, pixels
from offline_vi.datasets.images import Episode, save_episode
from offline_vi.evaluation.evaluate import evaluate
from offline_vi.rl.policies import StatefulPolicy
from offline_vi.scripts import main
from offline_vi.training.loop import fit
from offline_vi.types import Batch, Spec
from offline_vi.world_model.dynamics import averaged

SPEC = Spec((1, 8, 8), 2, "uint8")
LITTLE = LatentPlanningConfig(
    latent_dim=3, hidden=(16,), features=16, channels=(4,), ensemble=2, belief=8, horizon=3, num_samples=10, elite=3,
    iterations=2, length=4, batch_size=5,
)  # fmt: skip
VARIANTS = [
    LITTLE,
    replace(LITTLE, stack=2, proposal="gaussian", penalty=0.1),
    replace(LITTLE, posterior="filter", dynamics="recurrent"),
]


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OFFLINE_VI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    yield


def random_frames(lengths: list[int]) -> Frames:
    rng = np.random.default_rng(0)
    rows, count = sum(lengths), len(lengths)
    return Frames(
        rng.integers(256, size=(rows + count, 1, 8, 8), dtype=np.uint8),
        rng.uniform(-1, 1, (rows, 2)).astype(np.float32),
        rng.normal(-3.0, 2.0, rows).astype(np.float32),
        np.zeros(rows, np.bool_),
        np.array(lengths),
        SPEC,
    )


# ------------------------------------------------------------------ the contract


@pytest.mark.parametrize("config", VARIANTS)
def test_updates_and_acts_and_a_snapshot_is_all(config: LatentPlanningConfig) -> None:
    first, second = LatentPlanning(SPEC, config), LatentPlanning(SPEC, config)
    source = first.source(random_frames([6, 3, 9]), 0, "cpu")  # one episode shorter than a sequence
    before = first.snapshot()
    for _ in range(3):
        metrics = first.update(source.sample())
    assert all(value.shape == () and value.isfinite() and not value.requires_grad for value in metrics.values())
    after = first.snapshot()
    for name, parameter in first.named_parameters():
        if parameter.requires_grad:
            assert not torch.equal(before[name], after[name]), name
    second.restore(after)
    batch = source.sample()
    for agent in (first, second):
        torch.manual_seed(1)
        agent.update(batch)
        action = agent.act(torch.randint(256, (7, 1, 8, 8), dtype=torch.uint8))
        assert action.shape == (7, 2) and action.abs().max() <= 1.0
    ours, theirs = first.snapshot(), second.snapshot()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_losses_reach_nothing_but_their_own_networks() -> None:
    """The behaviour model and the value are fitted to states that the bound alone shapes."""
    torch.manual_seed(0)
    one = LatentPlanning(SPEC, LITTLE)
    other = LatentPlanning(SPEC, LITTLE)
    other.restore(one.snapshot())
    other.value_opt.param_groups[0]["lr"] = other.behavior_opt.param_groups[0]["lr"] = 0.0
    batch = one.source(random_frames([9, 9]), 0, "cpu").sample()
    other.source(random_frames([9, 9]), 0, "cpu")
    for agent in (one, other):
        torch.manual_seed(2)
        agent.update(batch)
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name
    assert not torch.equal(one.value.layers[0].weight, other.value.layers[0].weight)  # type: ignore[arg-type]


def test_the_value_s_target_by_hand() -> None:
    agent = LatentPlanning(SPEC, LITTLE)
    data = random_frames([9, 9])
    agent.source(data, 0, "cpu")
    assert agent.bounds.tolist() == pytest.approx([100.0 * data.reward.min(), 100.0 * max(data.reward.max(), 0.0)])
    state = torch.randn(4, 3)
    batch = Batch(state, torch.zeros(4, 2), torch.tensor([1.0, 2.0, 3.0, 4.0]), state + 1.0, torch.tensor([0.0, 1, 0, 0]), torch.arange(4))  # fmt: skip  # noqa: E501
    raw: Tensor = agent.value_target(state + 1.0).squeeze(-1)
    low = (raw * agent.units.std + agent.units.mean / 0.01).amin(0)
    agent.bounds[1] = float(low.sort().values[2] + low.sort().values[3]) / 2.0  # the largest one is too large
    low = low.clamp(max=agent.bounds[1])
    expected = batch.reward + 0.99 * torch.tensor([1.0, 0.0, 1.0, 1.0]) * low
    torch.testing.assert_close(agent.target(batch), expected)


# ------------------------------------------------------------------ memory


def test_the_policy_stacks_the_frames_that_it_saw_and_forgets_the_rows_that_begin() -> None:
    agent = LatentPlanning(SPEC, replace(LITTLE, stack=3, proposal="gaussian"))
    assert isinstance(agent, StatefulPolicy)
    agent.reset(torch.ones(2, dtype=torch.bool))

    def frame(*values: int) -> Tensor:
        return torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)

    def remembered() -> list[list[int]]:
        assert agent.memory is not None
        frames: list[list[int]] = agent.memory.frames[:, :, 0, 0].tolist()
        return frames

    agent.act(frame(1, 11))
    assert remembered() == [[1, 1, 1], [11, 11, 11]]
    agent.act(frame(2, 12))
    assert remembered() == [[1, 1, 2], [11, 11, 12]]
    agent.reset(torch.tensor([False, True]))
    agent.act(frame(3, 13))
    assert remembered() == [[1, 2, 3], [13, 13, 13]]


def test_an_episode_that_begins_is_planned_as_if_there_had_been_no_other() -> None:
    """The row that was reset acts as in a policy without a past; the other one begins at its shifted plan."""
    torch.manual_seed(0)
    agent = LatentPlanning(SPEC, replace(LITTLE, posterior="filter", dynamics="recurrent"))
    fresh = LatentPlanning(SPEC, agent.config)
    fresh.restore(agent.snapshot())
    first, second = torch.randint(256, (2, 2, 1, 8, 8), dtype=torch.uint8)
    agent.act(first)
    agent.reset(torch.tensor([False, True]))
    torch.manual_seed(3)
    later = agent.act(second)
    torch.manual_seed(3)
    new = fresh.act(second)
    torch.testing.assert_close(later[1], new[1])
    assert not torch.allclose(later[0], new[0])


# ------------------------------------------------------------------ the command


def test_the_command_from_a_folder_to_a_score_and_pictures(tmp_path: Path) -> None:
    """V-D4RL's layout in, a run that can be loaded and evaluated out."""
    rows = pixels.walk(4, 12, 1.0, seed=0)
    folder = tmp_path / "episodes"
    folder.mkdir()
    for number in range(4):
        frames = pixels.draw_points(rows["obs"][:, number])
        reward = rows["reward"][:, number].astype(np.float32)
        episode = Episode(frames, rows["action"][:, number], reward, np.zeros(12, np.bool_))
        save_episode(folder / f"{number}.npz", episode)
    run = tmp_path / "run"
    little = "--hidden 8 --features 8 --channels 4 --ensemble 1 --horizon 2 --num-samples 4 --elite 2 --iterations 1"
    flags = f"{little} --steps 4 --eval-episodes 1 --batch-size 4 --length 4 --env offline-vi/PixelPointMass-v0 -q"
    main(["train-pixels", "--dataset", str(folder), *flags.split(), "--output", str(run)])
    result = json.loads((run / "result.json").read_text())
    assert result["return_mean"] < 0.0 and result["behavior_return"] == pytest.approx(
        float(rows["reward"].sum(0).mean())
    )
    for name in ("reconstructions", "open_loop", "traversals", "learning_curve"):
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    policy: Any = offline_vi.load(run)
    assert isinstance(policy, LatentPlanning) and policy.config.hidden == (8,)
    before = policy.units.mean.item()
    assert before == pytest.approx(float(rows["reward"][:, :3].mean()), rel=0.2)  # the units are in the checkpoint
    with pytest.raises(SystemExit) as exit_info:
        main(["train-pixels", "--dataset", str(tmp_path / "nowhere")])
    assert exit_info.value.code == 66


# ------------------------------------------------------------------ D5, D6, D7: minutes


def fitted(name: str, steps: int, config: LatentPlanningConfig) -> tuple[LatentPlanning, Frames]:
    data = load_images(name)
    torch.manual_seed(0)
    agent = LatentPlanning(data.spec, config)
    fit(agent, agent.source(data, 0, "cpu"), steps, progress=False)
    return agent, data


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_planning_on_the_point_mass_nearly_reaches_the_optimum() -> None:
    """D5: a normalised score of 0.8 on 32 starts; 10 steps ahead, rewards within half the error of standing still."""
    agent, data = fitted(pixels.POINT_MASS, 1_500, LatentPlanningConfig())
    assert data.task is not None
    batch = SequenceSampler(data, 512, 10, seed=1).sample()
    state = agent.model.observe_first(batch.obs[0])
    imagined = agent.model.imagine(state, batch.action.unsqueeze(1), averaged).reward[:, 0]
    still = agent.model.outcome(state)[0].loc.squeeze(-1)
    error, without = ((guess - batch.reward[-1]).abs().mean().item() for guess in (imagined[-1], still))
    assert error < 0.5 * without
    assert evaluate(agent, data.task, 32).mean >= 80.0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_proposals_of_the_behaviour_model_keep_plans_in_the_support() -> None:
    """D6: data with |a| <= 0.3 only; first actions beyond 0.35."""
    agent, _ = fitted(pixels.NARROW, 1_500, LatentPlanningConfig())
    obs = torch.from_numpy(pixels.draw_points(np.random.default_rng(0).uniform(-1.0, 1.0, (200, 2))))

    def beyond(proposal: str) -> float:
        agent.proposal, agent.memory = agent.proposals()[proposal], None
        return float((agent.act(obs).abs().amax(-1) > 0.35).float().mean())

    assert beyond("behavior") <= 0.05
    assert beyond("gaussian") >= 0.5


PENDULUM = LatentPlanningConfig(
    stack=2,
    latent_dim=12,
    length=6,
    beta=100.0,
    penalty=10.0,
    discount=0.97,
    expectile=0.8,
    tau=0.05,
    horizon=15,
    num_samples=64,
    elite=8,
    iterations=3,
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_planning_on_the_pendulum_beats_the_data_by_more_than_their_spread() -> None:
    """D7: above the behaviour's mean return by more than a standard deviation of its episodes."""
    agent, data = fitted(pixels.PENDULUM, 2_500, PENDULUM)
    assert data.task is not None
    returns = data.episode_returns()
    assert evaluate(agent, data.task, 10).mean_return > returns.mean() + returns.std()
