-- Conversations, their messages, and what makes a retry safe. PostgreSQL 14 or later.

-- One counter for what happened after what. Clocks of different machines
-- disagree, this does not.
CREATE SEQUENCE activity_order AS bigint;

CREATE TABLE conversations (
    id               uuid        PRIMARY KEY,
    user_id          text        NOT NULL CHECK (char_length(user_id) BETWEEN 1 AND 255),
    dept_id          text        CHECK (char_length(dept_id) BETWEEN 1 AND 255),
    title            text        CHECK (char_length(title) BETWEEN 1 AND 255),
    metadata         jsonb       CHECK (jsonb_typeof(metadata) = 'object'),
    -- The number of the newest message ever saved. A truncation leaves it, so
    -- that no number is given twice.
    last_seq         bigint      NOT NULL DEFAULT 0 CHECK (last_seq >= 0),
    -- When, by activity_order, it was last saved to, truncated or updated.
    activity         bigint      NOT NULL DEFAULT nextval('activity_order'),
    -- The session that was last on it, and when, by activity_order: a session
    -- that moved on to another conversation is found on the later one.
    last_session_id  uuid,
    session_attached bigint,
    -- No foreign key: a branch outlives its parent, and still says where it
    -- came from.
    parent_id        uuid,
    branched_at_seq  bigint      CHECK (branched_at_seq > 0),
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    CHECK ((last_session_id IS NULL) = (session_attached IS NULL)),
    CHECK ((parent_id IS NULL) = (branched_at_seq IS NULL))
);

-- Lists a user's conversations, latest activity first, a page at a time.
CREATE UNIQUE INDEX conversations_by_activity ON conversations (user_id, activity DESC);

CREATE INDEX conversations_by_session ON conversations (last_session_id)
    WHERE last_session_id IS NOT NULL;

CREATE TABLE messages (
    conversation_id uuid        NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    seq             bigint      NOT NULL CHECK (seq > 0),
    id              uuid        NOT NULL,
    role            text        NOT NULL CHECK (role IN ('user', 'assistant', 'system', 'tool')),
    content         text        NOT NULL,
    tokens_used     integer     CHECK (tokens_used >= 0),
    latency_ms      integer     CHECK (latency_ms >= 0),
    metadata        jsonb       CHECK (jsonb_typeof(metadata) = 'object'),
    created_at      timestamptz NOT NULL,
    -- The one index that history is read by, from either end.
    PRIMARY KEY (conversation_id, seq),
    CONSTRAINT messages_id_key UNIQUE (id)
);

-- Keyed by the message's number, not its id: the primary key then serves the
-- reads, the cascade and the order, and no further index is needed.
CREATE TABLE message_contexts (
    conversation_id uuid             NOT NULL,
    seq             bigint           NOT NULL,
    position        integer          NOT NULL CHECK (position >= 0),
    doc_id          text             NOT NULL CHECK (char_length(doc_id) <= 512),
    content         text             NOT NULL,
    score           double precision,
    metadata        jsonb            CHECK (jsonb_typeof(metadata) = 'object'),
    PRIMARY KEY (conversation_id, seq, position),
    FOREIGN KEY (conversation_id, seq) REFERENCES messages (conversation_id, seq) ON DELETE CASCADE
);

-- What was done under which idempotency key. A table of its own, since a retry
-- must stay recognised after its messages were truncated away, and a
-- truncation has no message to stand on. Of two simultaneous retries the
-- primary key lets one pass.
CREATE TABLE requests (
    conversation_id uuid        NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    request_id      text        NOT NULL CHECK (char_length(request_id) BETWEEN 1 AND 128),
    digest          bytea       NOT NULL CHECK (octet_length(digest) = 32),
    -- A save: the numbers it gave. A truncation: the first number that was to
    -- go, and the conversation's last one.
    first_seq       bigint      NOT NULL,
    last_seq        bigint      NOT NULL,
    -- How many messages a truncation removed; NULL for a save.
    removed         bigint,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (conversation_id, request_id)
);
