"""Every kind of fault that was once found has at least three members among the tests; named here, and the tests are there."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FAULTS = {
    "names and paths that leave the run's folder": (
        "taxlens/test_provenance.py::test_a_name_of_dots_or_a_path_upwards_never_takes_a_folder_that_has_something",
        "taxlens/test_provenance.py::test_a_stage_removes_what_it_wrote_before_and_nothing_else",
        "taxlens/test_bad_inputs.py::test_settings",
        "core/test_durability.py::test_a_directory_over_a_link_to_nothing_is_refused_in_words",
    ),
    "two pairs, item sets or settings in one folder": (
        "taxlens/test_provenance.py::test_a_run_is_not_gone_on_with_from_something_else",
        "taxlens/test_provenance.py::test_an_input_that_became_another_makes_its_readers_stale_and_resume_does_them_again",
        "taxlens/test_provenance.py::test_the_embedded_pair_with_other_weights_is_refused_end_to_end",
        "analysis/features/test_dictionary_training.py::test_a_dictionary_of_another_recipe_corpus_or_pair_is_trained_anew",
    ),
    "damage that is taken over": (
        "taxlens/test_provenance.py::test_a_damaged_table_is_made_again_and_never_hashed_as_it_is",
        "taxlens/test_frontier_commands.py::test_damaged_effects_and_plans_that_a_killed_frontier_kept_are_refused",
        "activations/store/test_resume.py::test_damaged_shard_is_captured_again_on_resume",
        "core/test_plain_files.py::test_flipped_bits_and_cuts_of_our_tensors_are_refused_or_harmless",
    ),
    "verify that passes what is not whole": (
        "taxlens/test_provenance.py::test_verify_fails_on_what_is_not_finished",
        "taxlens/test_provenance.py::test_run_json_is_sealed_and_every_edit_is_found",
        "taxlens/test_provenance.py::test_the_log_is_verified",
        "taxlens/test_frontier_commands.py::test_a_restored_checkpoint_that_was_changed_is_found_by_verify_and_by_loading_it",
    ),
    "a checkpoint's code": (
        "activations/models/test_foreign_code.py",
        "conftest.py::nothing_foreign",
        "taxlens/test_bad_inputs.py::test_checkpoints",
    ),
    "writing before the lock, or without it": (
        "taxlens/test_provenance.py::test_a_second_process_is_refused_before_it_writes_anything",
        "taxlens/test_provenance.py::test_verify_fails_while_a_process_works_there_and_writes_nothing",
        "taxlens/test_runs.py::test_two_processes_cannot_hold_one_folder",
        "activations/store/test_resume.py::test_second_process_in_one_folder_is_refused_and_the_first_one_named",
    ),
    "tracebacks": (
        "taxlens/test_bad_inputs.py::test_items",
        "taxlens/test_bad_inputs.py::test_what_nobody_foresaw_is_one_screen_and_its_traceback_a_file",
        "taxlens/test_bad_files.py::test_dictionaries",
        "taxlens/test_bad_files.py::test_adapters",
        "taxlens/test_bad_files.py::test_logs",
    ),
    "templates without end": (
        "taxlens/test_bad_inputs.py::test_chat_templates",
        "fuzz/test_fuzz_readers.py::test_noise_is_read_or_refused",
        "fuzz/test_fuzz_readers.py::test_damaged_files_are_read_or_refused",
    ),
    "JSON, YAML, CSV and numbers without limits": (
        "core/test_json_text.py",
        "taxlens/test_bad_inputs.py::test_configs",
        "taxlens/test_bad_inputs.py::test_tables",
        "taxlens/test_bad_files.py::test_corpora",
        "taxlens/test_bad_files.py::test_labelled_answers",
        "core/test_plain_files.py::test_hostile_arrays_are_refused",
    ),
    "stores that reach outside": (
        "activations/store/test_hostile.py::test_a_shard_whose_rows_are_not_its_own_is_refused",
        "activations/store/test_hostile.py::test_checksums_that_lie_elsewhere_are_refused",
        "activations/store/test_hostile.py::test_a_sealed_manifest_that_no_capture_writes_is_refused",
        "activations/store/test_hostile.py::test_a_shard_that_the_manifest_misdescribes_is_refused",
    ),
    "what stopped processes leave": (
        "core/test_durability.py::test_leftovers_of_this_machine_go_and_those_of_others_stay",
        "taxlens/test_provenance.py::test_what_a_killed_stage_had_begun_is_removed_by_the_next_pass_and_never_read",
        "taxlens/test_interrupts.py::test_a_process_that_is_terminated_says_so",
    ),
    "signals": (
        "taxlens/test_interrupts.py::test_a_signal_cancels_the_run_and_is_told_with_how_to_go_on",
        "taxlens/test_interrupts.py::test_a_process_that_is_terminated_says_so",
        "taxlens/test_runs.py::test_an_interrupted_run_is_cancelled",
    ),
    "power cuts and modes": (
        "core/test_durability.py::test_no_power_cut_leaves_half_a_file_or_loses_one_that_was_reported",
        "core/test_durability.py::test_modes_follow_the_umask_whatever_a_library_makes",
        "core/test_durability.py::test_a_shard_is_flushed_named_and_lasting_before_the_manifest_lists_it",
        "core/test_durability.py::test_a_directory_is_complete_or_absent_after_every_cut",
    ),
    "full disks": (
        "taxlens/test_frontier_commands.py::test_restore_on_a_full_disk_says_so_and_leaves_nothing",
        "activations/store/test_direct.py",
        "activations/capture/test_capture.py",
    ),
    "certainty where nothing is known": (
        "core/stats/test_edges.py::test_one_group_has_no_interval_and_several_have",
        "core/stats/test_edges.py::test_equivalence_of_unchanged_groups_rests_on_how_many_there_are",
        "core/stats/test_edges.py::test_shares_of_rounding_are_not_numbers",
        "core/stats/test_edges.py::test_intervals_of_rounding_hold_zero_and_others_stay",
        "analysis/tax/test_ledger_columns.py::test_one_group_has_no_interval_and_says_so",
    ),
    "markup and control characters": (
        "taxlens/test_bad_inputs.py::test_a_name_with_markup_is_printed_as_it_is",
        "core/test_errors.py",
        "taxlens/test_runs.py::test_html_escapes_the_name",
    ),
    "weights and configs that are none": (
        "taxlens/test_bad_inputs.py::test_checkpoints",
        "taxlens/test_bad_files.py::test_gguf",
        "activations/models/test_pair.py::test_weights_that_are_not_finite_are_refused_by_tensor",
    ),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_every_kind_of_fault_has_three_members_in_the_tests(kind):
    assert len(FAULTS[kind]) >= 3
    for one in FAULTS[kind]:
        file, _, name = one.partition("::")
        text = (TESTS / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(" if name else r"^def test_", text, re.MULTILINE), one


HOMES = {
    "core/json_text.py": "JSON",
    "core/plain_files.py": "arrays and tensors",
    "taxlens/config/yaml_file.py": "YAML",
    "activations/items/item_tables.py": "CSV of items",
    "analysis/answers/labelled.py": "CSV of labelled answers",
    "core/table.py": "tables",
    "taxlens/report/views.py": "numbers of a run's figures, compared with their hashes before",
    "taxlens/demo/catalogue.py": "truth of the embedded pairs, a part of the package",
    "activations/models/adapter_files.py": "names and shapes of an adapter",
    "activations/models/quantised/dequantised_state.py": "tensors of a quantised checkpoint, whose files were looked at",
    "activations/models/token_ids.py": "what a loaded tokenizer says of itself",
    "analysis/answers/kept/answer_store.py": "JSON that this process has just written",
    "analysis/answers/following/instructions.py": "whether an answer is JSON; deep nesting is caught and nothing is kept",
    "core/executors/worker_call.py": "what this process tells its own worker",
    "activations/models/contents.py": "names and shapes of a checkpoint",
    "analysis/features/dictionaries/dictionary_files.py": "a pickle of tensors, by torch's weights_only",
}
"""Where files of strangers are parsed."""
PARSERS = re.compile(
    r"json\.load\(|json\.loads\((?!json\.dumps|\w+\.model_dump_json|[\w.()\"]+\.to_json)|np\.load\(|safe_open\(|(?<![\w.])load_file\("
    r"|torch\.load\(|yaml\.(safe_)?load|csv\.(reader|DictReader)|read_csv\(|pickle\.load"
)


def test_files_are_parsed_in_their_guarded_homes_alone():
    root, found = TESTS.parent, set()
    for folder in ("core", "activations", "probes", "analysis", "taxlens"):
        for path in (root / folder).rglob("*.py"):
            if PARSERS.search(path.read_text(encoding="utf-8")):
                found.add(path.relative_to(root).as_posix())
    found = {name for name in found if not re.match(r"taxlens/(core|activations|probes|analysis)/", name)}
    assert found - set(HOMES) == set()
    assert PARSERS.search("value = json.loads(text)")
    assert PARSERS.search("tensors = load_file(path)")
