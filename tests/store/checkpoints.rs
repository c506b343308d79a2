//! Checkpoints: values by version, lists that share items, messages, and removals.

use bytes::Bytes;
use conversation_memory::{
    domain::{
        ChannelData, ChannelValue, ChannelWrite, Checkpoint, CheckpointData, CheckpointId,
        CheckpointNamespace, ContentDigest, Contents, ConversationRef, ListBase, NewConversation,
        Piece,
    },
    store::{
        AncestorQuery, Branch, CheckpointPage, CheckpointQuery, Invalidation, PutCheckpoint,
        PutWrites, StoreError,
    },
};
use test_support::{
    random::Random,
    store_fixture::{StoreFixture, at, message, new_conversation, redaction, truncation, user},
};
use uuid::Uuid;

/// Number of versions in a random thread.
const VERSIONS: u64 = 120;

pub(crate) fn root() -> CheckpointNamespace {
    CheckpointNamespace::parse("").unwrap()
}

/// Ids in ascending order.
pub(crate) fn id(number: u64) -> CheckpointId {
    CheckpointId::from_uuid(Uuid::from_u128(u128::from(number) + 1))
}

fn data(text: &str, contents: &mut Contents) -> CheckpointData {
    let piece = contents.add(Bytes::from(text.to_owned())).unwrap();
    CheckpointData {
        kind: "msgpack".to_owned(),
        pieces: vec![piece],
    }
}

/// A checkpoint whose state is its number.
pub(crate) fn put(thread: &ConversationRef, number: u64) -> PutCheckpoint {
    PutCheckpoint {
        conversation: thread.clone(),
        thread_name: Some("thread".to_owned()),
        namespace: root(),
        checkpoint: Checkpoint {
            id: id(number),
            parent_id: number.checked_sub(1).map(id),
            state: CheckpointData {
                kind: "state".to_owned(),
                pieces: vec![Piece::Inline(Bytes::from(number.to_string()))],
            },
            metadata: format!(r#"{{"step": {number}, "source": "loop"}}"#),
            versions: Vec::new(),
            values: Vec::new(),
        },
        stored_channels: Vec::new(),
        task_writes: Vec::new(),
        run: None,
        contents: Contents::default(),
        messages: Vec::new(),
        title: None,
        invalidation: Invalidation::Never,
        at: at(1),
    }
}

/// Adds a list of a version to a checkpoint: the first items of a base, and further ones.
pub(crate) fn with_list(
    mut put: PutCheckpoint,
    version: &str,
    base: Option<(&str, usize)>,
    items: &[String],
) -> PutCheckpoint {
    let items = items.iter().map(|item| data(item, &mut put.contents));
    let items = items.collect();
    put.checkpoint
        .versions
        .push(("list".to_owned(), version.to_owned()));
    put.checkpoint.values.push(ChannelValue {
        channel: "list".to_owned(),
        version: version.to_owned(),
        base: base.map(|(version, items)| ListBase {
            version: version.to_owned(),
            items: u32::try_from(items).unwrap(),
        }),
        data: ChannelData::List(items),
    });
    put.contents.deduplicate();
    put
}

/// Texts of the list in the checkpoint of a page.
pub(crate) fn list(page: &CheckpointPage) -> Vec<String> {
    let value = page.records[0].checkpoint.values.iter();
    let mut lists = value.filter(|value| value.channel == "list");
    let ChannelData::List(items) = &lists.next().unwrap().data else {
        panic!("the value is a list");
    };
    items.iter().map(|item| text(page, item)).collect()
}

pub(crate) fn text(page: &CheckpointPage, data: &CheckpointData) -> String {
    let bytes = match &data.pieces[0] {
        Piece::Inline(data) => data.clone(),
        Piece::Stored(digest) => {
            let mut contents = page.contents.iter();
            contents
                .find(|(found, _)| found == digest)
                .unwrap()
                .1
                .clone()
        }
    };
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) async fn get(
    fixture: &StoreFixture,
    thread: &ConversationRef,
    number: u64,
) -> CheckpointPage {
    let root = root();
    let read = fixture.store.checkpoint(thread, &root, Some(id(number)));
    read.await.unwrap()
}

fn query(thread: &ConversationRef) -> CheckpointQuery {
    CheckpointQuery {
        conversation: thread.clone(),
        namespace: Some(root()),
        id: None,
        before: None,
        filter: serde_json::Map::new(),
        after: None,
        limit: 10,
    }
}

pub(crate) async fn the_latest_checkpoint_is_the_one_with_the_highest_id(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let none = store.checkpoint(&thread, &root(), None).await.unwrap();
    assert!(none.records.is_empty());
    for number in [2, 5, 3] {
        store.put_checkpoint(&put(&thread, number)).await.unwrap();
    }
    let latest = store.checkpoint(&thread, &root(), None).await.unwrap();
    assert_eq!(latest.records[0].checkpoint.id, id(5));
    let mut other = put(&thread, 3);
    other.checkpoint.metadata = r#"{"step": 30}"#.to_owned();
    store.put_checkpoint(&other).await.unwrap();
    let replaced = get(fixture, &thread, 3).await;
    assert_eq!(replaced.records[0].checkpoint, other.checkpoint);
    let listed = store.checkpoints(&query(&thread)).await.unwrap();
    let ids: Vec<_> = listed.records.iter().map(|r| r.checkpoint.id).collect();
    assert_eq!(ids, [id(5), id(3), id(2)]);
    let filtered = CheckpointQuery {
        filter: serde_json::from_str(r#"{"step": 30.0}"#).unwrap(),
        before: Some(id(5)),
        ..query(&thread)
    };
    let filtered = store.checkpoints(&filtered).await.unwrap();
    assert_eq!(filtered.records.len(), 1);
}

pub(crate) async fn pages_of_checkpoints_continue_where_the_previous_one_ends(
    fixture: &StoreFixture,
) {
    let thread = fixture.create_conversation().await;
    for namespace in ["", "child:1", "child:2"] {
        for number in 0..7 {
            let put = PutCheckpoint {
                namespace: CheckpointNamespace::parse(namespace).unwrap(),
                ..put(&thread, number)
            };
            fixture.store.put_checkpoint(&put).await.unwrap();
        }
    }
    for (namespace, limit, expected) in [(None, 3, 21), (None, 7, 21), (Some(root()), 2, 7)] {
        let mut query = CheckpointQuery {
            namespace,
            limit,
            ..query(&thread)
        };
        let mut found = Vec::new();
        loop {
            let page = fixture.store.checkpoints(&query).await.unwrap();
            assert!(page.records.len() <= limit as usize);
            let keys = page.records.into_iter();
            found.extend(keys.map(|record| (record.namespace, record.checkpoint.id)));
            match page.next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        assert_eq!(found.len(), expected);
        let descends =
            |pair: &[(String, CheckpointId)]| pair[0].0 < pair[1].0 || pair[0].1 > pair[1].1;
        assert!(found.windows(2).all(descends));
    }
}

pub(crate) async fn lists_that_share_items_are_read_as_they_were_written(fixture: &StoreFixture) {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let thread = fixture.create_conversation().await;
        let mut lists: Vec<Vec<String>> = Vec::new();
        for number in 0..VERSIONS {
            let is_late = random.below(3) > 0;
            let base = (!lists.is_empty() && random.below(12) > 0).then(|| {
                let last = lists.len() - 1;
                let at = if is_late {
                    last
                } else {
                    random.below(lists.len())
                };
                let whole = lists[at].len();
                let items = match random.below(3) {
                    0 => random.below(whole + 1),
                    _ => whole,
                };
                (at, items)
            });
            let added = random.below(4);
            let items: Vec<String> = (0..added)
                .map(|item| {
                    let length = if random.below(2) == 0 { 3 } else { 200 };
                    format!("{number}.{item}.").repeat(length)
                })
                .collect();
            let version = number.to_string();
            let named = base.map(|(at, items)| (at.to_string(), items));
            let named = named
                .as_ref()
                .map(|(version, items)| (version.as_str(), *items));
            let put = with_list(put(&thread, number), &version, named, &items);
            fixture.store.put_checkpoint(&put).await.unwrap();
            let mut whole = base.map_or_else(Vec::new, |(at, items)| lists[at][..items].to_vec());
            whole.extend(items);
            lists.push(whole);
        }
        for (number, expected) in (0..).zip(&lists) {
            assert_eq!(
                &list(&get(fixture, &thread, number).await),
                expected,
                "{seed} {number}"
            );
        }
        let removed = fixture.store.prune_checkpoints(&thread).await.unwrap();
        assert_eq!(removed, i64::try_from(VERSIONS - 1).unwrap());
        let last = get(fixture, &thread, VERSIONS - 1).await;
        assert_eq!(&list(&last), lists.last().unwrap());
        // A list continues after what was kept.
        let base = ((VERSIONS - 1).to_string(), lists.last().unwrap().len());
        let more = ["more".repeat(100)];
        let next = with_list(
            put(&thread, VERSIONS),
            "next",
            Some((&base.0, base.1)),
            &more,
        );
        fixture.store.put_checkpoint(&next).await.unwrap();
        let expected: Vec<String> = lists.pop().unwrap().into_iter().chain(more).collect();
        assert_eq!(list(&get(fixture, &thread, VERSIONS).await), expected);
    }
}

pub(crate) async fn what_a_list_or_value_refers_to_must_be_stored(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let first = with_list(put(&thread, 0), "1", None, &["a".to_owned()]);
    store.put_checkpoint(&first).await.unwrap();
    for base in [("2", 0), ("1", 2)] {
        let put = with_list(put(&thread, 1), "3", Some(base), &[]);
        let refused = store.put_checkpoint(&put).await;
        assert!(
            matches!(refused, Err(StoreError::BaseVersionMissing)),
            "{base:?}"
        );
    }
    let mut put = put(&thread, 1);
    put.contents.refer(ContentDigest::of(b"unknown"));
    let refused = store.put_checkpoint(&put).await;
    assert!(matches!(refused, Err(StoreError::ContentMissing)));
    let none = get(fixture, &thread, 1).await;
    assert!(none.records.is_empty());
    let digests = [ContentDigest::of(b"unknown")];
    let refused = store.checkpoint_contents(&thread, &digests).await;
    assert!(matches!(refused, Err(StoreError::ContentMissing)));
}

pub(crate) fn write(thread: &ConversationRef, number: u64, index: i32, text: &str) -> PutWrites {
    let mut contents = Contents::default();
    let data = data(text, &mut contents);
    PutWrites {
        conversation: thread.clone(),
        thread_name: None,
        namespace: root(),
        checkpoint_id: id(number),
        writes: vec![ChannelWrite {
            task_id: "task".to_owned(),
            task_path: "path".to_owned(),
            index,
            channel: "channel".to_owned(),
            data: ChannelData::Single(data),
        }],
        contents,
    }
}

pub(crate) async fn a_write_is_kept_unless_its_index_is_negative(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    // Writes can arrive before their checkpoint.
    for (index, text) in [(0, "first"), (0, "second"), (-3, "first"), (-3, "second")] {
        store
            .put_writes(&write(&thread, 0, index, text))
            .await
            .unwrap();
    }
    store.put_checkpoint(&put(&thread, 0)).await.unwrap();
    let texts = |page: &CheckpointPage| -> Vec<String> {
        let writes = page.records[0].writes.iter();
        let texts = writes.map(|write| text(page, &write.data.parts()[0]));
        texts.collect()
    };
    let page = get(fixture, &thread, 0).await;
    assert_eq!(texts(&page), ["second", "first"]);
    store
        .put_writes(&write(&thread, 0, -3, "first"))
        .await
        .unwrap();
    store
        .put_writes(&write(&thread, 0, 0, "second"))
        .await
        .unwrap();
    assert_eq!(texts(&get(fixture, &thread, 0).await), ["first", "first"]);
}

pub(crate) async fn ancestors_are_read_until_each_channel_has_a_value(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    for number in 0..6 {
        let put = if number == 2 {
            with_list(put(&thread, number), "v", None, &["seed".to_owned()])
        } else {
            put(&thread, number)
        };
        store.put_checkpoint(&put).await.unwrap();
    }
    let query = |channel: &str| AncestorQuery {
        conversation: thread.clone(),
        namespace: root(),
        id: None,
        channels: vec![channel.to_owned()],
    };
    let found = store.checkpoint_ancestors(&query("list")).await.unwrap();
    let ids: Vec<_> = found.records.iter().map(|r| r.checkpoint.id).collect();
    assert_eq!(ids, [id(4), id(3), id(2)]);
    let found = store.checkpoint_ancestors(&query("other")).await.unwrap();
    assert_eq!(found.records.len(), 5);
}

pub(crate) fn with_messages(mut put: PutCheckpoint, keys: &[&str]) -> PutCheckpoint {
    let messages = keys.iter().map(|key| ((*key).to_owned(), message(*key)));
    put.messages = messages.collect();
    put
}

pub(crate) async fn messages_of_checkpoints_are_saved_once(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let first = with_messages(put(&thread, 0), &["a", "b"]);
    let stored = store.put_checkpoint(&first).await.unwrap();
    assert_eq!((stored.last_seq, stored.saved.unwrap().0.len()), (2, 2));
    let repeated = store.put_checkpoint(&first).await.unwrap();
    assert_eq!((repeated.last_seq, repeated.saved.is_none()), (2, true));
    let second = with_messages(put(&thread, 1), &["b", "c", "c", "a", "d"]);
    store.put_checkpoint(&second).await.unwrap();
    assert_eq!(fixture.texts(&thread).await, ["a", "b", "c", "d"]);
}

pub(crate) async fn a_copy_contains_the_thread(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let long = ["x".repeat(500)];
    let first = with_list(
        with_messages(put(&thread, 0), &["a", "b"]),
        "1",
        None,
        &long,
    );
    store.put_checkpoint(&first).await.unwrap();
    store
        .put_writes(&write(&thread, 0, 0, "written"))
        .await
        .unwrap();
    let branch = Branch {
        parent: thread.clone(),
        at_seq: 2,
        id: new_conversation(&user()).id,
        title: None,
        at: at(2),
    };
    store.branch(&branch).await.unwrap();
    let copy = ConversationRef {
        id: branch.id,
        user_id: thread.user_id.clone(),
    };
    let copied = store.copy_checkpoints(&thread, &copy, Some("copy")).await;
    copied.unwrap();
    let again = store.copy_checkpoints(&thread, &copy, Some("copy")).await;
    assert!(
        matches!(again, Err(StoreError::AlreadyExists(_))),
        "{again:?}"
    );
    let copied = get(fixture, &copy, 0).await;
    assert_eq!(list(&copied), long);
    assert_eq!(copied.records[0].writes.len(), 1);
    // The messages that both share are known in the copy.
    let next = with_list(
        with_messages(put(&copy, 1), &["a", "b", "c"]),
        "2",
        Some(("1", 1)),
        &long,
    );
    store.put_checkpoint(&next).await.unwrap();
    assert_eq!(fixture.texts(&copy).await, ["a", "b", "c"]);
    assert_eq!(fixture.texts(&thread).await, ["a", "b"]);
    store.delete(&thread, Invalidation::Never).await.unwrap();
    assert_eq!(list(&get(fixture, &copy, 1).await).len(), 2);
}

pub(crate) async fn checkpoints_of_runs_are_deleted_with_what_only_they_need(
    fixture: &StoreFixture,
) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let run = ContentDigest::of_run(&thread.id.to_string());
    let items: Vec<String> = (0..4).map(|n| format!("{n}").repeat(300)).collect();
    let first = with_list(put(&thread, 0), "1", None, &items[..2]);
    store.put_checkpoint(&first).await.unwrap();
    let second = PutCheckpoint {
        run: Some(run),
        ..with_list(put(&thread, 1), "2", Some(("1", 2)), &items[2..3])
    };
    store.put_checkpoint(&second).await.unwrap();
    let third = with_list(put(&thread, 2), "3", Some(("2", 3)), &items[3..]);
    store.put_checkpoint(&third).await.unwrap();
    let found = store
        .conversations_of_runs(&[run], None, None, 10)
        .await
        .unwrap();
    assert_eq!(found, [thread.id]);
    let other = Some(user());
    let found = store
        .conversations_of_runs(&[run], other.as_ref(), None, 10)
        .await
        .unwrap();
    assert!(found.is_empty());
    assert_eq!(store.delete_runs(&thread, &[run]).await.unwrap(), 1);
    assert!(get(fixture, &thread, 1).await.records.is_empty());
    let last = get(fixture, &thread, 2).await;
    assert_eq!(list(&last), items);
    assert_eq!(last.records[0].checkpoint.parent_id, None);
}

pub(crate) async fn a_deleted_thread_can_begin_again_while_its_copy_exists(fixture: &StoreFixture) {
    let store = &fixture.store;
    let owner = user();
    let original = NewConversation {
        reuses_id: true,
        ..new_conversation(&owner)
    };
    let reference = |id| ConversationRef {
        id,
        user_id: Some(owner.clone()),
    };
    let thread = reference(original.id);
    store.create(&original, at(1)).await.unwrap();
    let first = with_messages(put(&thread, 0), &["a", "b"]);
    store.put_checkpoint(&first).await.unwrap();
    let copy_of = |parent: &ConversationRef, at_seq| Branch {
        parent: parent.clone(),
        at_seq,
        id: new_conversation(&owner).id,
        title: None,
        at: at(2),
    };
    let branch = copy_of(&thread, 2);
    let copy = reference(branch.id);
    store.branch(&branch).await.unwrap();
    store.copy_checkpoints(&thread, &copy, None).await.unwrap();
    let texts = fixture.texts(&copy).await;
    store.delete(&thread, Invalidation::Never).await.unwrap();

    let foreign = NewConversation {
        id: original.id,
        reuses_id: true,
        ..new_conversation(&user())
    };
    let refused = store.create(&foreign, at(3)).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists(_))));
    let again = store.create(&original, at(3)).await.unwrap();
    assert_eq!(again.last_seq, 2);
    assert!(fixture.texts(&thread).await.is_empty());
    // Its messages have the same keys as those of the copy.
    for number in [0, 1] {
        let second = with_messages(
            put(&thread, number),
            &["a", "b", "c"][..2 + usize::from(number > 0)],
        );
        let second = store.put_checkpoint(&second).await.unwrap();
        assert_eq!(second.last_seq, 4 + i64::try_from(number).unwrap());
    }
    assert_eq!(fixture.texts(&thread).await.len(), 3);
    let retry = with_messages(put(&copy, 1), &["a", "b"]);
    store.put_checkpoint(&retry).await.unwrap();
    assert_eq!(fixture.texts(&copy).await, texts);
    // A copy of it contains its messages, too.
    let branch = copy_of(&thread, 5);
    let second_copy = reference(branch.id);
    store.branch(&branch).await.unwrap();
    let retry = with_messages(put(&second_copy, 1), &["a", "b", "c", "d"]);
    store.put_checkpoint(&retry).await.unwrap();
    assert_eq!(fixture.texts(&second_copy).await.len(), 4);

    store.delete(&copy, Invalidation::Never).await.unwrap();
    assert_eq!(fixture.texts(&thread).await.len(), 3);
    store.delete(&thread, Invalidation::Never).await.unwrap();
    assert_eq!(fixture.texts(&second_copy).await.len(), 4);
    store
        .delete(&second_copy, Invalidation::Never)
        .await
        .unwrap();
    let last = store.create(&original, at(4)).await.unwrap();
    assert_eq!(last.last_seq, 0);
}

pub(crate) async fn values_of_stored_channels_must_be_stored(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let items = ["item".to_owned()];
    let first = with_list(put(&thread, 0), "1", None, &items);
    store.put_checkpoint(&first).await.unwrap();
    let mut second = put(&thread, 1);
    second
        .checkpoint
        .versions
        .clone_from(&first.checkpoint.versions);
    second.stored_channels = vec!["list".to_owned()];
    store.put_checkpoint(&second).await.unwrap();
    let other = with_list(put(&thread, 2), "2", None, &items);
    store.put_checkpoint(&other).await.unwrap();
    store.prune_checkpoints(&thread).await.unwrap();
    // The run of this checkpoint began with one that was removed meanwhile.
    second.checkpoint.id = id(3);
    for messages in [&[][..], &["key"]] {
        let put = with_messages(second.clone(), messages);
        let rejected = store.put_checkpoint(&put).await;
        assert!(
            matches!(rejected, Err(StoreError::BaseVersionMissing)),
            "{rejected:?}"
        );
    }
    second.stored_channels.clear();
    second.checkpoint.values = first.checkpoint.values;
    second.contents = first.contents;
    store.put_checkpoint(&second).await.unwrap();
    assert_eq!(list(&get(fixture, &thread, 3).await), items);
}

pub(crate) async fn a_foreign_thread_is_not_found(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    store.put_checkpoint(&put(&thread, 0)).await.unwrap();
    let foreign = ConversationRef {
        user_id: Some(user()),
        ..thread.clone()
    };
    let not_found = |error: StoreError| assert!(matches!(error, StoreError::NotFound));
    not_found(store.put_checkpoint(&put(&foreign, 1)).await.unwrap_err());
    not_found(
        store
            .put_writes(&write(&foreign, 0, 0, "x"))
            .await
            .unwrap_err(),
    );
    not_found(store.checkpoint(&foreign, &root(), None).await.unwrap_err());
    not_found(store.checkpoints(&query(&foreign)).await.unwrap_err());
    not_found(store.prune_checkpoints(&foreign).await.unwrap_err());
    not_found(
        store
            .copy_checkpoints(&foreign, &thread, None)
            .await
            .unwrap_err(),
    );
    assert_eq!(get(fixture, &thread, 0).await.records.len(), 1);
}

pub(crate) async fn a_deleted_conversation_has_no_checkpoints(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let long = ["secret".repeat(100)];
    let put = with_list(with_messages(put(&thread, 0), &["a"]), "1", None, &long);
    store.put_checkpoint(&put).await.unwrap();
    let refused = store.truncate(&truncation(&thread, 0)).await;
    assert!(matches!(refused, Err(StoreError::HasCheckpoints)));
    let refused = store.redact(&redaction(&thread, &[1])).await;
    assert!(matches!(refused, Err(StoreError::HasCheckpoints)));
    store.delete(&thread, Invalidation::Never).await.unwrap();
    let gone = store.checkpoint(&thread, &root(), None).await;
    assert!(matches!(gone, Err(StoreError::NotFound)));
}

pub(crate) async fn writes_of_tasks_are_stored_with_the_next_checkpoint(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let texts = |page: &CheckpointPage| -> Vec<String> {
        let writes = page.records[0].writes.iter();
        let texts = writes.map(|write| match &write.data {
            ChannelData::Single(data) => text(page, data),
            ChannelData::List(_) => unreachable!(),
        });
        texts.collect()
    };
    store.put_checkpoint(&put(&thread, 0)).await.unwrap();
    for (number, has_messages) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut next = put(&thread, number);
        if has_messages {
            next = with_messages(next, &[&number.to_string()]);
        }
        let long = "long ".repeat(100);
        for (task, text) in [("a", "short"), ("b", long.as_str())] {
            let mut given = write(&thread, number - 1, 0, text);
            given.writes[0].task_id = task.to_owned();
            next.contents.new.extend(given.contents.new);
            next.task_writes.push(given.writes);
        }
        if number == 4 {
            // A later write of this kind replaces an earlier one.
            let earlier = write(&thread, 3, -3, "earlier");
            store.put_writes(&earlier).await.unwrap();
            next.task_writes.push(write(&thread, 3, -3, "later").writes);
        }
        // A retry adds none.
        for _ in 0..2 {
            store.put_checkpoint(&next).await.unwrap();
        }
        let mut expected = vec!["short".to_owned(), long];
        if number == 4 {
            expected.push("later".to_owned());
        }
        let found = get(fixture, &thread, number - 1).await;
        assert_eq!(texts(&found), expected, "{number}");
        assert_eq!(found.records[0].checkpoint.id, id(number - 1));
    }
    let mut refused = put(&thread, 5);
    refused
        .task_writes
        .push(write(&thread, 4, 0, "refused").writes);
    refused.stored_channels.push("missing".to_owned());
    let version = ("missing".to_owned(), "1".to_owned());
    refused.checkpoint.versions.push(version);
    let error = store.put_checkpoint(&refused).await;
    assert!(matches!(error, Err(StoreError::BaseVersionMissing)));
    assert!(texts(&get(fixture, &thread, 4).await).is_empty());
}
