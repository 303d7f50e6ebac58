"""Each difference on the page "Migration" has a test, and the page has no row without a test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "migration.md"

WRITER, QUEUE = "unit/test_event_writer.py", "faults/test_disk_events.py"
TORCH = "integration/test_torch_contract.py"
SCHEDULER = "hub/test_scheduler.py"
# One test per row. Suites of other projects run in the lane `peers`.
HELD_BY = {
    "First argument": "hub/test_drop_in.py::test_logdir_is_accepted_by_position_and_by_either_name",
    "Unknown arguments": f"{WRITER}::test_unknown_arguments_are_refused",
    "`max_queue`": f"{WRITER}::test_a_caller_at_the_memory_limit_waits_for_the_disk_and_loses_nothing",
    "Pending events": f"{WRITER}::test_events_reach_the_file_without_flush",
    "`flush()`": f"{WRITER}::test_flush_returns_once_all_earlier_events_are_written_and_synced",
    "Event files": f"{WRITER}::test_a_long_run_is_split_into_segments",
    "Two writers on one folder": f"{WRITER}::test_two_writers_in_one_folder_never_share_a_file",
    "Full or failing disk": f"{QUEUE}::test_at_the_memory_limit_events_are_dropped_and_the_caller_never_waits",
    "`write_to_disk=False`": f"{WRITER}::test_without_write_to_disk_nothing_is_written",
    "Exit without `close()`": "process/test_exit.py::test_a_script_without_a_close_uploads_its_last_scalar",
    "Logging after `close()`": f"{WRITER}::test_a_write_after_close_opens_a_new_file_that_follows_the_first",
    "Forked child": "process/test_event_fork.py::"
    "test_a_child_logs_to_its_own_file_and_the_parents_events_are_written_once",
    "`s3://` and `gs://` logdirs": f"{WRITER}::test_object_storage_is_refused_before_anything_is_written",
    "Names of runs and sub-runs": f"{WRITER}::test_invalid_names_of_sub_runs_are_refused_in_the_call",
    "Numbers": "unit/test_values.py::test_numbers_of_any_kind_and_size_are_logged",
    "Hyperparameters of NumPy's types": "unit/test_summaries.py::"
    "test_numpy_hyperparameters_are_written_like_python_ones",
    "Tensors on the device `meta`": "unit/test_values.py::test_a_tensor_without_values_is_refused_in_the_call",
    "Audio of shape `(1, L)`": "unit/test_values.py::test_mono_audio_is_accepted_in_every_layout",
    "Pixels outside of 0 to 1": "unit/test_values.py::test_pixels_beyond_the_range_are_clipped_as_in_torch",
    "Videos": "unit/test_event_equality.py::test_videos",
    "Tags of scalars, histograms, images and videos": "unit/test_values.py::"
    "test_tags_are_kept_in_the_place_of_torchs_writer",
    "Folders of `add_scalars`": f"{TORCH}::test_add_scalars_has_tensorboardx_folders_and_torchs_values",
    "Tags of `add_mesh`": f"{TORCH}::test_meshes_have_torchs_numbers_under_tensorboardx_names",
    "Tensors on a GPU": "unit/test_device.py::test_a_scalar_on_a_device_is_written_later_without_blocking_the_call",
    "Trackers that patch tensorboardX": "unit/test_hooks.py::test_a_hooked_method_of_the_summary_writer_sees_each_call",
    "Trackers that patch PyTorch's writer": f"{TORCH}::test_hooks_of_torchs_writer_are_not_called",
    "Private attributes": "peers/test_suites.py::test_their_tests_pass_with_our_classes",
    "Class": "hub/test_writer.py::test_the_writer_is_a_summary_writer",
    "Repo creation": "hub/test_writer.py::test_no_request_is_made_before_an_event_is_logged",
    "Uploaded data": f"{SCHEDULER}::test_a_later_scheduler_on_the_folder_uploads_only_new_files",
    "Storage buckets": "hub/test_bucket.py::test_a_writer_pushes_to_a_bucket_and_uploads_the_rest_at_close",
    "Uploaded files": "hub/test_run_state.py::test_the_state_is_running_until_the_last_push_sets_it_to_finished",
    "Two logdirs of one name": "hub/test_run_state.py::test_a_second_process_warns_about_two_logdirs_with_one_name",
    "README.md": "hub/test_operations.py::test_an_existing_repo_gets_no_card",
    "`repo_id`": f"{SCHEDULER}::test_a_repo_without_a_namespace_belongs_to_the_user",
    "Script exit": "process/test_exit.py::test_a_script_without_a_close_uploads_its_last_scalar",
    "Unresponsive Hub": "faults/test_network_hangs.py::test_a_script_ends_on_time_while_the_hub_hangs",
    "Creation of the repo": f"{SCHEDULER}::test_the_constructor_and_an_idle_run_make_no_request",
    "`trigger()`": "unit/test_push_loop.py::test_ten_thousand_triggers_during_a_push_make_one_more",
    "`stop()` and `with`": f"{SCHEDULER}::test_leaving_a_with_block_pushes_the_rest_and_ends_the_thread",
    "`lock`": f"{SCHEDULER}::test_files_are_not_read_while_the_user_holds_the_lock",
    "Restart": f"{SCHEDULER}::test_a_later_scheduler_on_the_folder_uploads_only_new_files",
    "Several processes": "process/test_shared_folder.py::"
    "test_another_process_takes_over_from_a_dead_one_and_sends_nothing_twice",
    "Links to folders": "process/test_cli_sync.py::test_outgoing_links_are_named_by_each_command",
    "A longer file of the same name in the repo": "faults/test_hub_changes.py::"
    "test_a_restart_with_an_empty_disk_keeps_the_longer_file_on_the_hub",
    "Files with credentials": "unit/test_patterns.py::test_files_with_credentials_are_never_included",
    "Squashing": f"{SCHEDULER}::test_squashing_leaves_one_commit_and_the_same_files",
    "README.md of a new repo": "hub/test_operations.py::test_a_new_repo_starts_with_a_card_in_its_first_commit",
    "Failed push": f"{SCHEDULER}::test_without_a_token_one_warning_explains_how_to_log_in",
}


def rows() -> list[list[str]]:
    lines = re.findall(r"^\| (?!---)(.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split(" | ") for line in lines if not line.startswith("|")]  # without the headings


def test_every_difference_has_its_reason_and_its_test() -> None:
    assert {len(cells) for cells in rows()} == {4}
    assert {cells[0] for cells in rows()} == set(HELD_BY)


@pytest.mark.parametrize("row", HELD_BY)
def test_the_test_of_a_difference_exists(row: str) -> None:
    file, _, name = HELD_BY[row].partition("::")
    assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
