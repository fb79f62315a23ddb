"""Runs of the first format, whose wrappers normalized observations and rescaled rewards, act as they did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agents import built, small_choice, small_model

from offline_vi import registry
from offline_vi.nn.description import rebuild
from offline_vi.nn.stack import unstack_
from offline_vi.rl.algorithm import Algorithm, normalizer_of
from offline_vi.runs.checkpoint import load_checkpoint
from offline_vi.runs.directory import RunDirectory
from offline_vi.study.agents import AgentChoice
from offline_vi.study.format_1 import RENAMED, description, renamed
from offline_vi.study.kept import load
from offline_vi.types import Spec

SPEC = Spec((4,), 2)
RUN = Path(__file__).parents[1] / "data" / "run-format-1"
MEAN, STD = torch.tensor([0.0, 5.0, -5.0, 100.0]), torch.tensor([1.0, 10.0, 0.1, 3.0])
OLD_KINDS = {"": "", "samples": "samples", "decoder-means": "decoded", "most-likely": "likely"}


@dataclass(frozen=True)
class Old:
    """A run as the first format described it."""

    choice: AgentChoice
    normalize: bool = False
    reward_scale: float = 0.0
    stack: int = 0

    @property
    def spec(self) -> Spec:
        return SPEC.stacked(self.stack) if self.stack else SPEC

    def recipe(self) -> dict[str, Any]:
        """The section "recipe" of its config.json."""
        choice = self.choice
        record = {
            "algorithm": choice.algorithm,
            "spec": asdict(self.spec),
            "config": asdict(choice.config),
            "behavior": choice.behavior,
            "behavior_config": asdict(choice.behavior_config) if choice.behavior else None,
            "jointly": choice.jointly,
            "noise_clip": choice.noise_clip,
            "proposals": OLD_KINDS[choice.proposals],
            "keep": choice.keep,
            "normalize": self.normalize,
            "reward_scale": self.reward_scale,
            "bonus": "",
            "bonus_config": None,
        }
        found: dict[str, Any] = json.loads(json.dumps(record))
        return found


def choice(name: str, *, jointly: bool = False) -> AgentChoice:
    return small_choice(name, SPEC, jointly=jointly, hidden=(16, 16), batch_size=24)


def test_the_kept_run_has_the_names_of_today() -> None:
    record = json.loads((RUN / "config.json").read_text())
    found = renamed(load_checkpoint(RUN).model, record)
    agent: Algorithm = rebuild(description(record["recipe"]))
    own = {name for name in agent.snapshot() if "_opt." not in name}
    assert set(found) == own
    assert torch.equal(found["algorithm.inputs.std"], torch.ones(3))


def first_names(old: Old, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors under the names that they had, within the wrappers that there were."""
    table = {new: before for before, new in RENAMED[old.choice.algorithm].items()}
    outer = "algorithm." * old.choice.jointly
    inner = "algorithm." * (old.choice.jointly + old.normalize + bool(old.reward_scale))
    found = {}
    for name, tensor in tensors.items():
        own = name.removeprefix(outer)
        if own in ("inputs.mean", "inputs.std") and old.choice.algorithm not in ("sac", "kl-sac"):
            continue
        new = next((new for new in table if own.startswith(new)), "")
        found[inner + table.get(new, "") + own.removeprefix(new)] = tensor
    return found | ({"normalizer.mean": MEAN, "normalizer.std": STD} if old.normalize else {})


CASES = [
    (name, normalize, jointly)
    for name in registry.trainable()
    if name in RENAMED  # the others came later
    for normalize in (False, True)
    for jointly in (False, True)
]


@pytest.mark.parametrize(("name", "normalize", "jointly"), CASES)
@pytest.mark.parametrize("seeds", [0, 2])
def test_an_old_snapshot_acts_as_it_did(name: str, normalize: bool, jointly: bool, seeds: int, tmp_path: Path) -> None:
    """The old policy acted on standardized observations as today's does, unfitted, on the same; its behavior model
    saw them too."""
    old = Old(choice(name, jointly=jointly), normalize, reward_scale=2.0, stack=seeds)
    torch.manual_seed(0)
    shared = None
    if old.choice.behavior and not jointly:
        shared = small_model(old.choice.behavior, SPEC, (16, 16))
    agent = built(old.choice, old.spec, shared)
    with torch.no_grad():  # a behavior model that was fitted has statistics of its own
        for key, buffer in agent.named_buffers():
            if key.endswith("inputs.mean") and ("proposals" in key or "behavior" in key):
                buffer += 0.3
            elif key.endswith("inputs.std") and ("proposals" in key or "behavior" in key):
                buffer *= 1.5
    tensors = agent.snapshot()
    with RunDirectory.create(tmp_path / "run") as run:
        run.write_json("config.json", {"recipe": old.recipe()})
        run.save(1, first_names(old, tensors), {}, {})
    one = built(old.choice, SPEC)
    for index in range(seeds or 1):
        loaded: Any = load(tmp_path / "run", index)
        if seeds:
            unstack_(one, agent, index)
        else:
            one.restore(tensors)
        seen = torch.randn(6, 4)
        obs = MEAN + STD * seen if normalize else seen
        torch.manual_seed(1)
        action = loaded.act(obs)
        torch.manual_seed(1)
        torch.testing.assert_close(action, one.eval().act(seen), rtol=1e-3, atol=1e-3)
        expected = STD if normalize else torch.ones(4)
        np.testing.assert_allclose(normalizer_of(loaded).std, expected)


def test_a_conditional_prior_on_raw_observations_takes_the_units_over_too() -> None:
    made = choice("emaq")
    made = replace(made, behavior_config=replace(made.behavior_config, hidden=(8,), inputs="raw", kl_warmup=0))
    old = Old(made, normalize=True)
    agent: Any = built(made, SPEC)
    tensors = renamed(first_names(old, agent.snapshot()), {"recipe": old.recipe()})
    twin: Any = built(made, SPEC)
    twin.restore(tensors)
    seen, action = torch.randn(6, 4), torch.rand(6, 2) - 0.5
    densities = []
    for model, obs in ((agent.proposals, seen), (twin.proposals, MEAN + STD * seen)):
        torch.manual_seed(0)
        densities.append(model.log_prob(obs, action, 16))
    torch.testing.assert_close(densities[0], densities[1], rtol=1e-3, atol=1e-3)


def test_todays_names_stay() -> None:
    tensors = built(choice("bcq"), SPEC).snapshot()
    assert renamed(tensors, {"agent": {"class": "bcq"}}).keys() == tensors.keys()
