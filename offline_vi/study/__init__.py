"""Experiments and studies: what the verbs of the command do, for Python too. Importing this room imports neither torch
nor matplotlib: its functions do, where they need them."""

from __future__ import annotations

from offline_vi.study.benchmark import run_study as run_study
from offline_vi.study.cells import (
    Job as Job,
    Outcome as Outcome,
    is_done as is_done,
    run_cells as run_cells,
    run_job as run_job,
)
from offline_vi.study.checks import check_options as check_options
from offline_vi.study.engines import Engine as Engine, LocalOptions as LocalOptions, RayOptions as RayOptions
from offline_vi.study.names import run_name as run_name
from offline_vi.study.plan import Plan as Plan, plan_study as plan_study
from offline_vi.study.presets import PRESETS as PRESETS, Preset as Preset, choice as choice, preset as preset
from offline_vi.study.report import read_any as read_any, write_report as write_report
from offline_vi.study.results import Method as Method, Run as Run, Study as Study, read_study as read_study
from offline_vi.study.scores import Scores as Scores
from offline_vi.study.scoring import RunScore as RunScore, ScoringOptions as ScoringOptions, score_run as score_run
from offline_vi.study.search import SearchOptions as SearchOptions, run_search as run_search
from offline_vi.study.single_runs import read_runs as read_runs
from offline_vi.study.suite import Cell as Cell, Suite as Suite, read_suite as read_suite, shipped as shipped
