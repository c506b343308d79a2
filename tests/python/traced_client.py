"""Makes the calls of a turn with OpenTelemetry's gRPC instrumentation.

Usage: traced_client.py ADDRESS COLLECTOR. Prints the ids of the trace and the conversation.
"""

import json
import sys

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from conversation_memory.v1 import conversation_memory_pb2 as api
from conversation_memory.v1 import conversation_memory_pb2_grpc as rpc
from conversation_memory.v1.resources_pb2 import ROLE_USER, Message

address, collector = sys.argv[1:]
provider = TracerProvider(resource=Resource.create({"service.name": "agent"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=collector)))
trace.set_tracer_provider(provider)
GrpcInstrumentorClient().instrument()

with grpc.insecure_channel(address) as channel:
    memory = rpc.ConversationMemoryStub(channel)
    with trace.get_tracer("agent").start_as_current_span("turn") as span:
        begun = memory.BeginTurn(api.BeginTurnRequest(user_id="ana"), timeout=20)
        conversation = begun.conversation.id
        messages = [Message(role=ROLE_USER, content="How do I request it?")]
        request = api.SaveMessagesRequest(conversation_id=conversation, messages=messages)
        memory.SaveMessages(request, timeout=20)
        memory.GetHistory(api.GetHistoryRequest(conversation_id=conversation), timeout=20)
        trace_id = format(span.get_span_context().trace_id, "032x")
provider.shutdown()
print(json.dumps({"trace": trace_id, "conversation": conversation}))
