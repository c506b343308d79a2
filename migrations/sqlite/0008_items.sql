-- See migrations/postgres/0013_items.sql.
CREATE TABLE items (
    -- Not used again, so that it is the order in which items were created.
    position   INTEGER PRIMARY KEY AUTOINCREMENT,
    id         BLOB    NOT NULL UNIQUE CHECK (length(id) = 32),
    owner      TEXT    NOT NULL,
    namespace  BLOB    NOT NULL CHECK (length(namespace) BETWEEN 2 AND 1024),
    key        TEXT    NOT NULL CHECK (length(key) BETWEEN 1 AND 512),
    ttl        INTEGER CHECK (ttl > 0),
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    value      TEXT    NOT NULL,
    -- The last column, so that the others are read without it.
    vectors    BLOB    NOT NULL,
    CHECK ((ttl IS NULL) = (expires_at IS NULL))
) STRICT;

CREATE INDEX items_by_namespace ON items (owner, namespace, position);

CREATE INDEX items_by_expiry ON items (expires_at) WHERE expires_at IS NOT NULL;
