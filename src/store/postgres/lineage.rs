use sqlx::PgConnection;
use uuid::Uuid;

use crate::store::lineage::lineage;

lineage!(PgConnection, Uuid);
