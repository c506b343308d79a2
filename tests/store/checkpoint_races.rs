//! Writes of checkpoints at the same time.

use futures_util::future::join_all;
use test_support::store_fixture::{StoreFixture, retried};

use crate::checkpoints::{get, list, put, text, with_list, with_messages, write};

pub(crate) async fn puts_at_the_same_time_are_all_stored(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let items = |number: u64| vec![format!("{number}.").repeat(100)];
    for round in (0..400).step_by(20) {
        let base = round.to_string();
        let first = with_list(put(&thread, round), &base, None, &items(round));
        fixture.store.put_checkpoint(&first).await.unwrap();
        let puts = (round + 1..round + 20).map(|number| {
            // Each retry, and each pair of puts, has the same messages.
            let keys = [format!("{}", number / 2), format!("{number}.own")];
            let put = with_messages(put(&thread, number), &[&keys[0], &keys[1]]);
            let version = number.to_string();
            let put = with_list(put, &version, Some((&base, 1)), &items(number));
            async move {
                let put = retried(|| fixture.store.put_checkpoint(&put));
                put.await.unwrap().saved
            }
        });
        let saved = join_all(puts).await.into_iter().flatten();
        let saved: usize = saved.map(|(messages, _)| messages.len()).sum();
        assert_eq!(saved, 29, "{round}");
        for number in round + 1..round + 20 {
            let expected = [items(round), items(number)].concat();
            assert_eq!(list(&get(fixture, &thread, number).await), expected);
        }
    }
    assert_eq!(fixture.texts(&thread).await.len(), 20 * 29);
}

pub(crate) async fn what_a_put_refers_to_outlives_a_removal(fixture: &StoreFixture) {
    let thread = fixture.create_conversation().await;
    let store = &fixture.store;
    let items = |number: u64| vec![format!("{number}.").repeat(100)];
    let mut expected = Vec::new();
    let puts = async {
        for number in 0..100_u64 {
            let base = number.checked_sub(1).map(|base| base.to_string());
            let base = base.as_deref().map(|base| (base, expected.len()));
            let version = number.to_string();
            let put = with_list(put(&thread, number), &version, base, &items(number));
            store.put_checkpoint(&put).await.unwrap();
            expected.extend(items(number));
            // Its data is that of the call before, whose checkpoint is removed.
            let text = "write".repeat(100);
            store
                .put_writes(&write(&thread, number, 0, &text))
                .await
                .unwrap();
        }
    };
    let removals = async {
        loop {
            store.prune_checkpoints(&thread).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = puts => {}
        () = removals => {}
    }
    let page = get(fixture, &thread, 99).await;
    assert_eq!(list(&page), expected);
    let written = &page.records[0].writes[0].data.parts()[0];
    assert_eq!(text(&page, written), "write".repeat(100));
}
