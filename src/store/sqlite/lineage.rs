use sqlx::SqliteConnection;
use uuid::fmt::Hyphenated;

use super::pending_removals::remove;
use crate::store::lineage::lineage;

lineage!(SqliteConnection, Hyphenated, remove);
