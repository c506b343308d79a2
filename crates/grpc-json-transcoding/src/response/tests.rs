use bytes::Bytes;
use futures_util::stream;
use http_body_util::BodyExt as _;
use prost::Message as _;

use super::*;
use crate::{
    frames,
    library::{config, pool},
    rule::{Match, Routes},
};

/// Encoded response with a piece of a file.
fn framed(data: &str, content_type: &str) -> Bytes {
    let body = HttpBody {
        content_type: content_type.to_owned(),
        data: Bytes::copy_from_slice(data.as_bytes()),
    };
    let body = body.encode_to_vec();
    let length = u8::try_from(body.len()).unwrap();
    frames::frame(&[&[0x0a, length], &body])
}

/// Renders the response of a service that sends these frames and ends with this status.
async fn respond(frames: Vec<Bytes>, status: &Status) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).unwrap();
    let frames = frames.into_iter().map(Frame::data);
    let frames = frames
        .chain([Frame::trailers(trailers)])
        .map(Ok::<_, Status>);
    let frames: Vec<_> = frames.collect();
    let mut response = Response::new(Body::new(StreamBody::new(stream::iter(frames))));
    let disposition = HeaderValue::from_static("attachment; filename=\"a.txt\"");
    response
        .headers_mut()
        .insert(header::CONTENT_DISPOSITION, disposition);
    let routes = Routes::of_services(&pool(), &config()).unwrap();
    let Match::Route(route, _) = routes.find(&http::Method::GET, "/v1/books/a:read") else {
        panic!("the route exists");
    };
    render(route, response).await
}

#[tokio::test]
async fn a_stream_becomes_a_file_with_a_name_and_a_type() {
    let whole = [
        framed("a,b\n", "text/csv"),
        framed("1,2\n", ""),
        framed("", ""),
    ]
    .concat();
    // The transport may split messages anywhere.
    let split = whole.chunks(3).map(Bytes::copy_from_slice).collect();
    let file = respond(split, &Status::ok("")).await;
    assert_eq!(file.headers()["content-type"], "text/csv");
    assert_eq!(
        file.headers()["content-disposition"],
        "attachment; filename=\"a.txt\""
    );
    let body = file.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "a,b\n1,2\n");
    let typeless = respond(vec![framed("a", "")], &Status::ok("")).await;
    assert_eq!(
        typeless.headers()["content-type"],
        "application/octet-stream"
    );
}

#[tokio::test]
async fn an_early_error_is_a_response_and_a_later_error_aborts_the_body() {
    let failed = respond(Vec::new(), &Status::not_found("none")).await;
    assert_eq!(failed.status(), 404);
    let broken = respond(vec![framed("a", "")], &Status::internal("broken")).await;
    assert_eq!(broken.status(), 200);
    let error = broken.into_body().collect().await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    let malformed = respond(vec![frames::frame(&[&[0xff]])], &Status::ok("")).await;
    assert_eq!(malformed.status(), 500);
}
