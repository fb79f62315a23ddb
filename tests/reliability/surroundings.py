"""A small training in surroundings that lack something: each in a fresh interpreter, through a shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from small_data import pendulum

SMALL = "--hidden 8 --batch-size 8 --steps 20 --log-every 5 --eval-every 10 --eval-episodes 1 --max-episode-steps 20"
TRAIN = f"{sys.executable} -m offline_vi train bc --dataset p.hdf5 --env Pendulum-v1 {SMALL} --output"
MADE = TRAIN.replace("p.hdf5", "offline-vi/pendulum/mixed-v0")
LARGE = TRAIN.replace("--hidden 8", "--hidden 20000 20000")
ASCII = "LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"
OTHER_USER = "setpriv --reuid 12345 --regid 12345 --clear-groups"  # as containers run; asks for root
DISKS = (8, 16, 24, 32, 36, 40, 44, 48, 52, 56, 60, 64, 72, 80, 88, 96, 104, 112, 128, 144, 160)  # kilobytes
SIZES = (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 160)  # kilobytes of a file

SURROUNDINGS: dict[str, str] = {
    "standard error closed": f"{TRAIN} run 2>&-",
    "all streams closed": f"{TRAIN} run <&- >&- 2>&-",
    "output that nobody reads: 2>&1 | head -1": f"set -o pipefail; {TRAIN} run 2>&1 | head -1",
    "standard error on a full disk": f"{TRAIN} run 2>/dev/full",
    "standard output on a full disk": f"{TRAIN} run >/dev/full",
    "a terminal that goes away": f"{sys.executable} -m terminal {TRAIN} run",
    "no home": f"env -u HOME {OTHER_USER} {TRAIN} run -q",
    "a home that cannot be written, another user": f"HOME=/nonexistent {OTHER_USER} {TRAIN} run -q",
    "no home, data that have to be made": f"env -u HOME {OTHER_USER} {MADE} run",
    "an ASCII locale": f"{ASCII} {TRAIN} run",
    "a name with $ and ^": f"{TRAIN} 'run$x^$'",
    "a name of Latin-1 bytes": f"{TRAIN} $'run\\xe9'",
    "a name of 250 letters": f"{TRAIN} run{'x' * 247}",
    "a name of 300 letters": f"{TRAIN} run{'x' * 297}",
    "1.5 GB of memory, networks of 3 GB": f"ulimit -v 1500000; {LARGE} run",
    "20 open files": f"ulimit -n 20; {TRAIN} run",
    **{f"files of at most {size} KB": f"ulimit -f {size}; {TRAIN} run" for size in SIZES},
}


class Outcome(NamedTuple):
    """Of a surrounding."""

    code: int
    status: str  # of run.json; empty where there is no run
    word: str  # the error, or the last line


def outcome(name: str, folder: Path) -> Outcome:
    """Train there."""
    folder.mkdir()
    folder.chmod(0o777)
    pendulum(folder / "p.hdf5")
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    variables |= {"OFFLINE_VI_PRODUCTS": "highest", "MPLCONFIGDIR": str(folder / ".matplotlib")}
    command = ["bash", "-c", SURROUNDINGS[name]]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, timeout=600)
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert not any(line.startswith("Traceback") for line in lines), "\n".join(lines)
    runs = [path for path in folder.glob("run*") if (path / "run.json").exists()]
    status = str(json.loads((runs[0] / "run.json").read_text())["status"]) if runs else ""
    shutil.rmtree(folder, ignore_errors=True)
    return Outcome(done.returncode, status, (errors or [""])[0])


def mounts() -> bool:
    """Whether this user may have a disk of his own, in memory."""
    return shutil.which("unshare") is not None and (
        subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True).returncode == 0
    )


def on_a_disk(kilobytes: int, folder: Path) -> tuple[int, int, str]:
    """Train with a row cache and a run on a disk of that size, then once more where it has become large enough: the two
    exit codes, and the digest of the final policy."""
    folder.mkdir()
    pendulum(folder / "p.hdf5")
    train = TRAIN.replace("--output", "--memory-budget 1 --output disk/run")
    script = f"""
    mkdir disk; mount -t tmpfs -o size={kilobytes}k tmpfs disk
    {train}; first=$?
    mount -o remount,size=100m disk
    {train} || {train} --resume; second=$?  # what the first of them says, where there is a run
    echo $first $second $(sha256sum < disk/run/checkpoints/step_00000020/model.safetensors) >&3
    """
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    variables |= {"OFFLINE_VI_PRODUCTS": "highest", "OFFLINE_VI_HOME": str(folder / "disk" / "home")}
    command = ["unshare", "-rm", "bash", "-c", f"exec 3>&1 1>&2; {script}"]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, timeout=600, text=True)
    assert "Traceback" not in done.stderr, done.stderr
    first, second, digest, *_ = done.stdout.split()
    return int(first), int(second), digest
