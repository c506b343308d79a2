//! Conformance suite of the trait `Store`, which every backend runs, and tests of each backend.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod batches;
mod branch_trees;
mod branches;
mod broken;
mod budgets;
mod cancelled;
mod checkpoint_costs;
mod checkpoint_limits;
mod checkpoint_races;
mod checkpoints;
mod compactions;
mod conversations;
mod dumps;
mod encodings;
mod faulty_store;
mod group_commit;
mod history;
mod hostile_texts;
mod imports;
mod invalidations;
mod item_searches;
mod items;
mod long_writes;
mod ownership;
mod partitions;
mod pooler;
mod postgres;
mod postgres_servers;
mod redactions;
mod reindexing;
mod removals;
mod replica;
mod replica_load;
mod replica_servers;
mod retries;
mod saves;
mod search;
mod search_equality;
mod search_limits;
mod sqlite;
mod sqlite_batches;
mod sqlite_checkpoints;
mod titles;
mod upgrades;
mod write_ahead_log;
mod write_failures;

/// Defines a test of each case for a backend. A missing server fails the tests.
macro_rules! cases {
    ($backend:ident: $fixture:ident; $($module:ident: $($case:ident)+;)+) => {
        mod $backend {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let fixture = test_support::store_fixture::StoreFixture::$fixture().await;
                    crate::$module::$case(&fixture).await;
                }
            )+)+
        }
    };
}

/// Defines the tests of all backends. A store with a replica differs from one without in the reads of
/// the first group only.
macro_rules! conformance {
    (with_replica { $($read:tt)+ } others { $($other:tt)+ }) => {
        cases! { on_sqlite: sqlite; $($read)+ $($other)+ }
        cases! { on_pooler: pooled; $($read)+ $($other)+ }
        cases! { on_postgres: postgres; $($read)+ $($other)+ }
        cases! { on_replica: replicated; $($read)+ }
    };
}

conformance! {
    with_replica {
        conversations:
            create_stores_all_fields
            foreign_conversation_is_not_found
            create_is_idempotent
            create_rejects_used_id
            update_sets_and_clears_fields
            list_is_ordered_by_activity
            list_is_paged
            list_filters_by_department
            session_is_found_on_its_last_conversation
            a_session_of_another_user_with_the_same_id_has_no_effect
            a_user_without_the_session_finds_no_conversation;
        ownership:
            a_family_gets_its_owner_together
            saves_continue_for_the_new_owner
            concurrent_saves_and_branches_belong_to_one_owner
            a_family_that_is_too_large_is_not_changed
            too_many_messages_are_not_changed;
        history:
            newest_returns_ascending_order
            messages_are_paged_in_both_directions
            gaps_do_not_count_towards_limits
            contexts_are_returned_on_request
            readers_see_complete_turns;
        removals:
            truncation_removes_messages_after_a_number
            truncation_retry_returns_first_outcome
            truncation_rejects_wrong_expected_last_seq
            numbers_continue_after_truncation
            concurrent_truncations_and_saves_are_serialized
            deletion_removes_everything
            concurrent_deletion_and_saves_are_serialized;
        redactions:
            redaction_leaves_number_role_and_times
            redaction_is_complete_or_absent
            redaction_applies_to_all_conversations
            redaction_clears_a_title_of_unknown_origin
            redaction_removes_summaries_of_redacted_messages
            redacted_messages_are_not_found
            replay_of_a_redacted_save_returns_no_text
            redaction_applies_to_many_branches
            concurrent_changes_do_not_keep_redacted_messages;
        branches:
            branch_shares_messages_and_continues
            branch_inherits_fields_of_its_parent
            branch_rejects_missing_message_and_foreign_parent
            removals_in_a_parent_do_not_affect_branches
            branch_can_be_truncated_into_its_shared_messages
            shared_messages_include_their_contexts
            retry_does_not_restore_messages_kept_for_a_branch
            branch_rejects_ids_of_its_shared_messages
            create_rejects_id_that_branches_refer_to
            deleting_the_last_conversation_deletes_shared_messages
            branches_behave_like_copies;
        branch_trees:
            depth_of_branches_is_limited
            deeper_branches_are_readable_and_removable
            branches_of_one_parent_are_removable_concurrently
            each_range_of_own_messages_is_kept_for_its_branches;
        imports:
            import_stores_all_fields
            import_without_messages_creates_a_conversation
            unfinished_import_is_invisible
            dropped_import_stores_nothing
            failed_import_stores_nothing
            import_is_the_latest_activity
            import_with_an_id_in_use_changes_nothing
            branch_with_an_id_in_use_changes_nothing
            number_of_imports_is_limited;
        search:
            hit_contains_message_title_and_snippet
            supports_search_box_syntax
            accepts_every_query
            words_beside_a_long_run_are_found
            finds_no_messages_of_other_users
            filters_by_time_and_metadata
            filters_narrow_a_search
            hits_are_ordered_by_rank_then_recency
            hits_are_paged
            queries_are_corrected_by_the_words_of_the_search
            searches_of_many_messages_are_complete
            removed_messages_are_not_found
            shared_messages_are_found_once
            long_messages_are_searched_by_their_beginning
            marks_in_a_message_are_escaped;
        titles:
            branch_does_not_inherit_a_title_of_later_messages
            title_that_was_cleared_has_no_origin;
        budgets:
            pages_of_conversations_end_at_their_bytes
            long_pages_of_conversations_are_complete
            pages_of_branches_end_at_their_bytes
            pages_of_hits_end_at_their_bytes
            reads_of_large_messages_end_early
            large_messages_do_not_displace_pinned_ones;
    }
    others {
        checkpoint_limits:
            ancestors_in_a_circle_are_examined_once
            data_counts_at_each_of_its_places
            writes_of_too_many_calls_are_rejected
            writes_that_exceed_a_response_are_rejected;
        checkpoints:
            the_latest_checkpoint_is_the_one_with_the_highest_id
            pages_of_checkpoints_continue_where_the_previous_one_ends
            lists_that_share_items_are_read_as_they_were_written
            what_a_list_or_value_refers_to_must_be_stored
            a_write_is_kept_unless_its_index_is_negative
            ancestors_are_read_until_each_channel_has_a_value
            messages_of_checkpoints_are_saved_once
            writes_of_tasks_are_stored_with_the_next_checkpoint
            a_copy_contains_the_thread
            a_deleted_thread_can_begin_again_while_its_copy_exists
            values_of_stored_channels_must_be_stored
            checkpoints_of_runs_are_deleted_with_what_only_they_need
            a_foreign_thread_is_not_found
            a_deleted_conversation_has_no_checkpoints;
        checkpoint_races:
            puts_at_the_same_time_are_all_stored
            what_a_put_refers_to_outlives_a_removal;
        saves:
            concurrent_saves_get_consecutive_numbers
            batch_is_atomic
            title_is_set_only_once
            save_rejects_wrong_expected_last_seq
            one_of_concurrent_saves_with_same_expectation_succeeds
            messages_round_trip
            doubles_round_trip
            updated_at_never_decreases
            save_without_user_claim_succeeds;
        retries:
            retry_returns_first_outcome
            request_id_rejects_other_content
            concurrent_retries_save_once
            concurrent_retries_with_chosen_ids_save_once
            retry_does_not_restore_truncated_messages
            chosen_ids_identify_a_retry
            message_id_rejects_other_content
            message_ids_are_scoped_to_a_conversation
            retry_is_recognized_before_expected_last_seq_is_checked
            request_ids_are_scoped_to_a_conversation;
        compactions:
            summary_replaces_messages_in_histories
            compactions_replace_each_other
            compaction_does_not_change_the_order_of_conversations
            compaction_retry_returns_first_outcome
            compaction_checks_its_numbers
            branch_inherits_a_compaction_of_its_messages
            truncation_removes_a_summary_of_removed_messages
            truncation_clears_a_title_derived_from_removed_messages
            concurrent_compactions_and_saves_are_serialized;
        long_writes:
            imports_of_many_messages_do_not_delay_turns
            removals_of_many_messages_do_not_delay_turns;
        items:
            items_round_trip
            largest_addresses_are_stored
            a_batch_of_writes_is_atomic
            concurrent_batches_of_the_same_items_are_serialized
            items_of_other_owners_are_not_found
            large_items_are_read_in_parts
            expired_items_are_absent
            expired_items_are_removed_in_steps
            reads_restart_the_time_to_live;
        item_searches:
            searches_are_limited_to_a_prefix
            pages_of_items_continue
            filters_apply_to_values
            hits_are_ordered_by_similarity
            namespaces_are_listed
            a_namespace_with_many_items_does_not_delay_others;
        write_failures:
            busy_store_rejects_each_write
            full_disk_rejects_each_write
            read_only_store_rejects_each_write;
    }
}
