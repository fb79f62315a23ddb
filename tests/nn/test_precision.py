"""Half precision where no gradient flows, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_proposals import transitions

from offline_vi.algorithms.bc import BC, BCConfig
from offline_vi.algorithms.bcq import BCQ, BCQConfig
from offline_vi.behavior import CVAE, CVAEConfig, DecoderMeans
from offline_vi.errors import ConfigError
from offline_vi.nn.networks import Critic
from offline_vi.nn.optim import Adam
from offline_vi.nn.precision import (
    exact_products,
    full_precision,
    precision_of_targets,
    preferred_precision,
    use_products,
    without_denormals,
    without_gradient,
)
from offline_vi.runs.directory import RunDirectory
from offline_vi.training.loop import fit
from offline_vi.types import Batch, Spec

CPU = torch.device("cpu")
SPEC = Spec((5,), 2)


def batch() -> Batch:
    size = 64
    return Batch(
        torch.randn(size, 5),
        torch.rand(size, 2) * 2 - 1,
        torch.randn(size),
        torch.randn(size, 5),
        torch.zeros(size),
        torch.arange(size),
    )


@without_gradient
def product(a: torch.Tensor) -> torch.Tensor:
    return a @ a.mT


def test_marked_passes_run_in_the_chosen_precision() -> None:
    a = torch.randn(4, 4, requires_grad=True)
    assert not product(a).requires_grad
    assert product(a).dtype == torch.float32
    with precision_of_targets("bfloat16", CPU):
        assert product(a).dtype == torch.bfloat16
        assert (a @ a.mT).dtype == torch.float32  # not marked
        with precision_of_targets("float32", CPU):
            assert product(a).dtype == torch.float32
    assert product(a).dtype == torch.float32
    with pytest.raises(ConfigError, match="int8"), precision_of_targets("int8", CPU):
        pass


def test_values_leave_a_critic_in_full_precision() -> None:
    critic = Critic(Spec((5,), 2), (64, 64))
    with torch.no_grad():
        list(critic.parameters())[-1].add_(300.0)  # 8 bits of mantissa know only even numbers there
    rows = batch()
    exact = critic(rows.obs, rows.action)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = critic(rows.obs, rows.action)
        with full_precision(CPU):
            same = critic(rows.obs, rows.action)
    assert rough.dtype == torch.float32
    assert torch.equal(same, exact)
    assert not torch.equal(rough, exact)
    assert (rough - exact).abs().max() < 0.02


def test_targets_of_bcq_in_bfloat16_are_close_and_its_gradients_are_float32() -> None:
    model = CVAE(SPEC, CVAEConfig(hidden=(32,)))
    algorithm = BCQ(SPEC, DecoderMeans(model), BCQConfig(hidden=(32, 32)))
    rows, targets = batch(), []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(1)
        with precision_of_targets(precision, CPU):
            targets.append(algorithm.target(rows))
            loss, _ = algorithm.critic_loss(rows)
            assert loss.dtype == torch.float32
            assert {g.dtype for g in torch.autograd.grad(loss, list(algorithm.critic.parameters()))} == {torch.float32}
    difference = (targets[0] - targets[1]).abs()
    assert 0.0 < difference.max() < 0.05


def test_the_path_of_products_is_exact_and_the_trial_changes_nothing() -> None:
    before = torch.get_float32_matmul_precision()
    exact_products.cache_clear()
    chosen = exact_products()
    assert torch.get_float32_matmul_precision() == before
    use_products(chosen)
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(200, 300, generator=generator), torch.randn(300, 100, generator=generator)
    assert float(((a @ b).double() - a.double() @ b.double()).abs().max()) < 1e-4


def test_products_of_half_precision_are_not_taken_for_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    product = torch.Tensor.__matmul__

    def rough(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
            return product(a.bfloat16(), b.bfloat16()).float()
        return product(a, b)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rough)
    monkeypatch.setattr("offline_vi.nn.precision.processor", lambda: ("AuthenticAMD", frozenset()))
    exact_products.cache_clear()
    assert exact_products() == "highest"
    exact_products.cache_clear()


def test_moments_of_dead_units_end_at_zero_and_nothing_else_changes() -> None:
    """Nine tenths of the smallest number round to it again, so a mean gradient that only shrinks never ends."""
    data = transitions()
    agent = BC(data.spec, BCConfig(hidden=(8,), batch_size=8))
    with torch.no_grad():
        next(agent.parameters()).view(8, -1)[:4] = 0.0
        for bias in (part for part in agent.parameters() if part.shape == (8,)):
            bias[:4] = -1e3  # no input reaches these units
    assert isinstance(agent.actor_opt, Adam)
    moments = agent.actor_opt.moments(next(agent.parameters()))
    fit(agent, data, 1, progress=False)
    for moment in moments.values():
        moment.fill_(1e-37)
    fit(agent, data, 60, progress=False)
    tiny = torch.finfo(torch.float32).tiny
    assert moments and not any(((moment != 0.0) & (moment.abs() < tiny)).any() for moment in moments.values())
    assert float(torch.tensor(1e-40) * 0.5) > 0.0  # what others compute afterwards


@pytest.mark.parametrize("before", [True, False])
def test_whoever_had_no_denormals_has_none_afterwards(before: bool) -> None:
    torch.set_flush_denormal(before)
    try:
        with without_denormals():
            assert float(torch.tensor(1e-40) * 1.0) == 0.0
        assert (float(torch.tensor(1e-40) * 1.0) == 0.0) == before
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize(("flags", "expected"), [({"avx512_bf16"}, "bfloat16"), ({"avx512f", "avx2"}, "float32")])
def test_the_precision_follows_from_the_processor(
    flags: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offline_vi.nn.precision.processor", lambda: ("AuthenticAMD", frozenset(flags)))
    assert preferred_precision(CPU) == expected


def test_a_resumed_run_multiplies_as_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offline_vi.training.loop.exact_products", lambda: "medium")
    data = transitions()
    with RunDirectory.create(tmp_path / "run") as run:
        fit(BC(data.spec, BCConfig(hidden=(8,), batch_size=8)), data, 4, run=run, progress=False)
    assert torch.get_float32_matmul_precision() == "medium"
    monkeypatch.setattr("offline_vi.training.loop.exact_products", lambda: "highest")
    with RunDirectory.resume(tmp_path / "run") as run:
        fit(BC(data.spec, BCConfig(hidden=(8,), batch_size=8)), data, 8, run=run, resume=True, progress=False)
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.parametrize("name", ["highest", "medium"])
def test_a_variable_names_the_products_instead_of_a_trial(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFLINE_VI_PRODUCTS", name)
    exact_products.cache_clear()
    assert exact_products() == name
    exact_products.cache_clear()
