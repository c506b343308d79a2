"""Sessions, histories and saves by redis-py and psycopg alone.

A session is a hash and a history is a list in Redis, both with a TTL. Messages are saved in
PostgreSQL in a transaction, and are added to the list after the commit.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import redis
import redis.asyncio
from psycopg_pool import AsyncConnectionPool, ConnectionPool

Message = dict[str, str]

TTL_SECONDS = 1800
NEWEST = 6
"""Number of messages of a history, as the service returns them without a limit."""
CONNECTIONS = 20

SCHEMA = """
    CREATE SCHEMA IF NOT EXISTS by_hand;
    CREATE TABLE IF NOT EXISTS by_hand.conversations (
        id uuid PRIMARY KEY,
        last_seq bigint NOT NULL,
        updated_at timestamptz NOT NULL
    );
    CREATE TABLE IF NOT EXISTS by_hand.messages (
        conversation_id uuid NOT NULL,
        seq bigint NOT NULL,
        role text NOT NULL,
        content text NOT NULL,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (conversation_id, seq)
    );
"""
CREATE = "INSERT INTO by_hand.conversations VALUES (%s, 0, now())"
NUMBER = """
    UPDATE by_hand.conversations SET last_seq = last_seq + 2, updated_at = now()
    WHERE id = %s RETURNING last_seq
"""
INSERT = """
    INSERT INTO by_hand.messages (conversation_id, seq, role, content, created_at)
    VALUES (%s, %s, %s, %s, now()), (%s, %s, %s, %s, now())
"""


def _reads(pipeline: Any, session: str) -> Any:
    pipeline.hgetall(f"by_hand:session:{session}")
    pipeline.expire(f"by_hand:session:{session}", TTL_SECONDS)
    pipeline.lrange(f"by_hand:history:{session}", -NEWEST, -1)
    return pipeline


def _writes(pipeline: Any, session: str, messages: list[Message]) -> Any:
    key = f"by_hand:history:{session}"
    pipeline.rpush(key, *map(json.dumps, messages))
    pipeline.ltrim(key, -NEWEST, -1)
    pipeline.expire(key, TTL_SECONDS)
    return pipeline


def _session(session: str) -> dict[str, Any]:
    return {
        "name": f"by_hand:session:{session}",
        "mapping": {"user_id": f"user-{session}", "conversation_id": session},
    }


def _rows(session: str, last_seq: int, messages: list[Message]) -> list[Any]:
    first = last_seq - len(messages) + 1
    rows = [
        (session, first + index, message["role"], message["content"])
        for index, message in enumerate(messages)
    ]
    return [value for row in rows for value in row]


class Drivers:
    """Blocking drivers, which threads share."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(redis_url)
        self._pool = ConnectionPool(database_url, min_size=1, max_size=CONNECTIONS, open=True)
        with self._pool.connection() as connection:
            connection.execute(SCHEMA)

    def new_session(self) -> str:
        """Creates a session with a conversation, which have the same id."""
        session = str(uuid.uuid4())
        with self._pool.connection() as connection:
            connection.execute(CREATE, [session])
        self._redis.hset(**_session(session))
        return session

    def begin(self, session: str) -> list[Message]:
        """Renews the session and returns the newest messages."""
        found, _, history = _reads(self._redis.pipeline(transaction=False), session).execute()
        if not found:
            raise KeyError(session)
        return [json.loads(message) for message in history]

    def save(self, session: str, messages: list[Message]) -> None:
        """Saves the messages of a turn."""
        with self._pool.connection() as connection:
            row = connection.execute(NUMBER, [session]).fetchone()
            connection.execute(INSERT, _rows(session, row[0], messages))
        _writes(self._redis.pipeline(transaction=False), session, messages).execute()


class AsyncDrivers:
    """Asynchronous drivers, which tasks share."""

    def __init__(self, pool: AsyncConnectionPool, redis_url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(redis_url)
        self._pool = pool

    @classmethod
    async def connect(cls, database_url: str, redis_url: str) -> AsyncDrivers:
        """Opens the connections and creates the tables."""
        pool = AsyncConnectionPool(database_url, min_size=1, max_size=CONNECTIONS, open=False)
        await pool.open()
        async with pool.connection() as connection:
            await connection.execute(SCHEMA)
        return cls(pool, redis_url)

    async def new_session(self) -> str:
        """Creates a session with a conversation, which have the same id."""
        session = str(uuid.uuid4())
        async with self._pool.connection() as connection:
            await connection.execute(CREATE, [session])
        await self._redis.hset(**_session(session))
        return session

    async def begin(self, session: str) -> list[Message]:
        """Renews the session and returns the newest messages."""
        pipeline = _reads(self._redis.pipeline(transaction=False), session)
        found, _, history = await pipeline.execute()
        if not found:
            raise KeyError(session)
        return [json.loads(message) for message in history]

    async def save(self, session: str, messages: list[Message]) -> None:
        """Saves the messages of a turn."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(NUMBER, [session])).fetchone()
            await connection.execute(INSERT, _rows(session, row[0], messages))
        await _writes(self._redis.pipeline(transaction=False), session, messages).execute()
