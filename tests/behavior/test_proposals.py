"""Candidates drawn ahead: what a table holds, when it changes, and that a resumed run finds the same."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
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
from offline_vi.behavior import DecoderMeans, GaussianBehavior, GaussianBehaviorConfig, MostLikelySamples, Proposals
from offline_vi.behavior.mixture import MixtureBehavior
from offline_vi.behavior.proposals import CandidateCache
from offline_vi.data.samplers import Sampler
from offline_vi.data.transitions import Transitions
from offline_vi.distributions.squashed import TanhNormal
from offline_vi.errors import CapabilityError, ConfigError
from offline_vi.rl.policies import CandidatePolicy
from offline_vi.runs.directory import RunDirectory
from offline_vi.training.loop import fit
from offline_vi.types import Batch, Spec

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


class Echo(Proposals):
    """Actions that tell whose state they were drawn for, and when: (first feature, a counter of calls), scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = SPEC
        self.calls = 0

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        self.calls += 1
        action = torch.stack([obs[:, 0] / 8.0, torch.full((len(obs),), self.calls / 1024.0)], -1)
        return action.expand(num_samples, -1, -1)


def whole(data: Transitions) -> Batch:
    obs, action, reward, next_obs = (torch.from_numpy(x) for x in (data.obs, data.action, data.reward, data.next_obs))
    return Batch(obs, action, reward, next_obs, torch.zeros(len(data)), torch.arange(len(data)))


def test_a_row_reads_candidates_of_its_own_state() -> None:
    data = transitions()
    cache = CandidateCache(Echo(), data)
    batch = Sampler(data, 64, 1).sample()
    now, later = cache.at_obs(batch, 1), cache.at_next_obs(batch, 5)
    assert (now.shape, later.shape) == ((1, 64, 2), (5, 64, 2))
    torch.testing.assert_close(now[0, :, 0], batch.obs[:, 0] / 8.0, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(later[3, :, 0], batch.next_obs[:, 0] / 8.0, rtol=1e-3, atol=1e-4)


def test_every_row_is_drawn_anew_once_in_a_period() -> None:
    data, period = transitions(), 400
    cache = CandidateCache(Echo(), data, period=period)
    batch = whole(data)
    first = cache.at_next_obs(batch, 2)
    seen = [first]
    for step in range(1, period + 1):
        cache.advance(step)
        seen.append(cache.at_next_obs(batch, 2))
    changed = torch.stack([(a != b).any(-1).any(0) for a, b in pairwise(seen)])  # (period, rows)
    assert changed.sum(0).tolist() == [1] * ROWS
    assert set((changed.any(1).nonzero().squeeze(-1) + 1).tolist()) == set(range(50, period + 1, 50))


def test_contents_are_a_function_of_seed_and_step() -> None:
    data, batch = transitions(), whole(transitions())
    model = frozen()
    walked, jumped = (CandidateCache(model, data, period=300, seed=3) for _ in range(2))
    walked.at_next_obs(batch, 4)
    for step in range(1, 731):
        walked.advance(step)
    jumped.advance(730)  # as after a resume
    expected = walked.at_next_obs(batch, 4)
    assert torch.equal(jumped.at_next_obs(batch, 4), expected)
    late = CandidateCache(model, data, period=300, seed=3)
    late.at_next_obs(batch, 4)
    late.advance(730)  # as after a resume where the table was made before
    assert torch.equal(late.at_next_obs(batch, 4), expected)
    other = CandidateCache(model, data, period=300, seed=4)
    other.advance(730)
    assert not torch.equal(other.at_next_obs(batch, 4), expected)


def test_candidates_have_the_law_of_the_model() -> None:
    data = transitions(4)
    cache, model = CandidateCache(frozen(), data), frozen()
    model.load_state_dict(cache.proposals.state_dict())
    batch = whole(data)
    drawn = cache.at_obs(batch, 4000)
    fresh = model.at_obs(batch, 4000)
    error = (drawn.var(0) / 4000 + fresh.var(0) / 4000).sqrt()
    assert ((drawn.mean(0) - fresh.mean(0)).abs() < 4 * error + 1e-3).all()
    assert drawn.abs().max() <= 1.0
    assert not torch.equal(cache.at_obs(batch, 7), cache.at_next_obs(batch, 7))


def test_drawing_leaves_the_random_state_alone() -> None:
    data = transitions()
    cache = CandidateCache(frozen(), data, period=50)
    before = torch.get_rng_state()
    cache.at_obs(whole(data), 2)
    for step in range(1, 101):
        cache.advance(step)
    assert torch.equal(torch.get_rng_state(), before)


def test_beyond_the_budget_the_table_is_a_file_that_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data, batch = transitions(), whole(transitions())
    model = frozen()
    small, large = CandidateCache(model, data, memory_budget=0), CandidateCache(model, data)
    for step in range(0, 2 * CandidateCache.STRIDE + 1):
        small.advance(step)
        large.advance(step)
        assert torch.equal(small.at_obs(batch, 3), large.at_obs(batch, 3))
    mapped = Path("/proc/self/maps")
    if mapped.exists():
        assert mapped.read_text().count(f"{tmp_path}/") == 1  # one table, and only that of the small budget
    assert not list(tmp_path.iterdir())  # even if the process is killed now


def test_a_model_that_is_still_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match="still being trained"):
        CandidateCache(GaussianBehavior(SPEC), transitions())


RANKERS: dict[str, Any] = {
    "bcq": lambda given: BCQ(SPEC, given, BCQConfig(hidden=(8,), batch_size=8)),
    "emaq": lambda given: EMaQ(SPEC, given, EMaQConfig(hidden=(8,), batch_size=8)),
    "bear": lambda given: BEAR(SPEC, given, BEARConfig(hidden=(8,), batch_size=8, warmup=10)),
}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", RANKERS)
def test_an_interrupted_run_on_a_cache_ends_with_the_same_bytes(name: str, precision: str, tmp_path: Path) -> None:
    """Whatever the precision of targets: a table is first filled within one, and redrawn between steps."""
    data, model = transitions(), frozen()

    def train(folder: str, stop_at: int | None) -> dict[str, Tensor]:
        def build() -> Any:
            torch.manual_seed(0)
            return RANKERS[name](CandidateCache(model, data, period=100))

        def on_eval(step: int, _: object) -> dict[str, float]:
            if step == stop_at and not resumed:
                raise KeyboardInterrupt
            return {}

        resumed = False
        options: Any = {"eval_every": 30, "save_every": 40, "progress": False, "on_eval": on_eval}
        options["precision"] = precision
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


# ------------------------------------------------------------------ how one candidate is chosen


def chooser(num_candidates: int, temperature: float = 0.0) -> CandidatePolicy:
    return CandidatePolicy(frozen(), lambda s, a: 10.0 * a[..., 0], num_candidates, temperature)


def test_choice_goes_from_the_best_candidate_to_any() -> None:
    """Q = 10 a_0. T = 0 is the maximum; T in between is a softmax over the very candidates."""
    obs = torch.randn(1, 3).expand(20_000, 3)
    candidates = torch.tensor([[0.1, 0.0], [0.2, 0.0], [-0.3, 0.0]])

    class Three(Echo):
        def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
            return candidates[:num_samples].unsqueeze(1).expand(-1, len(obs), -1)

    for temperature in (0.0, 0.7, 2.0, float("inf")):
        policy = CandidatePolicy(Three(), lambda s, a: 10.0 * a[..., 0], 3, temperature)
        found = policy.act(obs)[:, 0]
        shares = torch.stack([(found == value).float().mean() for value in candidates[:, 0]])
        expected = torch.softmax(10.0 * candidates[:, 0].double() / max(temperature, 1e-9), 0).float()
        torch.testing.assert_close(shares, expected, atol=4 * 0.5 / 20_000**0.5, rtol=0)


def test_one_candidate_is_the_behaviour() -> None:
    obs, policy = torch.randn(50, 3), chooser(1, float("inf"))
    torch.manual_seed(3)
    chosen = policy.act(obs)
    torch.manual_seed(3)
    assert torch.equal(chosen, policy.proposals.sample(obs, 1)[0])


@pytest.mark.parametrize("name", ["bcq", "emaq"])
def test_a_policy_without_changes_is_acting(name: str) -> None:
    algorithm = RANKERS[name](CandidateCache(frozen(), transitions()))
    obs = torch.randn(7, 3)
    actions = []
    for policy in (algorithm, algorithm.policy(), replace(algorithm.policy(), num_candidates=100, temperature=0.0)):
        torch.manual_seed(0)
        actions.append(policy.act(obs))
    assert torch.equal(actions[0], actions[1])
    assert torch.equal(actions[0], actions[2])


def test_phi_and_clip_of_bcq_change_in_the_copy_only() -> None:
    model = frozen()
    algorithm = BCQ(SPEC, DecoderMeans(model, 0.5), BCQConfig(hidden=(8,)))
    obs, policy = torch.randn(40, 3), algorithm.policy()
    for parameter in algorithm.actor.parameters():
        torch.nn.init.constant_(parameter, 5.0)  # tanh = 1: every action moves by Phi
    one = replace(policy, num_candidates=1, proposals=DecoderMeans(model, 0.0))
    still = replace(one, phi=0.0).act(obs)
    torch.testing.assert_close(still, model.decode(obs, torch.zeros(40, 2)))
    moved = replace(one, phi=0.2).act(obs)
    assert (moved - still).abs().max() == pytest.approx(0.2, abs=1e-6)
    assert torch.equal(replace(one, phi=None).act(obs), still)
    assert (algorithm.policy().phi, policy.phi) == (0.05, 0.05)
    assert isinstance(algorithm.proposals, DecoderMeans) and algorithm.proposals.noise_clip == 0.5


def test_candidates_that_nothing_moves_are_kept_in_the_box() -> None:
    class Wide(Echo):
        def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
            return torch.tensor([-1.7, 0.3]).expand(num_samples, len(obs), -1)

    action = CandidatePolicy(Wide(), lambda s, a: a[..., 0], 3).act(torch.zeros(5, 3))
    torch.testing.assert_close(action, torch.tensor([-1.0, 0.3]).expand(5, -1))


# ------------------------------------------------------------------ what proposes


def test_a_class_of_ones_own_needs_to_sample_and_nothing_else() -> None:
    batch = whole(transitions())
    echo = Echo()
    torch.testing.assert_close(echo.at_obs(batch, 2)[1, :, 0], batch.obs[:, 0] / 8.0)
    torch.testing.assert_close(echo.at_next_obs(batch, 3)[2, :, 0], batch.next_obs[:, 0] / 8.0)
    algorithm = RANKERS["bcq"](echo)
    assert algorithm.update(batch)["critic/loss"].isfinite()
    assert algorithm.act(batch.obs).shape == (ROWS, 2)


def test_a_cache_draws_fresh_candidates_for_states_that_no_row_holds() -> None:
    model, obs = frozen(), torch.randn(6, 3)
    cache = CandidateCache(DecoderMeans(model), transitions())
    torch.manual_seed(0)
    drawn = cache.sample(obs, 4)
    torch.manual_seed(0)
    assert torch.equal(drawn, DecoderMeans(model).sample(obs, 4))
    assert cache.spec == SPEC


def test_a_view_asks_for_what_it_needs() -> None:
    with pytest.raises(CapabilityError, match="decodes latents"):
        DecoderMeans(Echo())  # type: ignore[arg-type]
    with pytest.raises(CapabilityError, match="log-density"):
        MostLikelySamples(Echo())  # type: ignore[arg-type]
    with pytest.raises(CapabilityError, match="can be sampled"):
        CandidateCache(torch.nn.Linear(2, 2), transitions())  # type: ignore[arg-type]


def test_likely_samples_are_the_likeliest_of_those_drawn() -> None:
    model, obs = frozen(), torch.randn(300, 3)
    likely = MostLikelySamples(model, keep=0.25).sample(obs, 5)
    assert likely.shape == (5, 300, 2)
    plain = model.sample(obs, 20)
    density = [torch.stack([model.log_prob(obs, action) for action in actions]) for actions in (likely, plain)]
    assert density[0].mean() > density[1].mean() + 0.5
    torch.manual_seed(1)
    drawn = model.sample(obs, 20)
    torch.manual_seed(1)
    kept = MostLikelySamples(model, keep=0.25).sample(obs, 5)
    floor = torch.stack([model.log_prob(obs, action) for action in drawn]).topk(5, 0).values[-1]
    assert (torch.stack([model.log_prob(obs, action) for action in kept]) >= floor - 1e-5).all()
    torch.manual_seed(1)
    assert torch.equal(MostLikelySamples(model, keep=1.0).sample(obs, 20).sort(0).values, drawn.sort(0).values)
    with pytest.raises(ConfigError, match="keep"):
        MostLikelySamples(model, keep=0.0)


@pytest.mark.parametrize("kind", [GaussianBehavior, MixtureBehavior])
def test_samples_come_with_their_densities(kind: Any) -> None:
    """The samples of the same seed, and log_prob of them where the rounding of tanh costs it no digits."""
    torch.manual_seed(0)
    model, obs = kind(Spec((3,), 2)), torch.randn(5, 3)
    torch.manual_seed(1)
    plain = model.sample(obs, 400)
    torch.manual_seed(1)
    action, log_prob = model.sample_and_log_prob(obs, 400)
    assert torch.equal(action, plain)
    inner = action.abs().amax(-1) < 0.99
    assert inner.float().mean() > 0.5
    torch.testing.assert_close(log_prob[inner], model.log_prob(obs, action)[inner], rtol=1e-4, atol=1e-4)


def test_densities_near_the_bounds_have_the_digits_that_tanh_loses() -> None:
    """Against float64: rankings by density depend on them."""
    u = torch.linspace(-7.0, 7.0, 201).unsqueeze(-1)
    law = TanhNormal(torch.full((201, 1), 3.0), torch.zeros(201, 1))
    exact = TanhNormal(law.base.loc.double(), law.base.log_scale.double()).log_prob(torch.tanh(u.double()))
    assert (law.log_prob_before(u) - exact).abs().max() < 1e-4
    assert (law.log_prob(torch.tanh(u)) - exact).abs().max() > 1e-2
