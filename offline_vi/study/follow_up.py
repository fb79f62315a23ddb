"""Commands that follow a run, for people to copy: each works as it stands."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from offline_vi import registry
from offline_vi.factories import needs_allowing


def command_on(verb: str, *words_after: str | Path, config: Mapping[str, object]) -> str:
    """`offline-vi VERB RUN ...` with the flags that load the code which a run's config.json says it was made with."""
    words = ["offline-vi", verb, *map(str, words_after)]
    for name in plugins_of(config):
        words += ["--plugin", name]
    task = config.get("task")
    env = str(task.get("env_id") or "") if isinstance(task, Mapping) else ""
    if verb in SCORING and needs_allowing(env):
        words += ["--env", env]
    return shlex.join(words)


def near(path: Path) -> Path:
    """The path from the working directory, where it is in it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def entries(config: Mapping[str, object]) -> list[object]:
    """The plug-ins of a config.json, as they are recorded."""
    plugins = config.get("plugins")
    return plugins if isinstance(plugins, list) else []


SCORING = ("resume", "evaluate", "ope", "fit-guard")
"""Verbs that allow code as an environment by --env."""


def plugins_of(config: Mapping[str, object]) -> Iterator[str]:
    """The plug-ins of a config.json that have to be named: files, and modules unless they were loaded by themselves."""
    named = {plugin.name for plugin in registry.PLUGINS.values()}
    for entry in entries(config):
        name = str(entry.get("name") or "") if isinstance(entry, Mapping) else ""
        if name and (name in named or name.endswith(".py") or name not in sys.modules):
            yield name
