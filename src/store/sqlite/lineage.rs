use sqlx::SqliteConnection;
use uuid::fmt::Hyphenated;

use crate::store::lineage::lineage;

lineage!(SqliteConnection, Hyphenated);
