"""Dicts in the OpenAI form come back as they went in."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversation_memory import ConversationMemory, Message, Original, RetrievedContext
from conversation_memory import _convert as convert
from conversation_memory._proto.v1 import resources_pb2 as resources

TOOL_CALLS = [
    {
        "id": "call_1",
        "type": "function",
        "function": {"name": "days_left", "arguments": '{"employee": 7}'},
    }
]

FORMS: list[dict[str, Any]] = [
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


def on_the_wire_and_back(message: Message) -> Message:
    sent = convert.write_message(message, "").SerializeToString()
    return convert.read_message(resources.Message.FromString(sent))


def same(one: Any, other: Any) -> bool:
    """Equality that tells 1 from 1.0 and from True."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_a_form_survives_the_wire(form: dict[str, Any]) -> None:
    before = json.dumps(form)
    back = on_the_wire_and_back(Message.from_openai(form))
    assert same(back.to_openai(), form)
    assert json.dumps(form) == before


def test_all_forms_survive_the_service(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    saved = memory.save_messages(conversation, FORMS)
    listed = list(memory.list_messages(conversation))
    assert [message.seq for message in listed] == list(range(1, len(FORMS) + 1))
    for messages in (saved.messages, listed, memory.get_history(conversation, limit=99).messages):
        for message, form in zip(messages, FORMS, strict=True):
            assert same(message.to_openai(), form)


def test_a_plain_message_is_stored_plainly() -> None:
    sent = convert.write_message(Message.from_openai({"role": "user", "content": "hi"}), "")
    assert (sent.role, sent.content) == (resources.ROLE_USER, "hi")
    assert not sent.HasField("metadata")


def test_parts_can_be_searched_and_give_a_title() -> None:
    form = FORMS[13]
    sent = convert.write_message(Message.from_openai(form), "")
    assert sent.content.startswith("What is this?\n")
    back = convert.read_message(sent)
    assert back.content == "What is this?"
    assert back.metadata == {}


def test_the_limit_of_metadata_is_met_to_the_byte(memory: ConversationMemory, user: str) -> None:
    conversation = memory.create_conversation(user).id
    frame = len(json.dumps({"_original": {"form": "openai", "json": '{"name":""}'}})) - 6 + 2
    for excess in range(-4, 5):
        form = {"role": "user", "content": "hi", "name": "n" * (65536 - frame + excess)}
        memory.save_messages(conversation, [form])
        (back,) = memory.get_history(conversation, limit=1).messages
        assert back.to_openai() == form
        assert back.content == "hi"


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
forms = st.builds(
    lambda extra, role, content: {**extra, "role": role, **content},
    st.dictionaries(st.text(), json_values, max_size=3),
    roles,
    st.fixed_dictionaries({}, optional={"content": texts | st.none() | parts}),
)


@given(forms)
def test_any_form_survives_the_wire(form: dict[str, Any]) -> None:
    message = Message.from_openai(form)
    sent = convert.write_message(message, "")
    assert "\0" not in sent.content
    assert sent.content or sent.metadata.fields, "the service refuses an empty message"
    back = on_the_wire_and_back(message)
    assert same(back.to_openai(), form)
    assert back.content == message.content


@pytest.mark.parametrize(
    "form",
    [{}, {"role": "critic", "content": "x"}, {"role": None}, {"role": "user", "content": {1: 2}}],
)
def test_what_cannot_be_kept_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Message.from_openai(form)


def test_what_json_cannot_express_is_refused_without_its_text() -> None:
    with pytest.raises(TypeError) as refused:
        Message.from_openai({"role": "user", "content": "hi", "image": b"secret"})
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="surrogates") as refused_text:
        convert.write_message(Message("user", "secret \ud800"), "")
    assert "secret" not in str(refused_text.value)


def test_a_model_of_openai_is_taken_for_what_was_set_in_it() -> None:
    class Answer:
        def model_dump(self, *, exclude_unset: bool = False) -> dict[str, Any]:
            return {"role": "assistant", "content": "25 days"} | (
                {} if exclude_unset else {"audio": None}
            )

    (sent,) = convert.write_messages([Answer()], "")
    assert convert.read_message(sent).to_openai() == {"role": "assistant", "content": "25 days"}


def test_another_frameworks_original_reads_as_role_and_content() -> None:
    original = Original.of("adk", {"event": 2**60})
    back = on_the_wire_and_back(Message("assistant", "hi", original=original))
    assert back.original == original
    assert back.original is not None
    assert back.original.value == {"event": 2**60}
    assert back.to_openai() == {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize(
    "kept",
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
def test_what_only_looks_like_an_original_stays_metadata(kept: Any) -> None:
    sent = convert.write_message(Message("user", "hi", metadata={"_original": kept}), "")
    back = convert.read_message(sent)
    assert back.metadata == {"_original": kept}
    assert back.original is None
    assert back.to_openai() == {"role": "user", "content": "hi"}


def test_what_only_looks_like_an_original_fails_no_history(
    memory: ConversationMemory, user: str
) -> None:
    conversation = memory.create_conversation(user).id
    texts = ["[" * 30_000, "[1]", '{"a":' * 500 + "1" + "}" * 500]
    kept = [{"form": "openai", "json": text} for text in texts]
    memory.save_messages(
        conversation, [Message("user", "hi", metadata={"_original": k}) for k in kept]
    )
    history = memory.get_history(conversation)
    assert [message.metadata for message in history.messages] == [{"_original": k} for k in kept]
    assert history.to_openai() == [{"role": "user", "content": "hi"}] * 3


def nested(levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    return value


def test_levels_are_bounded() -> None:
    form = {"role": "user", "content": "hi", "deep": nested(199)}
    assert on_the_wire_and_back(Message.from_openai(form)).to_openai() == form
    endless: list[Any] = []
    endless.append(endless)
    for deep in (nested(200), nested(10_000), endless):
        with pytest.raises(ValueError, match="levels"):
            Message.from_openai(form | {"deep": deep})


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Message.from_openai({"role": "user", "content": "hi", "n": [{"m": number}]})


def test_a_picture_without_text_gives_a_readable_title(
    memory: ConversationMemory, user: str
) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 99_000}}
    form = {"role": "user", "content": [picture]}
    conversation = memory.create_conversation(user).id
    memory.save_messages(conversation, [form])
    (back,) = memory.get_history(conversation).messages
    assert (back.content, back.metadata, back.to_openai()) == ("", {}, form)
    assert memory.get_conversation(conversation).title == "(no text)"


def test_a_message_with_contexts_can_be_hashed() -> None:
    assert hash(Message("user", "hi", contexts=[RetrievedContext("25 days")]))
