"""Ten whole updates at the published presets against restatements of the papers' code: every parameter and moment.

Networks are as published but for their width. The table that the tests fill is printed with ``-rP``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
import reference
import torch
from agents import built
from reference import Noise, Reference, Rows, copies, tensors_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from offline_vi import registry
from offline_vi.behavior.base import Proposals
from offline_vi.behavior.reference import UniformBox
from offline_vi.inference.optimality import flat, weight
from offline_vi.registry import ALGORITHMS, Kind
from offline_vi.study.agents import AgentChoice
from offline_vi.study.presets import choice
from offline_vi.study.train import default_options
from offline_vi.training.behavior import BehaviorFit
from offline_vi.types import Batch, Spec

SPEC = Spec((5,), 3)
SIZE, STEPS, TOLERANCE = 16, 10, 1e-10
NARROW = {1024: 15, 750: 20, 400: 14, 300: 12, 256: 13}
UPDATES = "ten updates to 1e-10"
TABLE: dict[str, float] = {}


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Draws(TorchDispatchMode):
    """Record every random draw; a mask of dropout as zeros and ones."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.draws: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.name().split("::")[1]
        if name.startswith(("rand", "normal", "bernoulli")):
            self.draws.append(out.detach().clone())
        if name.startswith("native_dropout"):
            self.draws.append(out[1].double())
        return out


class NextActions(Proposals):
    """The data's next actions: what ReBRAC's and one-step's codes have in their targets."""

    def __init__(self) -> None:
        super().__init__()
        self.spec, self.rows = SPEC, torch.zeros(0)

    def sample(self, obs: Tensor, num_samples: int = 1) -> Tensor:
        return self.rows.expand(num_samples, *self.rows.shape)


def batches(count: int) -> Iterator[tuple[Batch, Rows]]:
    for _ in range(count):
        s, s2 = torch.randn(2, SIZE, 5, dtype=torch.float64)
        a, a2 = torch.rand(2, SIZE, 3, dtype=torch.float64) * 1.8 - 0.9
        r, done = torch.randn(SIZE, dtype=torch.float64), (torch.rand(SIZE) < 0.2).double()
        yield Batch(s, a, r, s2, done, torch.arange(SIZE)), Rows(s, a, r, s2, 1.0 - done, a2)


def narrow(config: Any) -> Any:
    return replace(config, hidden=tuple(NARROW[width] for width in config.hidden))


def published(name: str, task: str = "", **changed: Any) -> AgentChoice:
    """The agent of `offline-vi train NAME --preset published [--tuned-for TASK]`, its networks narrow."""
    chosen = choice("published", name, SPEC)
    config = default_options(name, {}, ["--tuned-for", task] if task else [])["algorithm"]
    behavior = narrow(chosen.behavior_config) if chosen.behavior else None
    return replace(chosen, config=replace(narrow(config), **changed), behavior_config=behavior)


def part(agent: Any, name: str) -> Any:
    for word in name.split("."):
        agent = getattr(agent, word)
    return agent


def distance(agent: Any, ours: Reference) -> float:
    """The largest relative difference of a parameter or a moment."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for name, net in ours.nets.items():
        pairs += zip(tensors_of(part(agent, name)), net, strict=True)
    for name, adam in ours.adams.items():
        state = part(agent, name).state
        scale = 4.0 * SPEC.action_dim if name == "behavior_opt" else 1.0  # the CVAE's loss is in nats
        for parameter, first, second in zip(tensors_in(part(agent, name)), adam.first, adam.second, strict=True):
            if adam.steps:
                pairs += [(state[parameter]["exp_avg"], scale * first)]
                pairs += [(state[parameter]["exp_avg_sq"], scale**2 * second)]
    return max(float((x.detach() - y.detach()).abs().max() / (1.0 + y.detach().abs().max())) for x, y in pairs)


def tensors_in(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def compare(label: str, agent: Any, ours: Reference, data: NextActions | None = None) -> None:
    agent.train()
    for batch, rows in batches(STEPS):
        if data is not None:
            data.rows = rows.a2
        with Draws() as noise:
            agent.update(batch)
        queue = Noise([draw.double() for draw in noise.draws])
        ours.update(rows, queue)
        assert queue.draws == []
        TABLE[label] = max(TABLE.get(label, 0.0), distance(agent, ours))
    assert TABLE[label] < TOLERANCE, TABLE[label]


def starts(agent: Any, *names: str) -> dict[str, list[Tensor]]:
    """The initial parameters of some parts; targets and scalars start as the restatement says."""
    return {name: copies(tensors_of(part(agent, name))) for name in names}


JOINT = ("behavior", "algorithm.actor", "algorithm.critic")


def test_bcq() -> None:
    agent: Any = built(published("bcq"), SPEC)
    compare("bcq", agent, reference.BCQ(starts(agent, *JOINT)))


@pytest.mark.parametrize("updates", [0, 99_995])
def test_bear(updates: int) -> None:
    agent: Any = built(published("bear"), SPEC)
    agent.algorithm.updates.fill_(updates)
    compare("bear", agent, reference.BEAR(starts(agent, *JOINT), updates))


def fitted(name: str, lr: float) -> tuple[Any, reference.VAE]:
    """The CVAE of a published preset and its restatement after ten steps of its fit, the learning rate constant."""
    parts = default_options(name, {}, [])
    settings = narrow(replace(parts["behavior"], eps=choice("published", name, SPEC).behavior_config.eps))
    model: Any = registry.behavior_model("cvae-published").load()(SPEC, settings)
    ours = reference.VAE(tensors_of(model), lr)
    fit: Any = BehaviorFit(model, parts["train"].behavior_steps)
    for batch, rows in batches(STEPS):
        with Draws() as noise:
            fit.update(batch)
        ours.fit(rows.s, rows.a, Noise(noise.draws))
    pairs = zip(model.parameters(), ours.tensors, strict=True)
    TABLE[f"{name}'s CVAE"] = max(float((x.detach() - y.detach()).abs().max()) for x, y in pairs)
    assert TABLE[f"{name}'s CVAE"] < TOLERANCE
    return model, ours


def test_plas() -> None:
    model, vae = fitted("plas", lr=1e-4)
    agent: Any = built(published("plas"), SPEC, model)
    compare("plas", agent, reference.PLAS(starts(agent, "actor", "critic"), vae))


@pytest.mark.parametrize(
    ("task", "lambd", "dropout", "actor_lr", "cooldown", "gamma"),
    [
        ("hopper-medium-v2", 0.1, 0.1, 3e-4, 0, 0.99),
        ("antmaze-large-play-v2", 0.025, 0.0, 1e-4, 0, 0.99),
        ("antmaze-large-play-v2", 0.025, 0.0, 1e-4, 1_000_000, 0.995),
    ],
)
def test_spot(task: str, lambd: float, dropout: float, actor_lr: float, cooldown: int, gamma: float) -> None:
    model, vae = fitted("spot", lr=1e-3)
    chosen = published("spot", task, cooldown=cooldown, discount=gamma)
    agent: Any = built(chosen, SPEC, model)
    rates = {"actor_lr": actor_lr, "lr": 3e-4, "gamma": gamma}
    ours = reference.SPOT(starts(agent, "actor", "critic"), vae, lambd, dropout, cooldown > 0, **rates)
    compare(f"spot {task}{' fine-tuning' * (cooldown > 0)}", agent, ours)


def test_td3_bc() -> None:
    agent: Any = built(published("td3-bc"), SPEC)
    compare("td3-bc", agent, reference.TD3BC(starts(agent, "actor", "critic"), actor_lr=3e-4, lr=3e-4))


def test_td3() -> None:
    agent: Any = built(published("td3"), SPEC)
    compare("td3", agent, reference.TD3(starts(agent, "actor", "critic"), actor_lr=3e-4, lr=3e-4))


def test_ddpg() -> None:
    agent: Any = built(published("ddpg"), SPEC)
    compare("ddpg", agent, reference.DDPG(starts(agent, "actor", "critic"), actor_lr=3e-4, lr=3e-4))


def test_sac() -> None:
    agent: Any = built(published("sac"), SPEC)
    compare("sac", agent, reference.SAC(starts(agent, "actor", "critic")))


def test_onestep_by_temporal_differences() -> None:
    data = NextActions()
    cls: Any = registry.algorithm("onestep").load()
    agent: Any = cls(SPEC, data, published("onestep").config)
    compare("onestep", agent, reference.OneStep(starts(agent, "critic")), data)


def test_soft_q_on_uniform_actions() -> None:
    box, config = UniformBox(SPEC), published("soft-q").config
    cls: Any = registry.algorithm("soft-q").load()
    agent: Any = cls(SPEC, box, config, weight(flat, box.log_prob))
    compare("soft-q", agent, reference.SoftQ(starts(agent, "critic"), config.temperature, particles=16))


def test_bc() -> None:
    agent: Any = built(published("bc"), SPEC)
    compare("bc", agent, reference.BC(starts(agent, "actor")))


def test_idql() -> None:
    cls: Any = registry.algorithm("idql").load()
    agent: Any = cls(SPEC, NextActions(), published("idql").config)
    compare("idql", agent, reference.IDQL(starts(agent, "value", "critic"), 0.7))


@pytest.mark.parametrize("order", ["published", "td3"])
@pytest.mark.parametrize(
    ("task", "betas", "rates"),
    [
        ("hopper-medium-v2", (0.01, 0.01), {"actor_lr": 1e-3, "lr": 1e-3}),
        ("antmaze-umaze-v2", (0.003, 0.002), {"actor_lr": 3e-4, "lr": 5e-5, "gamma": 0.999}),
    ],
)
def test_rebrac(task: str, betas: tuple[float, float], rates: dict[str, float], order: str) -> None:
    data, chosen = NextActions(), published("rebrac", task, order=order)
    cls: Any = registry.algorithm("rebrac").load()
    agent: Any = cls(SPEC, data, chosen.config)
    ours = reference.ReBRAC(starts(agent, "actor", "critic"), *betas, td3=order == "td3", **rates)
    compare(f"rebrac {task} {order}", agent, ours, data)


@pytest.mark.parametrize(("task", "expectile", "beta"), [("hopper-medium", 0.7, 3.0), ("antmaze-umaze", 0.9, 10.0)])
def test_iql(task: str, expectile: float, beta: float) -> None:
    agent: Any = built(published("iql", task), SPEC)
    ours = reference.IQL(starts(agent, "actor", "value", "critic"), expectile, beta, horizon=1_000_000)
    compare(f"iql {task}", agent, ours)


@pytest.mark.parametrize("updates", [0, 39_995])
@pytest.mark.parametrize(("task", "threshold", "backup"), [("", None, 1), ("antmaze-umaze", 5.0, 1), ("", None, 10)])
def test_cql(task: str, threshold: float | None, backup: int, updates: int) -> None:
    agent: Any = built(published("cql", task, num_backup_samples=backup), SPEC)
    agent.updates.fill_(updates)
    ours = reference.CQL(starts(agent, "actor", "critic"), updates, backup, threshold)
    compare(f"cql {task}{' max-backup' * (backup > 1)}".strip(), agent, ours)


# ------------------------------------------------------------------ sizes, and the table


def shapes(agent: Any, name: str) -> list[tuple[int, ...]]:
    """(in, out) of each layer."""
    found = [p.shape for p in tensors_of(part(agent, name)) if p.ndim > 1 and p.shape[-2] > 1]
    return [tuple(shape[-2:]) if len(shape) > 2 else (shape[1], shape[0]) for shape in found]


def sizes(*widths: int) -> list[tuple[int, ...]]:
    return list(pairwise(widths))


O, A, Z = 11, 3, 6  # noqa: E741
VAE = sizes(O + Z, 750, 750, A) + sizes(O + A, 750, 750, 2 * Z)
NETWORKS: dict[str, dict[str, list[tuple[int, ...]]]] = {  # as the constructors of the papers' code have them
    "bcq": {
        "behavior": VAE,
        "algorithm.actor": sizes(O + A, 400, 300, A),
        "algorithm.critic": sizes(O + A, 400, 300, 1),
    },
    "bear": {
        "behavior": VAE,
        "algorithm.actor": sizes(O, 400, 300, 2 * A),
        "algorithm.critic": sizes(O + A, 400, 300, 1),
    },
    "plas": {"behavior": VAE, "actor": sizes(O, 400, 300, Z), "critic": sizes(O + A, 400, 300, 1)},
    "spot": {"behavior": VAE, "actor": sizes(O, 256, 256, A), "critic": sizes(O + A, 256, 256, 1)},
    "td3-bc": {"actor": sizes(O, 256, 256, A), "critic": sizes(O + A, 256, 256, 1)},
    "rebrac": {
        "algorithm.actor": sizes(O, 256, 256, 256, A),
        "algorithm.critic": sizes(O + A, 256, 256, 256, 1),
    },
    "iql": {
        "actor.mean": sizes(O, 256, 256, A),
        "value": sizes(O, 256, 256, 1),
        "critic": sizes(O + A, 256, 256, 1),
    },
    "td3": {"actor": sizes(O, 256, 256, A), "critic": sizes(O + A, 256, 256, 1)},
    "ddpg": {"actor": sizes(O, 256, 256, A), "critic": sizes(O + A, 256, 256, 1)},
    "sac": {"actor": sizes(O, 256, 256, 2 * A), "critic": sizes(O + A, 256, 256, 1)},
    "onestep": {"critic": sizes(O + A, 1024, 1024, 1)},
    "idql": {"algorithm.value": sizes(O, 256, 256, 1), "algorithm.critic": sizes(O + A, 256, 256, 1)},
    "bc": {"actor": sizes(O, 256, 256, A)},
    "cql": {"actor": sizes(O, 256, 256, 256, 2 * A), "critic": sizes(O + A, 256, 256, 256, 1)},
}
BATCH = {"bcq": 100, "bear": 100, "plas": 100, "rebrac": 1024, "onestep": 512, "idql": 512}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_and_batches_have_the_published_sizes(name: str) -> None:
    agent: Any = built(choice("published", name, Spec((O,), A)), Spec((O,), A))
    assert agent.batch_size == BATCH.get(name, 256)
    for module, expected in NETWORKS[name].items():
        last = [(expected[-1][0], expected[-1][1])]
        found = shapes(agent, module)
        assert found + (last if len(found) < len(expected) else []) == expected


WITHOUT_CODE = {
    "emaq": "nothing to compare with: no public code is known, and the operator is the paper's",
    "kl-sac": "nothing to compare with: it follows no code",
}


@pytest.mark.parametrize("name", [name for name, row in ALGORITHMS.items() if row.kind == Kind.BATCHES])
def test_the_table(name: str) -> None:
    """Algorithm x published preset line by line, per-task table, ten updates."""
    rows = {label: far for label, far in TABLE.items() if label.split()[0].removesuffix("'s") == name}
    config = default_options(name, {}, [])["algorithm"]
    print(f"{name}: " + ", ".join(f"{field.name} {getattr(config, field.name)}" for field in fields(config)))
    for label, far in rows.items():
        print(f"  {UPDATES}, {label}: largest relative difference {far:.0e}")
    if name in WITHOUT_CODE:
        print(f"  {WITHOUT_CODE[name]}")
    assert all(far < TOLERANCE for far in rows.values())
