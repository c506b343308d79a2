"""Messages in the OpenAI form are read back equal."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_memory import (
    BlobPart,
    ConversationMemory,
    Message,
    Original,
    RetrievedContext,
    TextPart,
)
from conversation_memory import _convert as convert
from conversation_memory._forms.chat import show_history
from conversation_memory._proto.v1 import resources_pb2 as resources

TOOL_CALLS = [
    {
        "id": "call_1",
        "type": "function",
        "function": {"name": "days_left", "arguments": '{"employee": 7}'},
    }
]

EXAMPLES: list[dict[str, Any]] = [
    {"role": "user", "content": "How many days are left?"},
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": ""},
    {"role": "user", "content": "hi", "name": "ana"},
    {"role": "assistant", "content": None, "tool_calls": TOOL_CALLS},
    {"role": "assistant", "tool_calls": TOOL_CALLS},
    {"role": "assistant", "content": "Let me see.", "tool_calls": TOOL_CALLS},
    {"role": "assistant", "content": None, "refusal": "No."},
    {"role": "tool", "tool_call_id": "call_1", "content": "17"},
    {"role": "function", "name": "days_left", "content": "17"},
    {"role": "tool", "tool_call_id": "call_1", "content": "a\0b \ud83d"},
    {"role": "assistant", "content": "ok", "audio": {"id": "a", "expires_at": 2**60, "x": 1.0}},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 200_000}},
        ],
    },
    {"role": "user", "content": []},
    {"role": "user", "content": [{"type": "text", "text": "ä" * 40_000}], "name": "\x01\x02"},
]


def encode_and_decode(message: Message) -> Message:
    sent = convert.write_message(message, "").SerializeToString()
    return convert.read_message(resources.Message.FromString(sent))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, where 1, 1.0 and True are different."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_is_decoded_equal(example: dict[str, Any]) -> None:
    before = json.dumps(example)
    back = encode_and_decode(Message.from_openai(example))
    assert same(back.to_openai(), example)
    assert json.dumps(example) == before


def test_examples_are_read_back_from_the_service(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    saved = memory.save_messages(conversation, EXAMPLES)
    listed = list(memory.list_messages(conversation, include_blobs=True))
    assert [message.seq for message in listed] == list(range(1, len(EXAMPLES) + 1))
    for message, example in zip(listed, EXAMPLES, strict=True):
        assert same(message.to_openai(), example)
    for message, example in zip(saved.messages, EXAMPLES, strict=True):
        has_data = any(isinstance(part, BlobPart) for part in message.parts)
        assert has_data or same(message.to_openai(), example)
    history = memory.get_history(conversation, limit=99)
    by_seq = {message.seq: message for message in listed}
    # Results without their call are in no history.
    assert len(history.messages) > 9
    for message in history.messages:
        assert message == by_seq[message.seq]


def test_plain_text_has_no_original() -> None:
    sent = convert.write_message(Message.from_openai({"role": "user", "content": "hi"}), "")
    assert (sent.role, sent.content) == (resources.ROLE_USER, "hi")
    assert not sent.HasField("metadata")


def test_texts_of_parts_become_the_content() -> None:
    message = Message.from_openai(EXAMPLES[13])
    text, image = message.parts
    assert (message.content, text) == ("What is this?", TextPart("What is this?"))
    assert isinstance(image, BlobPart)
    assert (image.mime_type, image.size_bytes) == ("image/png", 150_000)
    sent = convert.write_message(message, "")
    assert (sent.content, len(sent.parts)) == ("", 2)
    assert sent.ByteSize() < 150_200, "nothing is stored twice"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)
roles = st.sampled_from(["user", "assistant", "system", "developer", "tool", "function"])
texts = st.text(st.characters(exclude_categories=()))
parts = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts}) | json_values, max_size=4
)
examples = st.builds(
    lambda extra, role, content: {**extra, "role": role, **content},
    st.dictionaries(st.text(), json_values, max_size=3),
    roles,
    st.fixed_dictionaries({}, optional={"content": texts | st.none() | parts}),
)


@given(examples)
def test_any_message_is_decoded_equal(example: dict[str, Any]) -> None:
    message = Message.from_openai(example)
    sent = convert.write_message(message, "")
    assert "\0" not in sent.content
    assert sent.content or sent.parts, "the service rejects an empty message"
    back = encode_and_decode(message)
    assert same(back.to_openai(), example)
    assert back.content == message.content


@given(
    st.fixed_dictionaries({"role": roles, "content": texts}),
    st.sampled_from([{}, {"tokens_used": 1}, {"pinned": True}, {"name": "ana"}]),
)
def test_a_text_is_the_same_message_as_from_any_mapping(
    example: dict[str, Any], fields: dict[str, Any]
) -> None:
    # Only plain dicts with a role and a text are converted directly.
    converted = Message.from_openai(MappingProxyType(example), **fields)
    assert Message.from_openai(example, **fields) == converted


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), texts, texts)))
def test_texts_are_shown_the_same_with_and_without_other_messages(
    given_texts: list[tuple[Any, str, str]],
) -> None:
    messages = [Message(role, text, name=name) for role, text, name in given_texts]
    image = Message("user", parts=(BlobPart("image/png", b"x"),))
    assert show_history(messages) == show_history([*messages, image])[:-1]


@pytest.mark.parametrize(
    "example",
    [{}, {"role": "critic", "content": "x"}, {"role": None}, {"role": "user", "content": {1: 2}}],
)
def test_invalid_messages_are_rejected(example: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Message.from_openai(example)


def test_errors_do_not_contain_the_message() -> None:
    with pytest.raises(TypeError) as refused:
        Message.from_openai({"role": "user", "content": "hi", "image": b"secret"})
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="surrogates") as refused_text:
        convert.write_message(Message("user", "secret \ud800"), "")
    assert "secret" not in str(refused_text.value)


def test_unset_fields_of_a_model_are_left_out() -> None:
    class Answer:
        def model_dump(self, *, exclude_unset: bool = False) -> dict[str, Any]:
            return {"role": "assistant", "content": "25 days"} | (
                {} if exclude_unset else {"audio": None}
            )

    (sent,) = convert.write_messages([Answer()], "")
    assert convert.read_message(sent).to_openai() == {"role": "assistant", "content": "25 days"}


def test_original_of_another_framework_is_read_as_role_and_content() -> None:
    original = Original.of("adk", {"event": 2**60})
    back = encode_and_decode(Message("assistant", "hi", original=original))
    assert back.original == original
    assert back.original is not None
    assert back.original.value == {"event": 2**60}
    assert back.to_openai() == {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    "stored",
    [
        "text",
        {},
        {"form": 1, "json": "{}"},
        {"form": "openai"},
        {"form": "openai", "json": "{"},
        {"form": "openai", "text": 99},
        {"form": "openai", "text": -1},
        {"form": "openai", "text": 0},
        {"form": "openai", "text": 0, "placeholder": -1},
        {"form": "openai", "text": 0, "placeholder": "1"},
        {"form": "openai", "json": "[1]"},
        {"form": "openai", "json": "null"},
        {"form": "openai", "json": "[" * 30_000},
        {"form": "adk", "json": "[" * 30_000},
        {"form": "adk", "json": "[" * 201 + "]" * 201},
        {"form": "openai", "json": '{"n":' + "1" * 5000 + "}"},
    ],
)
def test_invalid_original_stays_in_metadata(stored: Any) -> None:
    sent = convert.write_message(Message("user", "hi", metadata={"_original": stored}), "")
    back = convert.read_message(sent)
    assert back.metadata == {"_original": stored}
    assert back.original is None
    assert back.to_openai() == {"role": "user", "content": "hi"}


def test_invalid_original_does_not_fail_a_history(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    texts = ["[" * 30_000, "[1]", '{"a":' * 500 + "1" + "}" * 500]
    stored = [{"form": "openai", "json": text} for text in texts]
    memory.save_messages(
        conversation, [Message("user", "hi", metadata={"_original": k}) for k in stored]
    )
    history = memory.get_history(conversation)
    assert [message.metadata for message in history.messages] == [{"_original": k} for k in stored]
    assert history.to_openai() == [{"role": "user", "content": "hi"}] * 3


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_nesting_depth_is_limited() -> None:
    example = {"role": "user", "content": "hi", "deep": nested(199)}
    assert encode_and_decode(Message.from_openai(example)).to_openai() == example
    endless: list[Any] = []
    endless.append(endless)
    for deep in (nested(200), nested(10_000), endless):
        with pytest.raises(ValueError, match="levels"):
            Message.from_openai(example | {"deep": deep})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_rejected(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Message.from_openai({"role": "user", "content": "hi", "n": [{"m": number}]})


def test_message_with_contexts_is_hashable() -> None:
    assert hash(Message("user", "hi", contexts=[RetrievedContext("25 days")]))
