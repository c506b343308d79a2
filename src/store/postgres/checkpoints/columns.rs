//! Rows to insert, one array for each column, for `unnest`.

use uuid::Uuid;

use crate::store::checkpoints::{Content, NewValueRow, NewWritesRow, SequenceRow};

/// Columns of data.
pub(super) struct ContentColumns<'a> {
    pub(super) digests: Vec<Uuid>,
    pub(super) sizes: Vec<i32>,
    pub(super) data: Vec<&'a [u8]>,
}

impl<'a> ContentColumns<'a> {
    pub(super) fn new(contents: &'a [Content]) -> Self {
        Self {
            digests: contents.iter().map(|content| content.digest).collect(),
            sizes: contents.iter().map(|content| content.size).collect(),
            data: contents.iter().map(|content| &content.data[..]).collect(),
        }
    }
}

/// Columns of values.
pub(super) struct ValueColumns<'a> {
    pub(super) keys: Vec<Uuid>,
    pub(super) sequences: Vec<Option<i32>>,
    pub(super) first_items: Vec<Option<i32>>,
    pub(super) last_items: Vec<Option<i32>>,
    pub(super) prefixes: Vec<Option<&'a [u8]>>,
    pub(super) bodies: Vec<&'a [u8]>,
}

impl<'a> ValueColumns<'a> {
    pub(super) fn new(values: &'a [NewValueRow]) -> Self {
        let sequence = |of: fn(SequenceRow) -> i32| -> Vec<Option<i32>> {
            values.iter().map(|value| value.sequence.map(of)).collect()
        };
        Self {
            keys: values.iter().map(|value| value.key).collect(),
            sequences: sequence(|row| row.sequence),
            first_items: sequence(|row| row.first),
            last_items: sequence(|row| row.last),
            prefixes: values.iter().map(|value| value.prefix.as_deref()).collect(),
            bodies: values.iter().map(|value| &value.body[..]).collect(),
        }
    }
}

/// Columns of writes.
pub(super) struct WritesColumns<'a> {
    pub(super) digests: Vec<Uuid>,
    pub(super) bodies: Vec<&'a [u8]>,
}

impl<'a> WritesColumns<'a> {
    pub(super) fn new(rows: &'a [NewWritesRow]) -> Self {
        Self {
            digests: rows.iter().map(|row| row.digest).collect(),
            bodies: rows.iter().map(|row| &row.body[..]).collect(),
        }
    }
}

/// Binds a plan to a query, after its other parameters.
macro_rules! bind_planned {
    ($query:expr, $plan:ident, $contents:ident, $values:ident, $checkpoint:expr) => {{
        let checkpoint = &$checkpoint;
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
            .bind(&checkpoint.body[..])
    }};
}
pub(super) use bind_planned;
