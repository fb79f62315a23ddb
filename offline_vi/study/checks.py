"""A suite's options and hyper-parameters, checked before anything runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, replace
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Any, get_type_hints

from offline_vi import registry
from offline_vi.errors import CapabilityError, ConfigError, OfflineVIError
from offline_vi.study.commands import fit_flags, train_arguments, train_flags, train_options
from offline_vi.study.presets import note_on, preset
from offline_vi.study.suite import Cell, Suite
from offline_vi.study.suite_values import RESERVED, unknown_key

if TYPE_CHECKING:
    from offline_vi.types import Spec


def check_options(suite: Suite) -> None:
    """Every option and hyper-parameter of every cell, by parsing its command.

    Raises ConfigError with the nearest valid name, and CapabilityError where an algorithm cannot use the model.
    """
    from offline_vi.study import fit_behavior, train  # here and below: torch
    from offline_vi.study.data import DataOptions
    from offline_vi.study.evaluations import EvalOptions
    from offline_vi.study.returns import ReturnOptions
    from offline_vi.study.run import RunOptions
    from offline_vi.study.weighing import WeightOptions
    from offline_vi.types import Spec

    def of_model(name: str) -> list[str]:
        return _names(type(registry.behavior_model(name).config(Spec((1,), 1))))

    kinds = (DataOptions, RunOptions, EvalOptions, WeightOptions, ReturnOptions, train.TrainOptions)
    common = [name for name in _names(*kinds) if name not in RESERVED]
    common += ["rows", "seeds-at-once"]  # former names
    different = different_cells(suite)
    for cell in different:
        model = preset(cell.preset).behavior_of(cell.algorithm)
        known = [*common, "behavior", *_names(registry.algorithm(cell.algorithm).config())]
        if model and not suite.behavior:
            known += [f"behavior.{name}" for name in of_model(model)]
        for name in train_options(suite, cell):
            if name not in known:
                raise unknown_key(name, known, f"option or hyper-parameter of {cell.variant or cell.algorithm}")
        _parse(partial(train.parse_options, cell.algorithm, {}), cell.algorithm, train_flags(suite, cell))
        if suite.model(cell):
            _check_model(cell.algorithm, suite.model(cell))
    if suite.behavior:
        for model in sorted({suite.models(cell) for cell in different}):
            own = [*_names(DataOptions, RunOptions, fit_behavior.FitOptions), "model", "rows"]
            known = [*own, *of_model(model)]
            for name in suite.behavior:
                if name not in known:
                    raise unknown_key(name, known, f"option or hyper-parameter of the behavior model {model}")
            label = next(iter(suite.datasets))
            _parse(partial(fit_behavior.parse_options, model, {}), model, fit_flags(suite, label, 0))


def different_cells(suite: Suite) -> list[Cell]:
    """A cell of each kind: data set and seed make no difference to its options."""
    return [*{(cell.algorithm, cell.variant, cell.preset): cell for cell in suite.cells()}.values()]


def notes(suite: Suite) -> list[str]:
    """What the presets of the suite leave out because it shares another behavior model than theirs."""
    found = [
        note_on(
            cell.preset,
            cell.algorithm,
            suite.model(cell),
            [option.replace("-", "_") for option in train_options(suite, cell)],
        )
        for cell in different_cells(suite)
        if suite.model(cell)
    ]
    return list(dict.fromkeys(filter(None, found)))


def check_building(suite: Suite, label: str, spec: Spec) -> None:
    """Build every agent of the suite for the shapes of a data set, with the behavior model that the suite shares.

    Raises what building raises; ConfigError where an algorithm or a model raises anything that is not the library's.
    """
    import torch  # here and below: not for --help

    from offline_vi.study import fit_behavior, train
    from offline_vi.study.agents import build_agents, resolved

    for cell in different_cells(suite):
        options = train.parse_options(cell.algorithm, {}, train_flags(suite, cell))
        choice = train.choice_of(cell.algorithm, options)
        if model := suite.model(cell):
            fitted = fit_behavior.parse_options(model, {}, fit_flags(suite, label, cell.seed))
            choice = replace(choice, behavior=model, behavior_config=fitted.behavior, jointly=False)
        try:
            with torch.random.fork_rng():
                build_agents(resolved(choice, spec), spec, (cell.seed,), None, lambda proposals: proposals)
        except OfflineVIError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{cell.variant or cell.algorithm} cannot be built for {label}: {type(error).__name__}: {error}",
                f"{shlex.join(['offline-vi', 'train', *train_arguments(suite, cell)])} shows where",
            ) from error


def _names(*parts: type[Any]) -> list[str]:
    """The fields of dataclasses as flags are named."""
    return [entry.name.replace("_", "-") for part in parts for entry in fields(part)]


def _check_model(algorithm: str, model: str) -> None:
    from offline_vi.behavior import LatentModel
    from offline_vi.behavior.base import CAPABILITIES

    row, found = registry.algorithm(algorithm), registry.behavior_model(model).load()
    cls = row.load()
    needed: type = get_type_hints(cls.__init__)[registry.proposals_argument(cls)]
    decodes = row.proposals == "decoder-means" and issubclass(found, LatentModel)
    if not decodes and not issubclass(found, needed):
        raise CapabilityError(
            f"{algorithm} needs a behavior model that {CAPABILITIES[needed]}, {model} is none",
            f"name another model in [behavior], or leave {algorithm} out",
        )


def _parse(parse: Callable[[list[str]], object], name: str, words: list[str]) -> None:
    """Run a verb's parser for what it refuses; its box of text becomes one line."""
    printed = StringIO()
    try:
        with redirect_stderr(printed), redirect_stdout(printed):
            parse(words)
    except OfflineVIError:
        raise
    except SystemExit:
        box = " ".join(printed.getvalue().translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())
        raise ConfigError(f"{' '.join([name, *words])}: {box[:200]}", "look at --help of the verb") from None
