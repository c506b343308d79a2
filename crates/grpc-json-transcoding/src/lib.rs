//! A [`tower`] layer that serves gRPC services over HTTP with JSON, as their
//! `google.api.http` annotations say.
