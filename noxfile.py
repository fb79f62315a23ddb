"""The oldest and the newest versions that the project supports, side by side: `pip install nox; nox`.

Each session makes an environment (gigabytes, where the index has no small torch), trains and resumes in it, and reads a
run that another version wrote. CI has one set of versions in between.
"""

from __future__ import annotations

import nox

TESTS = [
    "algorithms/test_algorithms",
    "algorithms/test_golden",
    "algorithms/test_bcq",
    "inference/test_bounds",
    "runs/test_checkpoint",
    "scripts/test_cli",
    "data/test_transitions",
    "evaluation/test_evaluate",
    "datasets/test_minari",
    "rl/test_wrappers",
    "training/test_critic_start",
    "training/test_loop",
]


@nox.session
@nox.parametrize(
    ("python", "torch", "numpy", "gymnasium"),
    [
        nox.param("3.11", "2.10.0", "2.0.2", "1.1.1", id="oldest"),
        nox.param("3.12", "2.13.0", "2.2.6", "1.2.3", id="between"),
        nox.param("3.13", "2.15.0", "2.4.6", "1.4.0", id="newest"),
    ],
)
def versions(session: nox.Session, torch: str, numpy: str, gymnasium: str) -> None:
    """Install, train, resume, evaluate, read."""
    session.install(f"torch=={torch}", f"numpy=={numpy}", f"gymnasium=={gymnasium}")
    session.install(".[test]", f"numpy=={numpy}", f"gymnasium=={gymnasium}")
    session.run("python", "-m", "pytest", "-q", *(f"tests/{name}.py" for name in TESTS), *session.posargs)
