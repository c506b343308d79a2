"""Methods of the asynchronous client for export and import."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import BinaryIO

import grpc

from .._config import LONG_TIMEOUT
from .._convert import read_imported
from .._errors import Attempt, from_rpc_error
from .._files import (
    Destination,
    ExportFormat,
    FileSource,
    ImportFormat,
    export_request,
    import_options,
    open_destination,
    open_source,
    read_chunk,
    write_chunk,
)
from .._proto.v1 import conversation_memory_pb2 as api
from .._proto.v1 import methods
from .._types import Imported
from .base import AsyncBaseClient


class AsyncFiles(AsyncBaseClient):
    """Export and import."""

    async def export_conversation(
        self,
        conversation_id: str,
        destination: Destination,
        *,
        format: ExportFormat = "json",
        user_id: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Writes a snapshot of a conversation to a file.

        Args:
            conversation_id: Conversation to export.
            destination: Path, or file that is open for writing bytes. At a path the file appears
                when it is complete, readable by its owner only; a symbolic link is kept and its
                target is replaced. An open file, a pipe or a device is incomplete after an error.
            format: Format of the file: "json", "jsonl", "csv" or "markdown"; only the
                first two can be imported.
            user_id: Expected owner of the conversation; `None` skips the check.
            timeout: Time limit in seconds; `None` uses the client's `timeout`, or 60 if that is
                longer.

        Raises:
            ValueError: The format is unknown.
            OSError: The destination cannot be written.
            ResourceExhausted: Too many exports and imports run at once: repeat the call after
                `retry_after`.
            NotFound: The conversation does not exist or belongs to another user: check both ids.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        request = export_request(conversation_id, format, user_id)
        with open_destination(destination) as file:
            seconds = self._config.seconds(timeout, LONG_TIMEOUT)
            attempt = Attempt(self._config.target)
            try:
                call = self._channel.unary_stream(methods.EXPORT_CONVERSATION, request, seconds)
                try:
                    async for response in call:
                        await asyncio.to_thread(write_chunk, file, response)
                finally:
                    # An export that is not read to its end must not hold the server's snapshot.
                    call.cancel()
            except grpc.RpcError as error:
                raise from_rpc_error(error, attempt, idempotent=True, request_id=None) from error

    async def import_conversation(
        self,
        source: FileSource,
        *,
        format: ImportFormat | None = None,
        user_id: str | None = None,
        dept_id: str | None = None,
        keep_ids: bool = False,
        timeout: float | None = None,
    ) -> Imported:
        """Creates a conversation from an exported file, completely or not at all.

        The request is sent once, because a second one would create another conversation, or fail
        with `keep_ids`.

        Args:
            source: Path, or file that is open for reading bytes. A file in non-blocking mode
                raises `BlockingIOError` when it has no data.
            format: Format of the file, "json" or "jsonl"; `None` detects it.
            user_id: Owner of the conversation; `None` uses the owner that the file names.
            dept_id: Department or tenant; `None` uses the one that the file names.
            keep_ids: Keeps the ids of the conversation and its messages, to restore what was
                exported and deleted.
            timeout: Time limit in seconds; `None` uses the client's `timeout`, or 60 if that is
                longer.

        Returns:
            The new conversation and the number of its messages.

        Raises:
            ValueError: The format is unknown.
            OSError: The source cannot be read.
            InvalidArgument: The file is not valid; `violations` names the line and field.
            AlreadyExists: The id of the conversation is in use, with the reason
                `CONVERSATION_ID_REUSED`: it is there already. With `MESSAGE_ID_REUSED`, a message
                id occurs twice in the file.
            ResourceExhausted: Too many exports and imports run at once: repeat the call after
                `retry_after`. With the reason `STORE_FULL`, the disk of the store is full.
            OutcomeUnknown: The conversation may have been created: look for it with
                `list_conversations` before repeating the call.
            ConversationMemoryError: The call failed for another reason; its class says what to do.
        """
        with open_source(source) as file:
            requests = AsyncImportRequests(file, import_options(format, user_id, dept_id, keep_ids))
            seconds = self._config.seconds(timeout, LONG_TIMEOUT)
            attempt = Attempt(self._config.target)
            try:
                answer = await self._channel.stream_unary(
                    methods.IMPORT_CONVERSATION, requests, seconds
                )
            except asyncio.CancelledError:
                # gRPC reports a request stream that fails as a cancellation.
                if requests.failure is not None:
                    raise requests.failure from None
                raise
            except grpc.RpcError as error:
                if requests.failure is not None:
                    raise requests.failure from None
                raise from_rpc_error(error, attempt, idempotent=False, request_id=None) from error
        return read_imported(answer)


class AsyncImportRequests:
    """Request stream of an import: the options, followed by the chunks of the file.

    gRPC cancels a call whose request stream fails, without the cause: `failure` holds it.
    """

    def __init__(self, file: BinaryIO, options: api.ImportConversationRequest.Options) -> None:
        self._file = file
        self._options = options
        self.failure: BaseException | None = None

    async def __aiter__(self) -> AsyncIterator[api.ImportConversationRequest]:
        yield api.ImportConversationRequest(options=self._options)
        while request := await self._read():
            yield request

    async def _read(self) -> api.ImportConversationRequest | None:
        try:
            return await asyncio.to_thread(read_chunk, self._file)
        except asyncio.CancelledError:
            # The call or its task was cancelled; reading the file has not failed.
            raise
        except BaseException as failure:
            self.failure = failure
            # gRPC ends the call only for an `Exception`; other exceptions would leave it waiting.
            raise RuntimeError("the file cannot be read") from failure
