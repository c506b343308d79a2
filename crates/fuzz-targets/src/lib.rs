//! Functions that pass arbitrary bytes to each decoder of external data, and panic if they find a
//! defect. `fuzz/` runs them with libFuzzer, and `tests/fuzz_targets.rs` with fixed inputs.

mod decoders;
mod service;

/// Function that passes bytes to a decoder.
pub type Target = fn(&[u8]);

/// Targets by their names, which are those of their corpora in `fuzz/corpus`.
pub const TARGETS: [(&str, Target); 10] = [
    ("archive", decoders::archive),
    ("grpc_request", service::grpc_request),
    ("import_file", decoders::import_file),
    ("page_token", service::page_token),
    ("redis_reply", decoders::redis_reply),
    ("request_headers", decoders::request_headers),
    ("rest_request", service::rest_request),
    ("server_url", decoders::server_url),
    ("tokens_file", decoders::tokens_file),
    ("zip_file", decoders::zip_file),
];

/// Passes bytes to a target.
pub fn run(name: &str, data: &[u8]) {
    let (_, target) = TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .unwrap_or_else(|| panic!("there is no target {name}"));
    target(data);
}
