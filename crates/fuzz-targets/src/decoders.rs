//! Decoders that need no service.

use std::io::{Cursor, Read as _};

use archive::ArchiveReader;
use bytes::Bytes;
use chrono::DateTime;
use conversation_memory::{
    access::{CrossSitePolicy, HostName, HostPolicy, Tokens, WebOrigin},
    call::{CallKind, Run},
    recent::redis::decode_window,
    redis::{RedisTarget, Reply},
    sessions::redis::decode_session,
    telemetry::{CallTracer, TracingConfig},
};
use domain::{Limits, SessionId, UserId};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use import_formats::{ConversationReader, Format, ImportOptions, Outcome};
use uuid::Uuid;
use zip_files::ZipReader;

const ID: Uuid = Uuid::from_u128(7);

/// Upper bound on a message of a file.
const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Reads a file as an import does. The first byte selects the format, and the size of the pieces.
pub(crate) fn archive(data: &[u8]) {
    let Some((first, file)) = data.split_first() else {
        return;
    };
    let format = match first % 3 {
        0 => None,
        1 => Some(archive::Format::Json),
        _ => Some(archive::Format::JsonLines),
    };
    let piece = 1 + usize::from(*first);
    let reader = ArchiveReader::new(
        format,
        Limits::default(),
        MAX_MESSAGE_BYTES,
        Box::new(|| ID),
    );
    let mut reader = reader.expect("the format can be read");
    let mut last_seq = 0;
    for piece in file.chunks(piece) {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.read_next() {
                Ok(Some(_)) => {
                    assert!(reader.last_seq() >= last_seq, "numbers do not decrease");
                    last_seq = reader.last_seq();
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    while let Ok(Some(_)) = reader.end() {}
}

/// Reads a file of another product. The first byte selects the format.
pub(crate) fn import_file(data: &[u8]) {
    let Some((first, file)) = data.split_first() else {
        return;
    };
    let named = usize::from(*first) % (Format::ALL.len() + 1);
    let options = ImportOptions {
        user_id: UserId::parse("ana").expect("the user is valid"),
        now: DateTime::UNIX_EPOCH,
    };
    let format = Format::ALL.get(named).copied();
    for outcome in ConversationReader::new(file, format, options) {
        let Outcome::Converted(imported) = outcome.expect("memory can be read") else {
            continue;
        };
        let seqs = imported.messages.iter().map(|message| message.seq);
        assert!(
            seqs.eq(1..=imported.conversation.last_seq),
            "the numbers are dense"
        );
        for branch in &imported.branches {
            let first = branch.messages.first().map(|message| message.seq);
            assert_eq!(
                first,
                Some(branch.at_seq + 1),
                "a branch continues its parent"
            );
        }
    }
}

/// Reads the entries of a zip file.
pub(crate) fn zip_file(data: &[u8]) {
    /// Upper bound on what is read of an entry: a small one can contain much.
    const MAX_BYTES: u64 = 1 << 20;
    let Ok(mut zip) = ZipReader::open(Cursor::new(data)) else {
        return;
    };
    let count = zip.names().len();
    for index in 0..count {
        if let Ok(entry) = zip.entry(index) {
            let _ = std::io::copy(&mut entry.take(MAX_BYTES), &mut std::io::sink());
        }
    }
}

/// Parses the file with the tokens of callers.
pub(crate) fn tokens_file(data: &[u8]) {
    if let Err(reason) = Tokens::parse(data) {
        // The reason is logged, and the file contains secrets.
        assert!(reason.len() < 200, "the reason quotes the file: {reason}");
    }
}

/// Decodes replies of the scripts on windows and sessions. Each line is a value.
pub(crate) fn redis_reply(data: &[u8]) {
    let values = data.split(|byte| *byte == b'\n');
    let reply = || {
        let values = values.clone().map(|value| match value {
            b"nil" => Reply::Nil,
            value => Reply::Bytes(Bytes::copy_from_slice(value)),
        });
        Reply::List(values.collect())
    };
    if let Some(window) = decode_window(reply()) {
        assert!(window.messages.is_sorted_by(|a, b| a.seq < b.seq));
        assert_eq!(window.summary.is_some(), window.compacted_upto_seq > 0);
    }
    let _ = decode_session(SessionId::from_uuid(ID), reply());
}

/// Evaluates headers. The first line is the URI of the request, each other one a header.
pub(crate) fn request_headers(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some(Ok(uri)) = lines.next().map(Uri::try_from) else {
        return;
    };
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let tracing = TracingConfig {
        follows_caller: true,
        captures_content: true,
        allows_caller_project: true,
    };
    let kind = CallKind {
        run: "chain",
        operation: None,
    };
    let _ = Run::from_headers(&headers, true);
    let tracer = CallTracer::without_exporter(tracing);
    let _ = tracer.begin(&headers, "method", kind, None);
    let name = |header: &str| headers.get(header).and_then(|value| value.to_str().ok());
    let allowed: Option<HostName> = name("host").and_then(|name| name.parse().ok());
    let _ = HostPolicy::of_api(Vec::new()).check(None, &uri, &headers);
    let _ = HostPolicy::of_api(allowed.into_iter().collect()).check(None, &uri, &headers);
    let trusted: Option<WebOrigin> = name("origin").and_then(|origin| origin.parse().ok());
    let trusted = CrossSitePolicy::new(trusted.into_iter().collect());
    let _ = trusted.check(&Method::POST, &uri, &headers);
}

/// Parses the address of a server.
pub(crate) fn server_url(data: &[u8]) {
    if let Ok(url) = std::str::from_utf8(data) {
        let _ = RedisTarget::from_url(url);
    }
}
