//! Traces of callers that use LangSmith's SDK. They send `langsmith-trace`, the
//! dotted order of their current run, and `baggage` with its project.
//!
//! A dotted order contains one segment for each run beginning with the root of the trace,
//! separated by dots. A segment is the start of the run, to the microsecond, and its id.

use std::{sync::Arc, time::SystemTime};

use chrono::{DateTime, NaiveDateTime, Utc};
use http::HeaderMap;
use opentelemetry::{
    KeyValue,
    trace::{SpanId, TraceId},
};
use percent_encoding::percent_decode_str;
use uuid::Uuid;

/// Format of a start in a segment.
const START_FORMAT: &str = "%Y%m%dT%H%M%S%6fZ";
/// Length of a formatted start.
const START_LEN: usize = 22;
/// Length of a run's id.
const ID_LEN: usize = 36;

/// Upper bound on the bytes of a caller's dotted order, enough for more than a
/// hundred nested runs.
const MAX_ORDER: usize = 8 << 10;
/// Upper bound on the bytes of a project's name.
const MAX_PROJECT: usize = 256;

/// Run in a LangSmith trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    trace: Uuid,
    id: Uuid,
    parent: Option<Uuid>,
    start: DateTime<Utc>,
    order: String,
    project: Option<Arc<str>>,
}

impl Run {
    /// Reads the caller's current run from the headers of a call, with its project if the caller
    /// may choose it. `None` if there is none or it is invalid.
    pub fn from_headers(headers: &HeaderMap, allows_project: bool) -> Option<Self> {
        let order = headers.get("langsmith-trace")?.to_str().ok()?.trim();
        let project = || {
            let baggage = headers.get_all("baggage").iter();
            let mut baggage = baggage.filter_map(|value| value.to_str().ok());
            baggage.find_map(project)
        };
        Self::parse(order, allows_project.then(project).flatten())
    }

    fn parse(order: &str, project: Option<Arc<str>>) -> Option<Self> {
        if order.len() > MAX_ORDER {
            return None;
        }
        let segments: Vec<_> = order.split('.').map(segment).collect::<Option<_>>()?;
        let (_, trace) = *segments.first()?;
        let (start, id) = *segments.last()?;
        Some(Self {
            trace,
            id,
            parent: None,
            start,
            order: order.to_owned(),
            project,
        })
    }

    /// Creates the run of a child span. The id starts with the span's id; LangSmith's
    /// SDK derives span ids from run ids in the same way.
    pub(super) fn child(&self, trace: TraceId, span: SpanId, start: SystemTime) -> Self {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&span.to_bytes());
        id[8..].copy_from_slice(&trace.to_bytes()[8..]);
        let id = Uuid::from_bytes(id);
        // LangSmith orders runs by start: a child must not start before its parent.
        let start = DateTime::from(start).max(self.start);
        Self {
            trace: self.trace,
            id,
            parent: Some(self.id),
            start,
            order: format!("{}.{}{id}", self.order, start.format(START_FORMAT)),
            project: self.project.clone(),
        }
    }

    /// Attributes that attach a span to the caller's trace.
    pub(super) fn attributes(&self) -> impl Iterator<Item = KeyValue> + use<> {
        let project = self.project.clone();
        let project = project.map(|project| KeyValue::new("langsmith.trace.session_name", project));
        let parent = self
            .parent
            .map(|id| KeyValue::new("langsmith.span.parent_id", id.to_string()));
        [
            KeyValue::new("langsmith.trace.id", self.trace.to_string()),
            KeyValue::new("langsmith.span.id", self.id.to_string()),
            KeyValue::new("langsmith.span.dotted_order", self.order.clone()),
        ]
        .into_iter()
        .chain(parent)
        .chain(project)
    }
}

fn segment(text: &str) -> Option<(DateTime<Utc>, Uuid)> {
    if !text.is_ascii() || text.len() != START_LEN + ID_LEN {
        return None;
    }
    let (start, id) = text.split_at(START_LEN);
    let at = NaiveDateTime::parse_from_str(start, START_FORMAT)
        .ok()?
        .and_utc();
    // chrono also accepts blanks for zeros, and leap seconds; the SDK does not.
    let is_canonical =
        at.format(START_FORMAT).to_string() == start && at.timestamp_subsec_nanos() < 1_000_000_000;
    is_canonical.then_some((at, Uuid::try_parse(id).ok()?))
}

/// Reads the project from a `baggage` header.
fn project(baggage: &str) -> Option<Arc<str>> {
    let encoded = baggage
        .split(',')
        .find_map(|item| item.trim().strip_prefix("langsmith-project="))?;
    // A semicolon starts the properties of the item.
    let encoded = encoded.split(';').next()?.trim_end();
    let name = percent_decode_str(encoded).decode_utf8().ok()?;
    let is_valid =
        !name.is_empty() && name.len() <= MAX_PROJECT && !name.contains(char::is_control);
    is_valid.then(|| Arc::from(name.as_ref()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ROOT: &str = "20261122T101500000123Z0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3";
    const CHILD: &str = "20261122T101500000456Z0192f0c1-2d3f-7a4b-8c5d-6e7f8091a2b4";

    fn headers(trace: &str, baggage: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("langsmith-trace", trace.parse().unwrap());
        headers.insert("baggage", baggage.parse().unwrap());
        headers
    }

    #[test]
    fn child_runs_extend_the_callers_dotted_order() {
        let baggage = "a=b, langsmith-project=my%20agents%2C%20all,langsmith-tags=x";
        let headers = headers(&format!("{ROOT}.{CHILD}"), baggage);
        assert_eq!(Run::from_headers(&headers, false).unwrap().project, None);
        let caller = Run::from_headers(&headers, true).unwrap();
        assert_eq!(caller.project.as_deref(), Some("my agents, all"));
        assert_eq!(caller.trace.to_string(), ROOT[START_LEN..]);
        let at = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        let span = SpanId::from(0x0102_0304_0506_0708);
        let child = caller.child(TraceId::from(7), span, at);
        assert_eq!(child.parent.unwrap().to_string(), CHILD[START_LEN..]);
        assert_eq!(
            child.order,
            format!("{ROOT}.{CHILD}.20270115T080000000000Z01020304-0506-0708-0000-000000000007")
        );
        // The run that a grandchild would parse is the child.
        let read = Run::parse(&child.order, child.project.clone()).unwrap();
        assert_eq!((read.id, read.start), (child.id, child.start));
    }

    #[test]
    fn a_child_run_does_not_start_before_its_parent() {
        let caller = Run::parse(ROOT, None).unwrap();
        let child = caller.child(TraceId::from(1), SpanId::from(1), SystemTime::UNIX_EPOCH);
        assert_eq!(child.start, caller.start);
    }

    #[test]
    fn rejects_invalid_headers() {
        let long = [ROOT; 1000].join(".");
        let twice = format!("{ROOT}..{CHILD}");
        let cut = &ROOT[..ROOT.len() - 1];
        for invalid in [
            "",
            ".",
            "....",
            "x",
            cut,
            &twice,
            &long,
            "20261322T101500000123Z0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3",
            "20261122T101500000123Z0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2bx",
            "20261122T101500+00123Z0192f0c1-2d3e-7a4b-8c5d-6e7f8091a2b3",
        ] {
            let run = Run::from_headers(&headers(invalid, ""), true);
            assert_eq!(run, None, "{invalid}");
        }
        for invalid in [
            "",
            ",,,",
            "langsmith-project",
            "langsmith-project=",
            "langsmith-project=%ff",
            "langsmith-project=a%0ab",
        ] {
            assert_eq!(project(invalid), None, "{invalid}");
        }
    }
}
