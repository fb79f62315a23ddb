"""--print-config: what a command would do, and nothing done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import run
from small_data import pendulum

PROCEDURES = {
    "plas": ("1. fit cvae-published for 500,000 steps, batch 100, Adam at learning rate 0.0001, constant; freeze it",),
    "spot": ("1. fit cvae-published for 100,000 steps, batch 256, Adam at learning rate 0.001, constant; freeze it",),
    "bcq": ("1. jointly, a step each", "Adam at learning rate 0.001", "decoder-means, noise clipped to 0.5"),
    "bear": ("1. jointly, a step each",),
    "td3-bc": ("observations: normalized\n", "1. train td3-bc"),
    "spot --tuned-for antmaze-large-play-v2": ("rewards: r -1\n", "observations: as they are\n", "small-last", "0.025"),
    "spot --tuned-for hopper-medium --behavior-steps 2000": ("2,000 steps (the paper's code: 100,000)", "normalized"),
    "rebrac --tuned-for antmaze-umaze": ("actor_lr          0.0003", "lr                5e-05", "rewards: 100 r\n"),
    "cql --tuned-for antmaze-umaze": ("rewards: 4 r -2\n", "lagrange_threshold 5.0"),
    "iql --tuned-for hopper-medium-v2": ("rewards: 1000 / (largest - smallest return) r\n", "orthogonal"),
    "iql --tuned-for antmaze-umaze-v2": ("rewards: r -1\n",),
    "bc --episode-weights improving --value-steps 70": ("1. fit values for 70 steps", "as many\n", "2. train bc"),
}


@pytest.mark.parametrize("words", PROCEDURES)
def test_the_procedure_is_told_and_nothing_is_done(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, error = run(["train", *words.split(), "--preset", "published", "--print-config"], capsys)
    assert (code, error, list(tmp_path.iterdir())) == (0, "", [])
    for part in PROCEDURES[words]:
        assert part in out, out
    assert "differences from the reference code" in out


def test_a_note_says_which_settings_of_a_preset_another_model_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the flags of the note it is silent, and so it is on the preset's own model."""
    data = pendulum(tmp_path / "toy.hdf5")
    small = ["--hidden", "8", "--batch-size", "8", "--steps", "2", "--behavior-steps", "2", "--eval-every", "0"]
    words = ["train", "bcq", "--preset", "fast", "--dataset", data, *small, "--output", str(tmp_path / "run")]
    mixture = [*words, "--behavior", "mixture", "--overwrite"]
    code, _, error = run(mixture, capsys)
    assert code == 0
    (note,) = [line for line in error.splitlines() if line.startswith("note: ")]
    flags = note[note.index("--proposals") :].split()
    for quiet in ([*mixture, *flags], [*words, "--overwrite"]):
        code, _, error = run(quiet, capsys)
        assert (code, "note: " in error) == (0, False)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["train_options"]["proposals"] == "most-likely"
