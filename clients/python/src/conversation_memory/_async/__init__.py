"""The asynchronous client. `tools/async_to_sync.py` generates the blocking one from it."""
