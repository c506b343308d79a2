-- The schema of migrations/postgres/0001_init.sql, which says why. Ids are
-- hyphenated text, which people can read; times are microseconds since 1970.

-- One counter for what happened after what.
CREATE TABLE activity_order (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    last INTEGER NOT NULL
) STRICT;

INSERT INTO activity_order (only, last) VALUES (1, 0);

CREATE TABLE conversations (
    id               TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    user_id          TEXT    NOT NULL CHECK (length(user_id) BETWEEN 1 AND 255),
    dept_id          TEXT    CHECK (length(dept_id) BETWEEN 1 AND 255),
    title            TEXT    CHECK (length(title) BETWEEN 1 AND 255),
    metadata         TEXT,
    last_seq         INTEGER NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    activity         INTEGER NOT NULL,
    last_session_id  TEXT,
    session_attached INTEGER,
    parent_id        TEXT,
    branched_at_seq  INTEGER CHECK (branched_at_seq > 0),
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    CHECK ((last_session_id IS NULL) = (session_attached IS NULL)),
    CHECK ((parent_id IS NULL) = (branched_at_seq IS NULL))
) STRICT;

CREATE UNIQUE INDEX conversations_by_activity ON conversations (user_id, activity DESC);

CREATE INDEX conversations_by_session ON conversations (last_session_id)
    WHERE last_session_id IS NOT NULL;

CREATE TABLE messages (
    conversation_id TEXT    NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    seq             INTEGER NOT NULL CHECK (seq > 0),
    id              TEXT    NOT NULL UNIQUE CHECK (length(id) = 36),
    role            TEXT    NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'tool')),
    content         TEXT    NOT NULL,
    tokens_used     INTEGER CHECK (tokens_used >= 0),
    latency_ms      INTEGER CHECK (latency_ms >= 0),
    metadata        TEXT,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, seq)
) STRICT;

CREATE TABLE message_contexts (
    conversation_id TEXT    NOT NULL,
    seq             INTEGER NOT NULL,
    position        INTEGER NOT NULL CHECK (position >= 0),
    doc_id          TEXT    NOT NULL CHECK (length(doc_id) <= 512),
    content         TEXT    NOT NULL,
    score           REAL,
    metadata        TEXT,
    PRIMARY KEY (conversation_id, seq, position),
    FOREIGN KEY (conversation_id, seq) REFERENCES messages (conversation_id, seq) ON DELETE CASCADE
) STRICT;

CREATE TABLE requests (
    conversation_id TEXT    NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    request_id      TEXT    NOT NULL CHECK (length(request_id) BETWEEN 1 AND 128),
    digest          BLOB    NOT NULL CHECK (length(digest) = 32),
    first_seq       INTEGER NOT NULL,
    last_seq        INTEGER NOT NULL,
    removed         INTEGER,
    created_at      INTEGER NOT NULL,
    PRIMARY KEY (conversation_id, request_id)
) STRICT, WITHOUT ROWID;
