//! What every store must do, run on each: the contract on `Store`, case by case.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, in its helpers too"
)]

mod branches;
mod broken;
mod cancelled;
mod conversations;
mod history;
mod imports;
mod postgres;
mod removals;
mod retries;
mod saves;
mod search;
mod sqlite;

/// Makes each case a test on each store. A server that is missing fails them.
macro_rules! conformance {
    ($($room:ident: $($case:ident)+;)+) => {
        mod on_sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let world = test_support::world::World::sqlite().await;
                    crate::$room::$case(&world).await;
                }
            )+)+
        }

        mod on_postgres {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    let world = test_support::world::World::postgres().await;
                    crate::$room::$case(&world).await;
                }
            )+)+
        }
    };
}

conformance! {
    conversations:
        what_was_created_is_read
        a_foreign_conversation_is_none
        creating_again_gives_the_same
        an_id_belongs_to_one_conversation
        changes_are_applied_and_fields_cleared
        the_list_follows_activity
        the_list_is_paged
        the_list_can_be_of_one_department
        a_session_is_found_on_its_last_conversation
        a_save_takes_over_no_session_of_another_user
        another_users_session_is_found_last;
    saves:
        numbers_are_dense_whoever_saves
        a_batch_is_saved_whole_or_not_at_all
        a_title_is_only_given_once
        a_save_expects_an_end
        one_of_many_expectations_holds
        everything_round_trips
        doubles_round_trip
        times_never_go_back
        a_save_is_activity;
    retries:
        a_retry_gives_the_first_outcome
        a_key_is_of_one_request
        simultaneous_retries_save_once
        simultaneous_retries_with_chosen_ids_save_once
        a_retry_of_truncated_messages_brings_none_back
        chosen_ids_make_a_retry
        a_message_id_is_used_once
        a_retry_is_known_before_an_expectation
        keys_are_of_one_conversation;
    history:
        the_newest_come_oldest_first
        pages_go_both_ways
        gaps_do_not_count
        contexts_come_where_asked_for
        readers_see_whole_turns_in_order;
    removals:
        a_truncation_removes_what_is_after
        a_truncation_is_retried
        a_truncation_expects_an_end
        numbers_go_on_after_a_truncation
        truncations_and_saves_take_turns
        a_deletion_leaves_nothing
        a_deletion_and_a_save_take_turns;
    branches:
        a_branch_shares_and_goes_on
        a_branch_is_created_like_its_parent
        a_branch_begins_at_a_message_of_its_owners
        what_becomes_of_a_parent_changes_no_branch
        a_branch_is_truncated_into_what_it_shares
        shared_messages_come_with_their_contexts
        a_retry_brings_back_nothing_that_a_branch_kept
        an_id_that_branches_need_is_not_given_again
        the_last_of_them_takes_the_messages_along
        branches_are_as_good_as_copies;
    imports:
        an_import_is_as_the_file_has_it
        an_import_without_messages_is_a_conversation
        nobody_sees_an_import_before_its_end
        a_dropped_import_leaves_nothing
        an_import_that_failed_keeps_nothing
        an_import_is_the_latest_activity
        only_some_imports_run_at_once;
    search:
        a_hit_shows_the_message_and_where_it_was_said
        the_syntax_is_that_of_search_boxes
        no_query_is_wrong
        a_search_never_leaves_its_user
        a_search_can_be_narrowed
        the_best_come_first_and_then_the_newest
        hits_are_paged
        what_was_removed_is_not_found
        what_branches_share_is_found_once
        long_texts_are_found_by_their_beginning
        marks_in_a_message_are_not_taken_for_ours;
}
