//! Redis, for the rooms that use it: one client, a breaker, scripts.
