//! Rows to insert, one array for each column, for `unnest`.

use uuid::Uuid;

use crate::store::checkpoints::{Content, NewValueRow, SequenceRow};

/// Columns of data.
pub(super) struct ContentColumns {
    pub(super) digests: Vec<Uuid>,
    pub(super) sizes: Vec<i32>,
    pub(super) data: Vec<Vec<u8>>,
}

impl ContentColumns {
    pub(super) fn new(contents: Vec<Content>) -> Self {
        Self {
            digests: contents.iter().map(|content| content.digest).collect(),
            sizes: contents.iter().map(|content| content.size).collect(),
            data: contents.into_iter().map(|content| content.data).collect(),
        }
    }
}

/// Columns of values.
pub(super) struct ValueColumns {
    pub(super) keys: Vec<Uuid>,
    pub(super) sequences: Vec<Option<i32>>,
    pub(super) first_items: Vec<Option<i32>>,
    pub(super) last_items: Vec<Option<i32>>,
    pub(super) prefixes: Vec<Option<Vec<u8>>>,
    pub(super) bodies: Vec<Vec<u8>>,
}

impl ValueColumns {
    pub(super) fn new(values: Vec<NewValueRow>) -> Self {
        let sequence = |of: fn(SequenceRow) -> i32| -> Vec<Option<i32>> {
            values.iter().map(|value| value.sequence.map(of)).collect()
        };
        let sequences = sequence(|row| row.sequence);
        let first_items = sequence(|row| row.first);
        let last_items = sequence(|row| row.last);
        let keys = values.iter().map(|value| value.key).collect();
        let values = values.into_iter().map(|value| (value.prefix, value.body));
        let (prefixes, bodies) = values.unzip();
        Self {
            keys,
            sequences,
            first_items,
            last_items,
            prefixes,
            bodies,
        }
    }
}

/// Binds a plan to a query, after its other parameters.
macro_rules! bind_planned {
    ($query:expr, $plan:ident, $contents:ident, $values:ident, $checkpoint:expr) => {{
        let checkpoint = $checkpoint;
        $query
            .bind($plan.thread)
            .bind($plan.removals)
            .bind($plan.namespace)
            .bind($contents.digests)
            .bind($contents.sizes)
            .bind($contents.data)
            .bind($values.keys)
            .bind($values.sequences)
            .bind($values.first_items)
            .bind($values.last_items)
            .bind($values.prefixes)
            .bind($values.bodies)
            .bind(checkpoint.id)
            .bind(checkpoint.parent_id)
            .bind(checkpoint.run_id)
            .bind(checkpoint.body)
    }};
}
pub(super) use bind_planned;
