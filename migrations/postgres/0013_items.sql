-- Items of the long-term memory.

-- Order in which items were created. Clocks of different machines disagree, this does not.
CREATE SEQUENCE item_positions AS bigint;

CREATE TABLE items (
    -- Digest of owner, namespace and key, which together are too long for an entry of an index.
    id         bytea       PRIMARY KEY CHECK (octet_length(id) = 32),
    -- User; empty for items of the application. Compared as bytes, in every version of the server's
    -- libraries.
    owner      text        COLLATE "C" NOT NULL CHECK (char_length(owner) <= 255),
    -- Labels, each followed by a zero byte: a prefix of labels is a prefix of the bytes.
    namespace  bytea       NOT NULL CHECK (octet_length(namespace) BETWEEN 2 AND 1024),
    position   bigint      NOT NULL DEFAULT nextval('item_positions'),
    key        text        NOT NULL CHECK (char_length(key) BETWEEN 1 AND 512),
    -- JSON, as text: numbers keep their digits.
    value      text        NOT NULL,
    -- Vectors, each as the number of its components and the components.
    vectors    bytea       NOT NULL,
    -- Time to live in microseconds.
    ttl        bigint      CHECK (ttl > 0),
    expires_at timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CHECK ((ttl IS NULL) = (expires_at IS NULL))
);

-- Searches and lists of namespaces read a range of it.
CREATE INDEX items_by_namespace ON items (owner, namespace, position);

CREATE INDEX items_by_expiry ON items (expires_at) WHERE expires_at IS NOT NULL;

-- Vectors are not compressible.
ALTER TABLE items ALTER COLUMN vectors SET STORAGE EXTERNAL;
