"""The tables of tuned settings against what the reference repositories' files say, in those files' own terms.

``sources.json`` holds the values as they stand there: repository (below), file and commit.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offline_vi.study.commands import train_flags
from offline_vi.study.procedure import PAPER_STEPS
from offline_vi.study.suite import read_suite, shipped
from offline_vi.study.train import default_options
from offline_vi.study.tuned import is_tuned, source_of, tables, tuned

SOURCES: dict[str, dict[str, dict[str, Any]]] = json.loads((Path(__file__).parent / "sources.json").read_text())
REPOSITORIES = {
    "rebrac": "DT6A/ReBRAC",
    "spot": "thuml/SPOT",
    "iql": "ikostrikov/implicit_q_learning",
    "cql": "aviralkumar2907/CQL",
    "bear": "rail-berkeley/d4rl_evaluations",
    "plas": "takuseno/d3rlpy",
    "idql": "philippe-eecs/IDQL",
}
ANTMAZE = [f"antmaze-{name}" for name in ("umaze", "umaze-diverse", "medium-play", "medium-diverse", "large-play")]


def made(algorithm: str, task: str) -> Any:
    """What `offline-vi train ALGORITHM --tuned-for TASK` sets."""
    return SimpleNamespace(**default_options(algorithm, {}, ["--tuned-for", task]))


@pytest.mark.parametrize("name", REPOSITORIES)
def test_every_row_names_repository_commit_and_file(name: str) -> None:
    assert tables().keys() == REPOSITORIES.keys()
    record = json.loads(tables()[name].read_text())
    for stage in record.keys() - {"about"}:
        for task, row in record[stage].items():
            assert re.fullmatch(r"[\w.-]+/[\w.-]+ [0-9a-f]{40} [\w./-]+", row["source"]), (task, row)


@pytest.mark.parametrize("file", SOURCES["rebrac"])
def test_rebrac(file: str) -> None:
    theirs = SOURCES["rebrac"][file]
    ours = made("rebrac", theirs["dataset_name"])
    config = ours.algorithm
    assert source_of("rebrac", theirs["dataset_name"]) == f"{REPOSITORIES['rebrac']} {theirs['commit']} {file}"
    assert (config.beta_actor, config.beta_critic) == (theirs["actor_bc_coef"], theirs["critic_bc_coef"])
    assert (config.actor_lr or config.lr, config.lr) == (theirs["actor_learning_rate"], theirs["critic_learning_rate"])
    assert (config.discount, config.tau) == (theirs["gamma"], theirs["tau"])
    assert config.batch_size == theirs["batch_size"]
    assert config.hidden == (theirs["hidden_dim"],) * theirs["critic_n_hiddens"]
    assert theirs["critic_n_hiddens"] == theirs["actor_n_hiddens"]
    assert (config.layer_norm, theirs["actor_ln"], theirs["normalize_q"]) == (theirs["critic_ln"], False, True)
    assert ours.train.reward_scale == ("100" if theirs["normalize_reward"] else "")
    assert ours.train.normalize is theirs["normalize_states"]


@pytest.mark.parametrize("file", [file for file in SOURCES["spot"] if file.startswith("configs/offline")])
def test_spot(file: str) -> None:
    usual = {"actor_dropout": 0.1, "actor_lr": 3e-4, "actor_init_w": None}  # of main.py
    theirs = usual | SOURCES["spot"][file]
    ours = made("spot", theirs["env"])
    config = ours.algorithm
    assert source_of("spot", theirs["env"]) == f"{REPOSITORIES['spot']} {theirs['commit']} {file}"
    assert (config.lmbda, config.dropout) == (theirs["lambd"], theirs["actor_dropout"])
    assert (config.actor_lr or config.lr, config.lr) == (theirs["actor_lr"], 3e-4)
    antmaze = "antmaze" in file
    assert config.init == ("small-last" if theirs["actor_init_w"] else "torch")
    assert ours.train.normalize is not theirs.get("antmaze_no_normalize", False)
    assert ours.train.reward_shift == (-1.0 if antmaze else 0.0)  # where(r == 1, 0, -1)
    assert (ours.train.behavior_steps, ours.behavior.lr, ours.behavior.batch_size) == (100_000, 1e-3, 256)
    assert ours.behavior.schedule == "constant"


@pytest.mark.parametrize("file", [file for file in SOURCES["spot"] if file.startswith("configs/online")])
def test_spots_fine_tuning(file: str) -> None:
    theirs = SOURCES["spot"][file]
    ours = tuned("spot", theirs["env"], "finetuning")
    assert (ours["lmbda"], ours["actor_lr"]) == (theirs["lambd"], theirs["actor_lr"])
    assert ours["dropout"] == theirs["actor_dropout"]
    assert ours.get("discount", 0.99) == theirs.get("discount", 0.99)
    assert (ours["cooldown"] == 1_000_000) is theirs["lambd_cool"]


@pytest.mark.parametrize(
    ("task", "file"),
    [("hopper-medium-v2", "mujoco"), ("antmaze-large-play-v0", "antmaze"), ("pen-human-v0", "kitchen")],
)
def test_iql(task: str, file: str) -> None:
    theirs, ours = SOURCES["iql"][f"configs/{file}_config.py"], made("iql", task)
    config = ours.algorithm
    assert {config.lr} == {theirs["actor_lr"], theirs["value_lr"], theirs["critic_lr"]}
    assert (config.expectile, config.beta) == (theirs["expectile"], theirs["temperature"])
    assert (config.dropout, config.hidden) == (theirs["dropout_rate"] or 0.0, tuple(theirs["hidden_dims"]))
    assert (config.discount, config.tau) == (theirs["discount"], theirs["tau"])
    assert ours.train.reward_scale == ("returns" if file == "mujoco" else "")
    assert ours.train.reward_shift == (-1.0 if file == "antmaze" else 0.0)  # both in train_offline.py


@pytest.mark.parametrize("task", ["hopper-medium-v2", "antmaze-umaze-v2"])
def test_idql(task: str) -> None:
    launcher, learner = SOURCES["idql"].values()
    ours = made("idql", task)
    config, antmaze = ours.algorithm, task.startswith("antmaze")
    assert (config.batch_size, config.num_candidates) == (launcher["batch_size"], launcher["N"])
    assert {config.lr} == {launcher["critic_lr"], launcher["value_lr"]}
    assert config.expectile == launcher["critic_hyperparam"]["antmaze" if antmaze else "else"]
    assert (config.hidden, config.discount) == (tuple(learner["critic_hidden_dims"]), learner["discount"])
    assert config.tau == learner["tau"]
    assert (ours.train.reward_scale == "returns") is (launcher["normalize_returns"] and not antmaze)
    assert ours.train.reward_shift == (-1.0 if antmaze else 0.0)


@pytest.mark.parametrize("task", ANTMAZE)
def test_cql(task: str) -> None:
    command, script = SOURCES["cql"].values()
    ours = made("cql", task)
    config = ours.algorithm
    assert (config.lagrange_threshold, config.alpha) == (command["lagrange_thresh"], command["min_q_weight"])
    assert (config.actor_lr, config.critic_lr) == (command["policy_lr"], script["qf_lr"])
    assert (config.warmup, config.num_samples) == (script["policy_eval_start"], script["num_random"])
    assert config.hidden == (script["layer_size"],) * script["hidden_layers"]
    assert (config.num_backup_samples > 1) is script["max_q_backup"]
    scale, shift = float(ours.train.reward_scale), ours.train.reward_shift
    for r in (0.0, 1.0):
        assert scale * r + shift == eval(script["reward"])  # noqa: S307


def test_bear() -> None:
    (theirs,) = SOURCES["bear"].values()
    for domain in ("Hopper", "Walker2d", "HalfCheetah"):
        config = made("bear", f"{domain.lower()}-medium-v2").algorithm
        found = {"kernel_type": config.kernel, "mmd_sigma": config.kernel_sigma, "num_samples": config.num_match}
        assert found == theirs[domain]


def test_plas() -> None:
    (theirs,) = SOURCES["plas"].values()
    for task, phi in theirs["ACTION_FLEXIBILITY"].items():
        ours = made("plas", task.replace("relay", "replay"))  # a slip of theirs
        assert ours.algorithm.phi == phi
        assert (ours.train.behavior_steps, ours.behavior.lr, ours.behavior.batch_size) == (500_000, 1e-4, 100)
        assert (ours.behavior.schedule, ours.train.normalize) == ("constant", False)


def test_onestep() -> None:
    beta, lengths = SOURCES["onestep"].values()
    ours = SimpleNamespace(**default_options("onestep", {}, []))
    assert (ours.train.behavior_model, ours.train.behavior_steps) == ("gaussian", lengths["beta_steps"])
    assert PAPER_STEPS["onestep"] == lengths["q_steps"]
    model = ours.behavior
    assert (model.batch_size, model.lr, model.schedule) == (beta["batch_size"], beta["lr"], "constant")
    assert model.hidden == (beta["width"],) * beta["depth"]


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("d4rl-")])
def test_the_shipped_suites_run_each_algorithm_as_published_for_the_task(name: str) -> None:
    suite = read_suite(name)
    assert (suite.presets, suite.tuned, suite.behavior) == (("published",), True, {})
    for cell in suite.cells():
        words, (file,) = train_flags(suite, cell), suite.datasets[cell.dataset]
        expected = [file] if is_tuned(cell.algorithm, file) else []
        assert [words[at + 1] for at, word in enumerate(words) if word == "--tuned-for"] == expected
        assert words[words.index("--steps") + 1] == ("500000" if cell.algorithm == "plas" else "1000000")
