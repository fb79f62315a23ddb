"""Whose folder it is: the library writes into a folder, and empties one, only where its own manifest is in it.

``offline_vi.json`` is that manifest: ``{"offline_vi": "run"}``. Folders of earlier versions, which have none, are known
by what they record. Nothing is touched before that is known, and nothing but regular files is ever written over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from offline_vi.errors import OutputDirError, RunExistsError
from offline_vi.runs.files import (
    MAX_JSON,
    TEMPORARY,
    is_folder,
    is_regular,
    kind_of,
    parse_json,
    read_file,
    remove,
    replace_file,
    require_folder,
    require_regular,
    writing,
)

OWN, LOCK = "offline_vi.json", "run.lock"
RECORDS = {  # kind -> the file that shows it where there is no manifest, and keys that the file has
    "run": ("config.json", {"schema", "verb"}),
    "study": ("suite.json", {"schema", "suite", "commands"}),
    "search": ("machine.json", {"precision", "products"}),
    "model": ("card.json", {"format", "model", "sha256"}),
}
CHECKPOINTS = "checkpoints"
OF_A_CHECKPOINT = frozenset({"MANIFEST.json", "model.safetensors", "trainer.safetensors", "state.json"})
STEP = re.compile(r"(damaged-)?step_\d{8,}(\.old)?")
FILES = re.compile(  # of a run, and of the models and runs within it
    r"(offline_vi|config|run|result|failures|nonfinite|card|sweep)\.json|run\.lock|(log|crash)\.txt"
    r"|policy\.(pt2|onnx|ts)(\.json)?|(metrics|episodes|support|results)\.csv|report\.(html|md|tex)"
    r"|(model|rows)\.safetensors|episode-\d+\.webp"
    r"|(learning_curve|exploration|reconstructions|open_loop|traversals|sweep|off_policy)\.png|LATEST"
    r"|\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{6}Z\.json"  # of evaluations
)
WITHIN = {"behavior", "values", "best-steps", "returns", "start", "model", "states", "actions"}  # runs and models
FOLDERS = frozenset({CHECKPOINTS, *WITHIN, "policies", "videos", "evaluations", "tensorboard", "wandb"})
OTHERS = frozenset({"tensorboard", "wandb"})  # written by other packages, whatever is in them


def is_ours(folder: Path, *kinds: str) -> bool:
    """Whether a folder carries the library's manifest, of one of these kinds, or of any."""
    with suppress(ValueError):
        return parse_json(read_file(folder / OWN, MAX_JSON)).get("offline_vi") in (kinds or ALL)
    return any(_records(folder, *RECORDS[kind]) for kind in (kinds or RECORDS) if kind in RECORDS)


ALL = (*RECORDS, "report")


def _records(folder: Path, name: str, keys: set[str]) -> bool:
    with suppress(ValueError):
        return keys <= parse_json(read_file(folder / name, MAX_JSON)).keys()
    return False


def claim(folder: Path, kind: str, names: Iterable[str]) -> None:
    """Make a folder the library's, so that files of these names may be written there; it is made where it is missing.

    Raises OutputDirError where it cannot be written, and what `refuse_others` raises.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_others(folder, names)
        if not is_ours(folder):
            mark(folder, kind)
    except OSError as error:
        raise OutputDirError(f"{folder} cannot be written ({error.strerror})", "choose another folder") from error


def refuse_others(folder: Path, names: Iterable[str]) -> None:
    """Raises OutputDirError where a folder that is not the library's holds a file of one of these names, and where
    something that is no regular file is in the place of one."""
    known = is_ours(folder)
    for name in names:
        require_regular(folder / name)
        if not known and kind_of(folder / name):
            raise OutputDirError(
                f"{folder} holds {name}, and is no folder of this library: it would be overwritten",
                "choose another folder, or move the file away",
            )


def mark(folder: Path, kind: str) -> None:
    """Write the manifest where there is none. Raises CheckpointWriteError."""
    if kind_of(folder / OWN) != "file":
        with writing(folder, 64):
            replace_file(folder / OWN, f'{{"offline_vi": "{kind}"}}\n'.encode())


def strangers(folder: Path) -> list[Path]:
    """What is in a run's folder and was not written by the library: it is never deleted."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        if is_checkpoint(path) or (TEMPORARY.fullmatch(path.name) and kind_of(path) in ("file", "folder")):
            continue
        if is_folder(path) and path.name not in OTHERS:
            known = path.name in FOLDERS or STEP.fullmatch(path.name) or is_ours(path)
            found += strangers(path) if known else [path]
        elif not (FILES.fullmatch(path.name) if is_regular(path) else is_folder(path)):
            found.append(path)
    return found


def is_checkpoint(path: Path) -> bool:
    """Whether all that is in a folder is a checkpoint, damaged or not, with the manifest of one."""
    if not (STEP.fullmatch(path.name) and is_folder(path) and is_regular(path / "MANIFEST.json")):
        return False
    return all(entry.name in OF_A_CHECKPOINT and is_regular(entry) for entry in path.iterdir())


def refuse_in_the_way(folder: Path) -> None:
    """Raises OutputDirError where a link, a pipe or a folder is in the place of one of a run's files, or a file or a
    link in the place of one of its folders."""
    for path in folder.iterdir():
        if FILES.fullmatch(path.name):
            require_regular(path)
        elif path.name in FOLDERS:
            require_folder(path)


# ------------------------------------------------------------------ of a run


def is_run(path: Path) -> bool:
    """Whether a folder is the directory of a run: by its manifest, its config.json, or a checkpoint."""
    return is_ours(path, "run") or any(map(is_checkpoint, (path / CHECKPOINTS).glob("step_*")))


def is_free(path: Path) -> bool:
    """Whether there is nothing in a folder, or the lock of a run that had not begun."""
    names = {entry.name for entry in path.iterdir() if not TEMPORARY.fullmatch(entry.name)}
    if names != {LOCK}:
        return not names
    try:
        return re.fullmatch(rb"( \d+\n)?", read_file(path / LOCK, 64)) is not None
    except ValueError:
        return False
    except OSError:  # whoever holds it on Windows keeps others from reading
        return True


def empty(path: Path) -> None:
    """Remove what a run wrote. Raises RunExistsError where there is anything else, with all of it left."""
    if others := strangers(path):
        names = ", ".join(str(other.relative_to(path)) for other in others[:3])
        raise RunExistsError(f"the run {path} holds {names}, which it did not write", "move it away, or choose another")
    for entry in path.iterdir():
        if entry.name not in (LOCK, OWN):
            remove(entry)


def remove_leftover(path: Path) -> None:
    """A temporary file, or folder of a checkpoint's files; one that holds anything else stays."""
    if TEMPORARY.fullmatch(path.name) and is_folder(path):
        if all(entry.name in OF_A_CHECKPOINT and is_regular(entry) for entry in path.iterdir()):
            remove(path)
    elif TEMPORARY.fullmatch(path.name) and is_regular(path):
        path.unlink()
