"""Expected failures: one class per thing a user can do about it.

Each carries the exit code of the command and a hint. The command prints ``error: MESSAGE`` and ``hint: HINT`` and
shows no traceback; in Python the hint is a note of the exception, which a traceback shows. Anything that is not an
`OfflineVIError` is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class OfflineVIError(Exception):
    """Base of every expected failure. ``hint`` is one line that says what to do."""

    exit_code: int = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        if hint:
            self.add_note(f"hint: {hint}")  # which a traceback shows


# ------------------------------------------------------------------ the call is wrong


class UsageError(OfflineVIError):
    """An unknown verb, algorithm, model, data set or an impossible combination of flags."""

    exit_code = 2


def unknown(name: str, known: Iterable[str], kind: str) -> UsageError:
    """The one-line error for an unknown name, with the nearest valid one."""
    known = list(known)
    names = [repr(other) if "," in other else other for other in known]
    swapped = [other for other in known if sorted(other) == sorted(name)]  # "bqc" is "bcq" rather than "bc"
    close = swapped or get_close_matches(name, known, n=1)
    return UsageError(
        f"unknown {kind} {name!r}", f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(names)}"
    )


class ConfigError(OfflineVIError):
    """A configuration file or a hyper-parameter cannot be used."""

    exit_code = 78


class CapabilityError(ConfigError):
    """An algorithm was given a behavior model of the wrong type."""


# ------------------------------------------------------------------ the data are wrong


class DataError(OfflineVIError):
    """The data set cannot be used as it is."""

    exit_code = 65


class DatasetCorruptError(DataError):
    """A file is truncated, damaged or does not have the expected hash: get it again."""


class UnsafeDatasetError(DataError):
    """A file asks for something that a data set has no business with: do not open it."""


class DatasetFormatError(DataError):
    """Keys, shapes or types are not those of a data set: convert it."""


class DatasetTooLargeError(DataError):
    """A file declares more than the memory budget or than its size can hold: raise the budget or distrust it."""


class NonFiniteDataError(DataError):
    """NaN or infinity in the data: repair them (``--on-nonfinite drop-episode``, ``split`` or ``hold``)."""


class ActionRangeError(DataError):
    """Actions outside [-1, 1]: choose ``--action-range clip`` or ``data``. Or labels where amounts are expected."""


class EmptyDatasetError(DataError):
    """No transition is left."""


class SpaceMismatchError(DataError):
    """Observation or action space of data set, model and environment disagree."""


class MissingInputError(OfflineVIError):
    """A file, a run or a data set is not there."""

    exit_code = 66


# ------------------------------------------------------------------ the machine lacks something


class MissingDependencyError(OfflineVIError):
    """An optional package is missing: install the extra that the hint names."""

    exit_code = 69


class OfflineError(OfflineVIError):
    """The network is needed and cannot be reached: put the file where the hint says."""

    exit_code = 69


class OutOfMemoryError(OfflineVIError):
    """Memory ran out: a smaller batch, another device."""

    exit_code = 71


class SystemRefusal(OfflineVIError):
    """The system refused to read, write or start something: no space, no permission, too many open files."""

    exit_code = 74


def memory_error(error: BaseException) -> OutOfMemoryError | None:
    """What an allocation that failed is told as; None for any other error. Torch has no class for it on the CPU, and
    the code in Rust that writes tensors panics."""
    named = type(error).__name__ == "OutOfMemoryError"
    said = any(words in str(error) for words in ("DefaultCPUAllocator", "PyObject pointer is null"))
    if not (isinstance(error, MemoryError) or named or said):
        return None
    return OutOfMemoryError("memory ran out", "lower --batch-size or the sizes of networks, or use --device cpu")


# ------------------------------------------------------------------ training and evaluation


class NonFiniteLossError(OfflineVIError):
    """A loss became NaN or infinite: lower the learning rate, look at the dumped batch."""

    exit_code = 70


class EnvError(OfflineVIError):
    """An environment returned something impossible, or the policy gave it such an action."""

    exit_code = 70


class EvaluationError(OfflineVIError):
    """An evaluation could not be finished."""

    exit_code = 70


class Interrupted(OfflineVIError):
    """A signal asked for the end (`stopping`), at a step of so many. ``saved`` is the step of the newest checkpoint, 0
    without one, None where nothing is kept at all: that of every gradient step that was done, except in an online run,
    which saves at its regular points alone."""

    def __init__(
        self, signum: int, step: int | None = None, steps: int | None = None, *, saved: int | None = None
    ) -> None:
        self.signum, self.step, self.steps, self.saved = signum, step, steps, saved
        self.exit_code = 128 + signum
        self.doing = ""  # what was going on, e.g. "training bcq"
        self.ahead = False  # whether the run holds parts that were fitted before
        self.history: Any = None  # `training.History` up to then, where the training loop was stopped
        super().__init__(self._message(), "--resume continues from there" if saved else "")

    def during(self, doing: str, *, ahead: bool = False) -> None:
        """Say what was going on, unless something within it has said so."""
        if not self.doing:
            self.doing, self.ahead = doing, ahead
            self.args = (self._message(),)

    def _message(self) -> str:
        doing = f" while {self.doing}" if self.doing else ""
        at = "" if self.step is None else f"{',' if doing else ''} at step {self.step:,}"
        of = f" of {self.steps:,}" if at and self.steps is not None else ""
        return f"interrupted{doing}{at}{of}{self._kept()}"

    def _kept(self) -> str:
        if self.saved is None:
            return ""
        if not self.saved:
            return "; none of its steps is saved yet" + (", what was fitted before is" if self.ahead else "")
        if self.saved == self.step:
            return "; everything up to there is saved"
        return f"; the newest checkpoint is of step {self.saved:,}"


class ExportError(OfflineVIError):
    """An exported policy does not do what its agent does; the file is removed."""

    exit_code = 70


class StudyError(OfflineVIError):
    """Some cells of a study failed; the others are done. Their errors are listed: mend them and run it again."""

    exit_code = 70


# ------------------------------------------------------------------ runs and checkpoints


class RunExistsError(OfflineVIError):
    """The run directory is in use already: ``--resume`` or ``--overwrite``."""

    exit_code = 73


class OutputDirError(OfflineVIError):
    """The output directory cannot be created or written."""

    exit_code = 73


class CheckpointWriteError(OfflineVIError):
    """A checkpoint could not be written (disk full); the one before it is intact."""

    exit_code = 74


class RunLockedError(OfflineVIError):
    """Another process works in this run directory."""

    exit_code = 75


class CheckpointCorruptError(OfflineVIError):
    """A checkpoint's files do not match its manifest."""

    exit_code = 65


class UnsafeCheckpointError(OfflineVIError):
    """A file that could run code (pickle) was offered as a checkpoint: refused."""

    exit_code = 65


class NoCheckpointError(MissingInputError):
    """The run directory holds no complete checkpoint."""


# ------------------------------------------------------------------ warnings: counted, never silent


def counted(number: int, one: str) -> str:
    """A number and what it counts, for messages: "1 row", "3,000 rows"."""
    return f"{number:,} {one}{'' if number == 1 else 's'}"


class OfflineVIWarning(UserWarning):
    """Base of the library's warnings."""


class DataWarning(OfflineVIWarning):
    """The data were repaired or are known to be odd; the message counts what was touched."""


class DeterminismWarning(OfflineVIWarning):
    """A resumed run will not be bit-identical: threads, device or versions changed."""


class GraphWarning(OfflineVIWarning):
    """An update could not be captured as one program; it runs as it is written, to the same end."""


class InterruptedWarning(OfflineVIWarning):
    """Ctrl-C ended a training in Python: what was trained until then is returned."""


class CheckpointWarning(OfflineVIWarning):
    """A damaged checkpoint was passed over."""


class ReportWarning(OfflineVIWarning):
    """A picture or a table could not be made; the run that it shows is whole."""


class EvaluationWarning(OfflineVIWarning):
    """Something odd in an evaluation: actions outside the box, failed episodes."""
