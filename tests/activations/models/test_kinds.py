"""What goes wrong with models in the field, kind by kind, and the tests that hold at least three members of each."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parents[2]
MODELS, PATH, ITEMS = "activations/models/", "analysis/path/", "activations/items/"
KINDS = {
    "embeddings of different length": {
        MODELS + "test_vocabularies.py": (
            "test_attribution_closes_on_the_measured_tax_with_a_row_for_the_added_tokens",
            "test_embeddings_of_other_length_are_undone_and_added_on_the_common_rows",
            "test_every_stage_runs_on_a_lengthened_vocabulary",
        ),
        MODELS + "test_adapters.py": ("test_an_adapter_with_a_larger_vocabulary_is_put_on_a_base_that_grows_with_it",),
    },
    "asked in other tokens, or configs that differ": {
        PATH + "test_asked_apart.py": (
            "test_what_is_no_effect_of_weights_is_a_row_and_the_rows_sum_to_the_measured_tax",
            "test_a_model_that_computes_more_than_its_weights_say_is_found_out",
            "test_shards_and_segments_keep_the_row",
        ),
    },
    "families": {
        MODELS + "test_families.py": (
            "test_a_family_scores_captures_and_closes_as_plain_transformers_has_it",
            "test_every_stage_runs_on_a_family",
            "test_a_family_that_no_table_has_is_read_by_structure_with_a_note",
            "test_the_text_part_of_a_model_of_text_and_images_is_served",
        ),
    },
    "adapters on tied embeddings, and a base that stays as it was": {
        MODELS + "test_adapters.py": (
            "test_an_adapter_gives_what_peft_computes_and_the_base_stays_as_it_was",
            "test_a_lora_on_a_tied_embedding_leaves_the_output_head_and_says_so",
            "test_what_an_adapter_leaves_is_shared_in_memory",
        ),
    },
    "restored adapters": {
        "analysis/frontier/test_restored_adapters.py": (
            "test_the_written_adapter_is_the_mixture_that_was_measured",
            "test_a_plan_that_the_adapter_cannot_express_is_refused",
            "test_an_adapter_that_reads_back_as_something_else_is_not_written",
        ),
    },
    "chat templates": {
        ITEMS + "test_chat.py": (
            "test_a_template_of_content_parts_gets_the_question",
            "test_a_template_that_drops_the_question_is_refused_with_what_it_gave",
            "test_a_template_that_raises_is_told_in_its_own_words",
            "test_the_default_of_named_templates_is_used_and_told",
        ),
    },
    "adapters that are no LoRA, or another base's": {
        MODELS + "test_adapters.py": (
            "test_an_adapter_that_is_no_change_of_weights_is_named_as_what_it_is",
            "test_an_adapter_that_repeats_layers_is_named",
            "test_an_adapter_of_another_base_is_still_refused_by_tensor",
            "test_an_adapter_that_names_another_base_is_put_on_with_a_note",
            "test_an_adapter_given_as_the_aligned_model_is_told_where_it_belongs",
        ),
    },
    "prefixes and heads": {
        MODELS + "test_checkpoints.py": (
            "test_a_prefix_that_a_wrapper_left_is_taken_off_and_told",
            "test_names_that_wrappers_left_inside_are_taken_off",
            "test_a_value_head_is_left_aside_with_a_note",
            "test_a_reward_model_is_named_in_one_screen",
            "test_a_reward_head_beside_an_output_head_is_left_aside",
        ),
    },
    "biases alone": {MODELS + "test_bias_pairs.py": ("test_biases_that_moved_alone_are_attributed_at_every_level",)},
    "positions that depend on the length": {
        MODELS + "test_right_today.py": ("test_windows_caps_and_ropes_score_short_and_long_rows_as_alone",),
        PATH + "test_asked_apart.py": (
            "test_longrope_scores_a_short_row_beside_a_long_one_as_alone",
            "test_dynamic_rope_reads_past_its_config_and_forgets_longer_batches",
        ),
    },
    "several sets of weights": {
        MODELS + "test_checkpoints.py": (
            "test_the_file_that_is_read_is_the_file_that_is_hashed_and_the_other_set_is_told",
            "test_shards_of_two_checkpoints_are_refused_and_a_further_set_is_told",
            "test_a_file_that_is_not_read_does_not_change_the_hash",
        ),
    },
    "code of a checkpoint": {
        MODELS + "test_checkpoints.py": (
            "test_code_of_a_checkpoint_is_never_run",
            "test_a_known_architecture_that_names_its_own_code_is_read_as_transformers_has_it_with_a_note",
        ),
        MODELS + "test_foreign_code.py": ("test_a_config_that_names_its_own_code_never_runs_it",),
    },
    "token ids": {
        MODELS + "test_vocabularies.py": (
            "test_reserved_tokens_that_were_renamed_at_their_ids_are_a_note",
            "test_added_tokens_in_another_order_are_the_same_tokens",
            "test_an_id_past_the_embedding_is_refused_by_token_in_every_stage",
            "test_an_id_past_the_embedding_is_refused_where_it_is_only_predicted",
        ),
    },
    "quantised weights": {
        MODELS + "test_quantised.py": (
            "test_a_quantised_checkpoint_is_read_as_its_format_defines_it",
            "test_experts_in_four_bit_floats_are_read_as_gpt_oss_has_them",
            "test_a_format_that_is_not_read_says_what_it_is",
        ),
        MODELS + "test_checkpoints.py": ("test_quantised_weights_without_their_package_name_it",),
    },
    "experts": {
        MODELS + "test_experts.py": (
            "test_the_account_of_experts_closes_within_fifteen_gradients",
            "test_a_walk_without_the_choice_says_at_once_why_it_cannot_close",
            "test_a_small_trained_pair_closes_with_its_choice",
        ),
    },
    "right today": {
        MODELS + "test_right_today.py": (
            "test_tied_and_untied_pairs_score_and_close",
            "test_a_config_and_a_file_that_disagree_on_tying_are_read_as_transformers_reads_them",
            "test_adapters_of_all_ages_score_as_peft_computes",
            "test_chat_templates_of_every_make_score_as_a_plain_loop",
            "test_tokenizers_of_every_make_score_as_a_plain_loop",
            "test_left_overs_of_old_pythias_are_read_past",
        ),
    },
}  # fmt: skip
"""Kind -> test file -> tests; a test with parameters holds a member in each."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_trouble_has_three_members_that_are_tried(kind):
    members = 0
    for file, names in KINDS[kind].items():
        tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
        there = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        for name in names:
            assert name in there, f"{file} has no {name}"
            marks = [ast.unparse(mark) for mark in there[name].decorator_list]
            several = any("parametrize" in mark for mark in marks)
            members += 3 if several else 1
    assert members >= 3
