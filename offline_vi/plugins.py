"""Loading other people's code because somebody named it: ``--plugin FILE.py`` or ``--plugin package.module``.

A plug-in registers what is in it with the decorators of `registry`. A file, such as a run or a suite, never decides
that code is loaded: whoever gives the command does.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from offline_vi.errors import ConfigError, MissingInputError, UsageError
from offline_vi.homes import expanded
from offline_vi.registry import (
    ALGORITHMS,
    BEHAVIOR_MODELS,
    DATASETS,
    PLUGINS,
    AlgorithmEntry,
    BehaviorEntry,
    DatasetEntry,
    Plugin,
)

TABLES: dict[str, Mapping[str, Any]] = {"algorithm": ALGORITHMS, "behavior": BEHAVIOR_MODELS, "dataset": DATASETS}
"""What plug-ins add to."""

REGISTERED: dict[tuple[str, str], str] = {}
"""(table, name) that a plug-in registered -> the plug-in's module."""


def source_of(cls: type) -> Plugin | None:
    """The file that defines a class, as a plug-in; None for a class of this library."""
    if cls.__module__.startswith("offline_vi."):
        return None
    if cls.__module__ in PLUGINS:
        return PLUGINS[cls.__module__]
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    known = file is not None and Path(file).is_file()
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file is not None and known else ""
    return Plugin(str(file) if cls.__module__ == "__main__" and known else cls.__module__, digest)


def load_plugin(name: str | Path) -> Plugin:
    """Load a Python file or a module, whose decorators register what is in it; a second time it does nothing.

    Raises MissingInputError where it is not there, UsageError where it registers nothing, ConfigError where it cannot
    be loaded.
    """
    text = str(name)
    if not (text.endswith(".py") or "/" in text):
        return _load_module(text)
    path = expanded(text).resolve()
    if not path.is_file():
        raise MissingInputError(f"the plug-in {text} is not there", "name a Python file, or a module: --plugin pkg.mod")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    module = f"offline_vi_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module not in PLUGINS:
        spec = importlib.util.spec_from_file_location(module, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(spec)
        _run(text, module, lambda: spec.loader.exec_module(sys.modules[module]))  # type: ignore[union-attr]
        PLUGINS[module] = Plugin(text, digest)
    return PLUGINS[module]


def _load_module(name: str) -> Plugin:
    if name not in PLUGINS:
        try:
            found = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise MissingInputError(f"there is no module {name!r}", "install it, or name its file: --plugin FILE.py")
        _run(name, name, lambda: importlib.import_module(name))
        file = Path(found.origin) if found.origin and Path(found.origin).is_file() else None
        PLUGINS[name] = Plugin(name, hashlib.sha256(file.read_bytes()).hexdigest() if file else "")
    return PLUGINS[name]


def origin(table: str, name: str) -> Plugin | None:
    """The plug-in that registered a name; None where the library did, or code that nobody named, or no one."""
    row = TABLES[table].get(name)
    return PLUGINS.get(REGISTERED.get((table, name)) or row.target.partition(":")[0]) if row else None


def _run(text: str, module: str, load: Callable[[], object]) -> None:
    """Load a plug-in's code and see that it registers something."""
    before = _rows()
    try:
        load()
    except (ConfigError, UsageError):
        sys.modules.pop(module, None)
        raise
    except (Exception, SystemExit) as error:  # whatever somebody's code raises
        sys.modules.pop(module, None)
        raise ConfigError(f"the plug-in {text} cannot be loaded: {type(error).__name__}: {error}", "fix it") from error
    REGISTERED.update({key: module for key, row in _rows().items() if before.get(key) is not row})
    known = {row.target.partition(":")[0] for row in _rows().values()}
    if _rows() == before and module not in known and not _defines_agents(module):
        raise UsageError(
            f"the plug-in {text} defines no algorithm, behavior model or data set",
            "decorate its classes: @offline_vi.register_algorithm(NAME) or @offline_vi.register_behavior(NAME)",
        )


def _defines_agents(module: str) -> bool:
    """Whether a loaded module has classes that a saved agent may consist of."""
    classes = [value for value in vars(sys.modules[module]).values() if isinstance(value, type)]
    mine = [cls for cls in classes if cls.__module__ == module]
    return any(base.__module__ == "offline_vi.nn.recorded" for cls in mine for base in cls.__mro__)


def _rows() -> dict[tuple[str, str], AlgorithmEntry | BehaviorEntry | DatasetEntry]:
    return {(table, name): row for table, rows in TABLES.items() for name, row in rows.items()}
