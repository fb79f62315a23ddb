"""The cases that the library must survive, the figure asked of each, and the tests that reach it.

The tests count what they did (the fixture ``reached`` of conftest.py) into the file that $OFFLINE_VI_FIGURES names;
``make reliability`` runs them and puts the sums beside what is asked. Nothing is rounded up.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

CASES = "cases passed"  # counted by themselves: every passed test of the row


class Row(NamedTuple):
    """One case."""

    case: str
    asked: dict[str, int]  # what is counted -> how many on every push
    tests: tuple[str, ...]  # "file::function" in tests/, slow ones too
    nightly: Mapping[str, int] = MappingProxyType({})  # what is counted in the slow tests -> how many
    missing: str = ""  # what of the case is not covered, and why


MATRIX: dict[int, Row] = {
    1: Row(
        "SIGKILL at a random time, then resume",
        {
            "kills of BCQ survived": 25,
            "kills of the other algorithms survived": 14,
            "kills of the online loop survived": 5,
            "kills of the command survived": 8,
            "kills of the command of exploration survived": 3,
            "kills of planning from images survived": 3,
        },
        (
            "training/test_kill::test_a_killed_bcq_ends_with_the_same_bytes",
            "training/test_kill::test_the_other_algorithms_killed_end_with_the_same_bytes",
            "training/test_kill::test_a_killed_online_run_ends_with_the_same_bytes",
            "training/test_kill::test_a_killed_command_ends_with_the_same_bytes",
            "training/test_kill::test_a_killed_explorer_ends_with_the_same_bytes",
            "training/test_kill::test_a_killed_planner_ends_with_the_same_bytes",
            "training/test_kill::test_two_hundred_kills",
            "training/test_kill::test_every_preset_of_every_algorithm_killed_ends_with_the_same_bytes",
        ),
        {"kills of all in the slow test survived": 3_200, "kills of presets of algorithms survived": 50},
    ),
    2: Row(
        "SIGTERM, SIGINT",
        {"signals obeyed": 14},
        (
            "training/test_kill::test_a_signal_leaves_a_checkpoint_and_its_exit_code",
            "training/test_loop::test_a_run_interrupted_anywhere_ends_with_the_same_bytes",
            "training/test_online::test_an_interrupted_run_ends_with_the_same_bytes",
        ),
    ),
    3: Row(
        "a kill at every system call of a save",
        {CASES: 2},
        ("runs/test_checkpoint::test_kill_at_every_system_call_of_a_save",),
    ),
    4: Row(
        "disk full",
        {"writers at three sizes, nothing damaged": 18},
        (
            "runs/test_checkpoint::test_disk_full_leaves_everything_as_it_was",
            "training/test_faults::test_a_small_disk_fills_up_and_nothing_is_lost",
        ),
    ),
    5: Row(
        "read-only or impossible directory",
        {CASES: 1},
        (
            "runs/test_checkpoint::test_places_that_cannot_be_written",
            "runs/test_checkpoint::test_read_only_directory",
            "scripts/test_cli::test_a_bad_call_is_one_line_with_its_exit_code",
        ),
    ),
    6: Row(
        "a bit flip in a checkpoint",
        {"flips refused": 200},
        (
            "runs/test_checkpoint::test_bit_flips_and_cuts_are_never_loaded",
            "runs/test_checkpoint::test_every_bit_of_the_manifest_counts",
            "runs/test_checkpoint::test_many_more_flips_are_never_loaded",
        ),
        {"flips refused in the slow test": 5_000},
    ),
    7: Row(
        "a cut checkpoint; missing, extra, foreign files",
        {"cuts refused": 200},
        (
            "runs/test_checkpoint::test_bit_flips_and_cuts_are_never_loaded",
            "runs/test_checkpoint::test_damage_is_named",
            "runs/test_checkpoint::test_links_and_pipes_are_refused_without_waiting",
            "runs/test_checkpoint::test_resume_sets_damaged_checkpoints_aside_and_saves_over_their_steps",
        ),
    ),
    8: Row(
        "hostile safetensors headers",
        {"headers refused": 12, "mutations without a crash": 2_000},
        (
            "runs/test_checkpoint::test_hostile_tensor_files_are_refused_fast_and_small",
            "runs/test_checkpoint::test_mutated_tensor_files_raise_our_error_or_load",
        ),
    ),
    9: Row(
        "a pickle offered as a checkpoint",
        {CASES: 3},
        ("runs/test_checkpoint::test_pickles_are_refused_and_do_not_run",),
    ),
    10: Row("a cut HDF5 file", {"cuts refused": 100}, ("datasets/test_hostile_data::test_cut_files_are_refused",)),
    11: Row(
        "a bit flip in an HDF5 file",
        {"flips without a crash or a silent change": 400},
        (
            "datasets/test_hostile_data::test_flipped_bits_are_refused_or_harmless",
            "datasets/test_hostile_data::test_a_damaged_array_is_named",
            "datasets/test_hostile_data::test_a_known_hash_finds_every_flip_in_arrays_as_they_are",
            "datasets/test_hostile_data::test_hashes_find_what_the_format_cannot",
        ),
    ),
    12: Row(
        "HDF5 links, foreign storage, loops, odd types",
        {CASES: 10},
        (
            "datasets/test_hostile_data::test_attacks_are_refused_and_nothing_else_is_opened",
            "datasets/test_hostile_data::test_the_watch_on_foreign_files_sees_what_hdf5_opens",
        ),
    ),
    13: Row("HDF5 bombs", {CASES: 2}, ("datasets/test_hostile_data::test_bombs_are_refused_before_memory_is_taken",)),
    14: Row(
        "hostile Minari metadata",
        {CASES: 8},
        (
            "datasets/test_minari::test_hostile_metadata_are_refused_and_nothing_runs",
            "datasets/test_minari::test_names_do_not_leave_the_root",
            "datasets/test_minari::test_links_do_not_leave_the_root",
            "datasets/test_minari::test_the_marker_appears_where_minari_is_asked_directly",
        ),
    ),
    15: Row(
        "missing keys, wrong shapes, lengths that differ",
        {"examples": 1_000},
        (
            "data/test_transitions::test_only_our_errors_escape_malformed_columns",
            "data/test_transitions::test_lengths_are_named",
            "datasets/test_hostile_data::test_shapes_are_checked_before_reading",
        ),
    ),
    16: Row(
        "NaN and infinities in the data",
        {CASES: 3},
        (
            "data/test_transitions::test_nonfinite_entries_are_counted_and_located",
            "data/test_transitions::test_next_observations_matter_only_where_they_are_read",
            "data/test_transitions::test_flags_are_finite",
        ),
    ),
    17: Row(
        "actions out of bounds",
        {CASES: 3},
        (
            "data/test_transitions::test_actions_just_beyond_the_bounds_are_clipped_with_a_count",
            "data/test_transitions::test_actions_far_beyond_are_refused_clipped_or_mapped",
            "data/test_transitions::test_a_constant_action_can_be_mapped",
        ),
    ),
    18: Row(
        "actions on the bounds",
        {CASES: 2},
        (
            "data/test_transitions::test_actions_on_the_bounds_are_left_alone",
            "distributions/test_distributions::test_tanh_normal_of_saturated_actions",
        ),
    ),
    19: Row(
        "timeouts against terminals, in both row modes",
        {"data sets in d4rl mode": 2_000, "data sets in strict mode": 2_000},
        (
            "data/test_transitions::test_d4rl_rows_are_those_of_a_row_by_row_reading",
            "data/test_transitions::test_strict_rows_never_cross_an_episode",
            "data/test_transitions::test_d4rl_itself_agrees",
        ),
    ),
    20: Row(
        "the next observation of the last row",
        {CASES: 2},
        (
            "data/test_transitions::test_next_observations_of_the_last_row_are_used_in_strict_mode_only",
            "data/test_transitions::test_strict_rows_never_cross_an_episode",
        ),
    ),
    21: Row(
        "terminal and timeout on one row",
        {CASES: 2},
        (
            "data/test_transitions::test_rows_that_are_terminal_and_timeout_are_counted",
            "data/test_transitions::test_strict_rows_never_cross_an_episode",
        ),
    ),
    22: Row(
        "no timeouts key",
        {CASES: 3},
        (
            "data/test_transitions::test_without_timeouts_the_task_gives_the_length_else_it_is_asked_for",
            "data/test_transitions::test_d4rl_rows_are_those_of_a_row_by_row_reading",
            "data/test_transitions::test_d4rl_itself_agrees",
            "datasets/test_datasets::test_info_splits_by_length_where_there_are_no_timeouts",
        ),
    ),
    23: Row(
        "empty data, one-step episodes, no end",
        {CASES: 2},
        (
            "data/test_transitions::test_one_step_episodes_and_empty_data",
            "datasets/test_minari::test_empty_episodes_are_skipped",
        ),
    ),
    24: Row(
        "Minari's T + 1 observations",
        {"episodes": 200},
        ("datasets/test_minari::test_every_next_observation_is_the_true_one",),
    ),
    25: Row(
        "data and environment disagree",
        {CASES: 8},
        (
            "evaluation/test_evaluate::test_spaces_that_differ_name_both_sides",
            "scripts/test_cli::test_bad_data_is_one_line_before_the_first_step",
        ),
    ),
    26: Row(
        "types and byte orders",
        {CASES: 2},
        (
            "data/test_transitions::test_every_numeric_type_becomes_float32",
            "data/test_transitions::test_rounding_that_matters_is_reported",
        ),
    ),
    27: Row(
        "a constant feature", {CASES: 1}, ("data/test_transitions::test_constant_features_are_named_and_stay_finite",)
    ),
    28: Row(
        "a run directory that exists",
        {CASES: 3},
        (
            "runs/test_checkpoint::test_an_existing_run_is_kept_resumed_or_replaced",
            "runs/test_checkpoint::test_overwrite_never_empties_what_is_no_run",
            "runs/test_checkpoint::test_overwrite_does_not_follow_links",
        ),
    ),
    29: Row(
        "two processes, one run directory",
        {"races won by exactly one": 50},
        ("runs/test_checkpoint::test_of_two_at_once_one_wins",),
    ),
    30: Row(
        "many runs at once",
        {"processes": 20, "runs side by side in one directory": 50},
        (
            "runs/test_checkpoint::test_twenty_processes_one_winner",
            "training/test_faults::test_fifty_runs_in_one_directory_at_once",
        ),
    ),
    31: Row(
        "an environment that crashes during evaluation",
        {CASES: 12},
        (
            "evaluation/test_evaluate::test_an_environment_that_crashes_once_costs_nothing",
            "evaluation/test_evaluate::test_episodes_that_crash_twice_fail_and_are_in_no_mean",
            "evaluation/test_evaluate::test_all_episodes_failing_is_an_error",
            "training/test_faults::test_ten_thousand_episodes_leave_neither_memory_nor_handles_behind",
        ),
        {"episodes without growth": 10_000},
        missing="environments run in the process of the evaluation: one that kills its process or hangs kills or "
        "hangs the run, which is then resumed (row 1)",
    ),
    32: Row(
        "an environment that returns NaN or wrong shapes",
        {CASES: 4},
        ("evaluation/test_misbehaving::test_impossible_values_cost_their_episode_alone",),
    ),
    33: Row(
        "a NaN action of the policy",
        {CASES: 1},
        (
            "evaluation/test_evaluate::test_an_action_that_is_not_finite_never_reaches_the_environment",
            "training/test_online::test_a_policy_that_diverged_is_told_before_the_environment_sees_it",
        ),
    ),
    34: Row(
        "a loss that is not finite",
        {CASES: 2},
        (
            "training/test_loop::test_a_loss_that_is_not_finite_stops_within_a_hundred_steps",
            "training/test_loop::test_weights_that_are_not_finite_are_never_saved",
            "training/test_faults::test_a_poisoned_row_stops_training_and_is_in_the_dump",
        ),
    ),
    35: Row(
        "a data set larger than the memory budget",
        {"megabytes in a file with a budget of 30": 290},
        (
            "datasets/test_mapped::test_a_file_ten_times_the_budget_trains_within_it",
            "datasets/test_mapped::test_the_rows_are_those_of_the_file_read_whole",
            "datasets/test_mapped::test_a_conversion_that_dies_leaves_nothing_and_the_next_one_goes_through",
        ),
    ),
    36: Row("device memory runs out", {CASES: 1}, ("training/test_faults::test_memory_that_ran_out_is_one_line",)),
    37: Row(
        "the same seed twice",
        {"algorithms": 15, "agents of two interpreters": 180},
        (
            "training/test_determinism::test_the_same_seed_gives_the_same_bytes_and_another_one_others",
            "training/test_same_bytes::test_two_interpreters_end_with_the_same_bytes",
        ),
    ),
    38: Row(
        "other seeds",
        {"algorithms": 15},
        ("training/test_determinism::test_the_same_seed_gives_the_same_bytes_and_another_one_others",),
    ),
    39: Row(
        "other threads, versions, device on resume",
        {CASES: 2},
        (
            "training/test_determinism::test_another_number_of_threads_is_told_on_resume",
            "training/test_determinism::test_the_command_refuses_to_resume_otherwise_where_it_is_told_to",
        ),
    ),
    40: Row(
        "evaluation beside 1, 3, 8, ... environments",
        {CASES: 2},
        ("evaluation/test_evaluate::test_the_same_bytes_however_many_environments",),
    ),
    41: Row(
        "evaluation does not disturb training",
        {CASES: 2},
        (
            "training/test_loop::test_evaluating_does_not_disturb_training",
            "evaluation/test_evaluate::test_training_is_not_disturbed",
        ),
    ),
    42: Row(
        "hash seed, locale, time zone, working directory",
        {"settings": 4},
        ("training/test_determinism::test_the_surroundings_do_not_matter",),
    ),
    43: Row(
        "other versions of Python and libraries",
        {CASES: 1},
        ("algorithms/test_golden::test_a_run_of_format_1_acts_as_it_did",),
        missing="CI has one set of versions; noxfile.py names the oldest and the newest, whose tests passed on "
        "2026-11-24: Python 3.11, torch 2.10.0, NumPy 2.0.2, gymnasium 1.1.1; 3.13, 2.15.0, 2.4.6, 1.4.0. On "
        "2026-11-28 all tests passed on Python 3.12 with torch 2.11.0, those of noxfile.py on 3.13 with torch "
        "2.14.1 and NumPy 2.5.5",
    ),
    44: Row(
        "optional packages missing",
        {CASES: 8},
        (
            "training/test_faults::test_a_package_that_is_absent_is_named_with_its_extra",
            "datasets/test_minari::test_without_a_network_the_path_is_told",
            "evaluation/test_evaluate::test_a_missing_package_names_its_extra",
            "study/test_sinks::test_a_missing_package_is_one_line",
            "behavior/test_models::test_without_its_package_a_flow_says_what_to_install",
        ),
    ),
    45: Row(
        "help answers fast and without torch",
        {CASES: 5},
        (
            "scripts/test_cli::test_help_is_fast_where_torch_is_not_needed",
            "house/test_house::test_importing_the_package_and_listing_names_imports_no_torch",
        ),
    ),
    46: Row(
        "no network",
        {CASES: 2},
        (
            "datasets/test_datasets::test_without_a_network_the_path_is_told",
            "datasets/test_minari::test_without_a_network_the_path_is_told",
        ),
    ),
    47: Row(
        "a download that breaks off or has another hash",
        {CASES: 20},
        (
            "datasets/test_datasets::test_no_cut_leaves_a_bad_file",
            "datasets/test_datasets::test_a_wrong_hash_leaves_nothing",
            "datasets/test_datasets::test_broken_connections_are_resumed",
        ),
    ),
    48: Row(
        "gradients of bounds and discrepancies",
        {CASES: 5},
        (
            "inference/test_bounds::test_oracle_gradients_against_finite_differences",
            "inference/test_bounds::test_every_estimator_has_the_gradient_of_the_elbo",
            "distributions/test_distributions::test_kl_of_normals_against_the_closed_form",
            "distributions/test_distributions::test_gradient_of_log_mean_exp_is_the_softmax",
            "rl/test_equations::test_mmd_pair_by_pair",
        ),
    ),
    49: Row(
        "CPU against GPU",
        {},
        (),
        missing="CI has no GPU; `benchmarks/device.py --parts agree` on an H200, 2026-11-28: losses of 100 steps to "
        "4e-15 in float64, to 1e-5 in float32, to 1e-2 for BCQ as published (speed.md)",
    ),
    50: Row("compiled losses on and off, on a GPU", {}, (), missing="losses are not compiled any more: no gain"),
    51: Row(
        "a tensor of another name, shape or dtype in a checkpoint that its manifest vouches for",
        {"tensors changed": 60},
        ("runs/test_hostile_files::test_any_tensor_of_another_name_shape_or_dtype_is_refused",),
    ),
    52: Row(
        "links, pipes, folders, foreign, cut or missing files in the place of any file of a run",
        {"files replaced": 100},
        ("runs/test_hostile_files::test_anything_in_the_place_of_any_file",),
    ),
}

START, END = "<!-- figures -->", "<!-- /figures -->"


def counted(lines: str) -> tuple[Counter[tuple[int, str]], Counter[str]]:
    """(figures by row and what, passed tests by "file::function") of a file that tests wrote."""
    figures: Counter[tuple[int, str]] = Counter()
    passed: Counter[str] = Counter()
    for record in map(json.loads, lines.splitlines()):
        if "row" in record:
            figures[record["row"], record["what"]] += record["figure"]
        else:
            passed[record["passed"]] += 1
    return figures, passed


def table(figures: Mapping[tuple[int, str], int], passed: Mapping[str, int]) -> str:
    """Markdown: what is asked, what was reached, what falls short or is missing."""
    lines = ["| # | case | asked, at least | reached | |", "|---|---|---|---|---|"]
    for number, row in MATRIX.items():
        asked, reached, remarks = [], [], [row.missing] if row.missing else []
        for what, least in [*row.asked.items(), *row.nightly.items()]:
            found = sum(passed.get(test, 0) for test in row.tests) if what == CASES else figures.get((number, what), 0)
            asked.append("1 case passed" if (least, what) == (1, CASES) else f"{least:,} {what}")
            reached.append(f"{found:,}" if found else "not run")
            if found < least:
                remarks.append(f"**short of {least:,} {what}**")
        cells = [str(number), row.case, "; ".join(asked), "; ".join(reached), "; ".join(remarks)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Without arguments: the tests of the matrix, for pytest. With a file of figures and a page: the table in it."""
    if len(sys.argv) == 1:
        tests = {f"tests/{test.replace('::', '.py::')}" for row in MATRIX.values() for test in row.tests}
        print(*sorted(tests))
        return
    figures, page = Path(sys.argv[1]), Path(sys.argv[2])
    before, _, rest = page.read_text().partition(START)
    _, _, after = rest.partition(END)
    made = f"Figures of {time.strftime('%Y-%m-%d')}. `make test-slow` makes them anew, `make reliability` some of them."
    page.write_text(f"{before}{START}\n{made}\n\n{table(*counted(figures.read_text()))}\n{END}{after}")


if __name__ == "__main__":
    main()
