"""The house itself: links, packaging, floors, lazy names."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

import offline_vi

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["algorithms", "datasets", "scripts"])
def test_the_links_into_the_package_resolve(name: str) -> None:
    link = ROOT / "offline_vi" / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / name
    assert (ROOT / name / "__init__.py").is_file()


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True, timeout=120
    )
    return done.stdout.strip()


def test_importing_the_package_and_listing_names_imports_no_torch() -> None:
    code = (
        "import sys, offline_vi, offline_vi.registry as r, offline_vi.algorithms as a, offline_vi.behavior as b;"
        "import offline_vi.scripts as s;"
        "r.trainable(), r.behavior_models(), dir(a), dir(b), s.usage(), dir(offline_vi);"
        "print(sorted({'torch', 'gymnasium', 'matplotlib', 'minari'} & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


def test_every_public_name_resolves() -> None:
    for name in dir(offline_vi):
        assert getattr(offline_vi, name) is not None
    with pytest.raises(AttributeError, match="fits"):
        getattr(offline_vi, "fits")  # noqa: B009


def test_checked_protocols_ask_for_methods_alone() -> None:
    """From Python 3.12 on, isinstance does not see attributes that a module finds by `__getattr__`, as its parts."""
    for module in pkgutil.walk_packages(offline_vi.__path__, "offline_vi."):
        for kind in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(kind) and getattr(kind, "_is_runtime_protocol", False):
                own = [annotated for base in kind.__mro__ for annotated in vars(base).get("__annotations__", {})]
                assert not own, kind


def test_public_functions_are_not_hidden_by_modules_of_the_same_name() -> None:
    assert (
        run_python("import offline_vi.training, offline_vi.evaluation, offline_vi as o; print(callable(o.fit))")
        == "True"
    )


@pytest.mark.slow
def test_the_wheel_works_in_a_fresh_environment_outside_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)  # it would be found before what is installed
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(ROOT)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True, system_site_packages=False)
    python = tmp_path / "env" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, "torch"], check=True, timeout=900, cwd=tmp_path)
    subprocess.run([*pip, str(wheel)], check=True, timeout=900, cwd=tmp_path)
    command = str(tmp_path / "env" / "bin" / "offline-vi")
    info = subprocess.run([command, "info"], check=True, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert str(tmp_path / "env") in info.stdout
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('algorithms', 'datasets', 'scripts')])"
    found = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.strip() == "[None, None, None]"
    subprocess.run(
        [
            command,
            "train",
            "bcq",
            "--dataset",
            "offline-vi/pendulum/mixed-v0",
            "--steps",
            "100",
            "--eval-episodes",
            "1",
        ],
        check=True,
        timeout=600,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
