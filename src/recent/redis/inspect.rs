//! A readable form of windows, for operators.

use bytes::Bytes;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Map, Value, json};

use super::window_fields::WindowFields;
use crate::{
    domain::ConversationId,
    proto,
    recent::EncodedMessage,
    redis::{Redis, RedisError, Reply, Script},
};

/// Reads the window of a conversation as JSON, without changing it: the fields in Redis, and the
/// messages if the window has the format of this version. `None` if there is no window.
///
/// # Errors
///
/// Fails with [`RedisError`] if Redis does not reply, or not with a hash.
pub async fn inspect(
    redis: &Redis,
    conversation: ConversationId,
) -> Result<Option<Value>, RedisError> {
    let key = redis.key(format_args!("history:{conversation}:recent"));
    let source = "return { redis.call('PTTL', KEYS[1]), redis.call('HGETALL', KEYS[1]) }";
    let script = Script::new("inspect", source);
    let mut reply = redis.run(&script, &key, &[]).await?.list()?.into_iter();
    let (Some(ttl), Some(fields)) = (reply.next(), reply.next()) else {
        return Err(RedisError::UnexpectedReply);
    };
    let described = describe(fields.clone().list()?)?;
    if described.is_empty() {
        return Ok(None);
    }
    let window = WindowFields::parse(fields).and_then(WindowFields::into_whole);
    let window = window.map(|window| {
        json!({
            "owner": window.owner.as_str(),
            "last_seq": window.last_seq,
            "compacted_upto_seq": window.compacted_upto_seq,
            "uncompacted_tokens": window.uncompacted_tokens,
            "is_complete": window.is_complete,
            "pinned": window.pinned.iter().map(message).collect::<Vec<_>>(),
            "summary": window.summary.as_ref().map(message),
            "messages": window.messages.iter().map(message).collect::<Vec<_>>(),
        })
    });
    Ok(Some(json!({
        "key": key,
        "ttl_ms": ttl.integer()?,
        "fields": described,
        "window": window,
    })))
}

/// Describes fields by their texts, or by their lengths if they are binary.
fn describe(fields: Vec<Reply>) -> Result<Map<String, Value>, RedisError> {
    let mut described = Map::new();
    let mut values = fields.into_iter();
    while let (Some(name), Some(value)) = (values.next(), values.next()) {
        let name = name.text()?;
        let is_entry = name.starts_with("s:") || name.starts_with("h:");
        let value = match value {
            Reply::Bytes(bytes) => match std::str::from_utf8(&bytes) {
                Ok(text) if !is_entry => Value::from(text),
                _ => Value::from(format!("{} bytes", bytes.len())),
            },
            _ => return Err(RedisError::UnexpectedReply),
        };
        described.insert(name.to_owned(), value);
    }
    Ok(described)
}

/// Describes a message as the REST API does.
fn message(message: &EncodedMessage) -> Value {
    json(message.bytes.clone()).unwrap_or_else(|| json!({ "seq": message.seq, "invalid": true }))
}

fn json(message: Bytes) -> Option<Value> {
    let descriptor = proto::message_descriptor("Message")?;
    let decoded = DynamicMessage::decode(descriptor, message).ok()?;
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .stringify_64_bit_integers(false);
    decoded
        .serialize_with_options(serde_json::value::Serializer, &options)
        .ok()
}
