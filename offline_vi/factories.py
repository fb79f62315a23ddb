"""Environments that are no plain Gymnasium ids: a class or a factory in Python, ``module:Id``, ``module:Class`` or
``module:factory`` in words.

Words with a colon import a module. A file, such as a run's config.json or a suite, never decides that code is loaded:
whoever gives the command or calls the function does. `allow` notes what they named, `require_allowed` asks for it.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias

from offline_vi.errors import ConfigError, MissingDependencyError, MissingInputError, UsageError

Factory: TypeAlias = Callable[..., Any]
"""A class of environments, or a function that makes one; called with the task's ``kwargs``."""

ALLOWED: set[str] = set()  # what the command line or a Python call named
GIVEN: dict[str, Factory] = {}  # name -> what Python handed in
OWN = "offline_vi.datasets.pixels:offline-vi/"  # begins the names of the environments that the library itself registers

OWN_MODEL = re.compile(r"\w+\.xml", re.ASCII)  # a robot's: a bare name is looked for among Gymnasium's own files alone


def allow(env: str | Factory) -> str:
    """The name of an environment that the caller hands in: it may be imported from now on.

    Raises UsageError for an environment itself.
    """
    if not (isinstance(env, str) or callable(env)):
        raise UsageError(
            f"a {type(env).__name__} makes no environments: each evaluation needs some of its own",
            "hand in the class, or a function that makes one: env=lambda: MyEnv(...)",
        )
    name = env if isinstance(env, str) else _name_of(env)
    ALLOWED.add(name)
    return name


def needs_allowing(env_id: str) -> bool:
    """Whether the name is that of code which is imported only if the caller names it."""
    return ":" in env_id and not env_id.startswith(OWN)


def require_allowed(env_id: str) -> None:
    """Raises UsageError where only a file names the module that would be imported."""
    if needs_allowing(env_id) and env_id not in ALLOWED:
        raise UsageError(
            f"the environment {env_id} is code of the module {env_id.partition(':')[0]!r}, which a file names: code is "
            "imported only if you name it",
            f'if you trust it, add env="{env_id}"',
        )


def _name_of(factory: Factory) -> str:
    """``module:Class`` of a class or a function; a script that runs is the module that it would be imported as."""
    module, kind = getattr(factory, "__module__", None), getattr(factory, "__qualname__", None)
    owner = factory if kind is not None else type(factory)
    module, kind = str(module or type(factory).__module__), str(kind or owner.__qualname__)
    if module == "__main__" and (file := getattr(sys.modules["__main__"], "__file__", None)):
        module = Path(file).stem
    name, count = f"{module}:{kind}", 1
    while GIVEN.get(name, factory) is not factory:  # two lambdas of one function, a class that was defined anew
        count += 1
        name = f"{module}:{kind}#{count}"
    GIVEN[name] = factory
    return name


def find(env_id: str) -> Factory | str:
    """What makes the environment ``module:NAME``: an id that the module registers, or something in it to be called.

    Raises UsageError where nobody allowed it, or where there is nothing of that name; MissingInputError without the
    module, MissingDependencyError where it lacks a package, ConfigError where it cannot be imported.
    """
    require_allowed(env_id)
    if env_id in GIVEN:
        return GIVEN[env_id]
    import gymnasium  # not for the runs that are scored nowhere

    module, _, name = env_id.partition(":")
    found: Any = _imported(module)
    if name in gymnasium.registry:
        return name
    for part in name.split("."):
        found = getattr(found, part, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    close = get_close_matches(name, [*vars(sys.modules[module]), *gymnasium.registry], n=1)
    raise UsageError(
        f"the module {module} neither registers nor holds an environment {name!r}",
        f"did you mean {module}:{close[0]}?" if close else f'env="{module}:CLASS"',
    )


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise MissingInputError(
                f"there is no module {module!r}, neither in the working directory nor installed",
                "give the command in the directory of its file, or install it",
            ) from error
        raise MissingDependencyError(f"the module {module} needs {error.name}", f"pip install {error.name}") from error
    except (Exception, SystemExit) as error:  # whatever somebody's code raises
        raise ConfigError(
            f"the module {module} cannot be imported: {type(error).__name__}: {error}", "fix it"
        ) from error


@contextmanager
def working_directory() -> Iterator[None]:
    """Modules of the working directory can be imported meanwhile, after those that are installed."""
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.reverse()
            sys.path.remove(here)
            sys.path.reverse()


# ------------------------------------------------------------------ constructor arguments


def environment_title(env_id: str, kwargs: Mapping[str, Any]) -> str:
    """An environment in a few words: Hopper-v5(frame_skip=4); what files say is cut, and kept printable."""
    words = ", ".join(f"{name}={value!r}" for name, value in sorted(kwargs.items()))
    title = f"{env_id}({words})" if words else env_id
    return "".join(letter if letter.isprintable() else "?" for letter in title)[:120]


def kwargs_from(words: Sequence[str]) -> dict[str, Any]:
    """Constructor arguments from words: one JSON object, or pairs ``key=value`` whose values are JSON or text.

    Raises UsageError where they are neither.
    """
    text = words[0] if len(words) == 1 else ""
    if text.lstrip().startswith("{"):
        with suppress(ValueError, RecursionError):
            return dict(json.loads(text))
    pairs = [word.partition("=") for word in words]
    for key, equals, _ in pairs:
        if not (equals and key.isidentifier()):
            raise UsageError(
                f"{key[:60]!r} of env_kwargs is no argument of an environment",
                "write key=value, with spaces between several, or one JSON object in quotation marks",
            )
    return {key: _value(text) for key, _, text in pairs}


def words_of(kwargs: Mapping[str, Any]) -> tuple[str, ...]:
    """The words that `kwargs_from` reads. Raises UsageError for what a file could not say."""
    try:
        return (json.dumps(dict(kwargs), allow_nan=False),) if kwargs else ()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"env_kwargs cannot be recorded: {error}", "hand in a function that makes the environment: env=FUNCTION"
        ) from None


def _value(text: str) -> Any:
    spoken = {"True": True, "False": False, "None": None}
    try:
        return spoken[text] if text in spoken else json.loads(text)
    except ValueError:
        return text


def check_kwargs(env_id: str, kwargs: Mapping[str, Any]) -> None:
    """Constructor arguments that a file names: numbers, booleans, words and lists of them, and no paths; MuJoCo's
    ``xml_file`` is a bare name of Gymnasium's own models. Raises UsageError for any other."""
    for name, value in kwargs.items():
        if not (_harmless(value) and (name != "xml_file" or OWN_MODEL.fullmatch(str(value)))):
            raise UsageError(
                f"the argument {name} = {str(value)[:60]!r} of {env_id} is not taken from a file",
                f"if you trust it, give it yourself: env_kwargs={name}=VALUE",
            )


def _harmless(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_harmless, value))
    if isinstance(value, str):
        return not re.search(r"[/\\:~]|\.\.", value)
    return value is None or isinstance(value, bool | int | float)
