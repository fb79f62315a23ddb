"""Every algorithm in the way of every preset, as works that can be killed: `tables` trains the same ones whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from commands import PENDULUM, goes_on
from fresh import Work
from tables import SEED, TINY, arguments_of, is_refused

from offline_vi.scripts import main
from offline_vi.study.presets import PRESETS


def train(arguments: list[str], path: Path) -> None:
    data = ["--dataset", str(path.parent / PENDULUM), "--seed", f"{SEED}", "--save-every", "2"]
    main(["train", *arguments, *data, *TINY, *goes_on(path)])


WORKS: dict[str, Work] = {
    f"{preset}-{name}": partial(train, arguments)
    for preset in PRESETS
    for name, arguments in arguments_of(preset)
    if not is_refused(f"{preset}: {name}")
}
