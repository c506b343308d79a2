use std::str::FromStr;

use http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::{Excerpt, host::is_authority};

/// Origin of a web page: `https://app.example.com` or `http://localhost:3000`, in the form in
/// which browsers send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOrigin(HeaderValue);

/// Error of a text that is not a [`WebOrigin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be origins of web pages without a path, such as https://app.example.com or \
     http://localhost:3000; * would allow every page"
)]
pub struct InvalidWebOrigin;

impl WebOrigin {
    /// Value of the header `origin` of the page's requests.
    pub fn as_header(&self) -> &HeaderValue {
        &self.0
    }
}

impl FromStr for WebOrigin {
    type Err = InvalidWebOrigin;

    fn from_str(text: &str) -> Result<Self, InvalidWebOrigin> {
        let text = text.trim().to_ascii_lowercase();
        let uri: Uri = text.parse().map_err(|_| InvalidWebOrigin)?;
        let authority = uri.authority().ok_or(InvalidWebOrigin)?.as_str();
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => ("http", ":80"),
            Some("https") => ("https", ":443"),
            _ => return Err(InvalidWebOrigin),
        };
        let is_valid = text == format!("{scheme}://{authority}")
            && is_authority(authority)
            && !authority.ends_with(':');
        if !is_valid {
            return Err(InvalidWebOrigin);
        }
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        let origin = HeaderValue::from_str(&format!("{scheme}://{authority}"));
        origin.map(Self).map_err(|_| InvalidWebOrigin)
    }
}

/// Reason for which a request of a page is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedOrigin {
    /// The request is from a page of another site, and names no origin.
    #[error("the request of a web page names no origin")]
    Missing,
    /// The request has several origins.
    #[error("the request of a web page names several origins")]
    Several,
    /// The origin is not trusted.
    #[error("requests of web pages of the origin {0} are not allowed")]
    NotAllowed(Excerpt),
}

/// Rule about requests that pages of other sites make a browser send.
///
/// A browser sends some requests to another site without asking its server first, among them a
/// POST without a body. It marks them with `sec-fetch-site` and `origin`, which a page cannot
/// change.
#[derive(Clone, Debug)]
pub struct CrossSitePolicy {
    trusted: Vec<WebOrigin>,
}

impl CrossSitePolicy {
    /// Creates the rule. Requests of pages with an origin in `trusted` are accepted.
    pub fn new(trusted: Vec<WebOrigin>) -> Self {
        Self { trusted }
    }

    /// Checks whether a request may be served: it changes nothing, or it is not from a page of
    /// another origin, or that origin is trusted.
    ///
    /// # Errors
    /// Fails with the origin that is not trusted.
    pub fn check(
        &self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), RefusedOrigin> {
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let mut sites = headers.get_all("sec-fetch-site").iter();
        let is_same_site = match (sites.next(), sites.next()) {
            (None, _) => None,
            (Some(site), None) => Some(matches!(site.as_bytes(), b"same-origin" | b"none")),
            (Some(_), Some(_)) => Some(false),
        };
        let mut origins = headers.get_all(header::ORIGIN).iter();
        match (is_same_site, origins.next(), origins.next()) {
            (Some(true), ..) | (None, None, _) => Ok(()),
            (Some(false), None, _) => Err(RefusedOrigin::Missing),
            (_, Some(_), Some(_)) => Err(RefusedOrigin::Several),
            (is_same_site, Some(origin), None) => {
                let is_own = || is_same_site.is_none() && is_own_host(origin, uri, headers);
                if self.is_trusted(origin) || is_own() {
                    return Ok(());
                }
                Err(RefusedOrigin::NotAllowed(Excerpt::of(origin.as_bytes())))
            }
        }
    }

    fn is_trusted(&self, origin: &HeaderValue) -> bool {
        self.trusted.iter().any(|trusted| trusted.0 == *origin)
    }
}

/// Whether a page was loaded from the host that the request is for. Browsers that do not send
/// `sec-fetch-site` are recognized by this.
fn is_own_host(origin: &HeaderValue, uri: &Uri, headers: &HeaderMap) -> bool {
    let host = match uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok()),
    };
    let origin = origin.to_str().ok().and_then(|it| it.split_once("://"));
    match (origin, host) {
        (Some((_, origin)), Some(host)) => origin.eq_ignore_ascii_case(host),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_admitted(method: &Method, headers: &[(&'static str, &str)]) -> bool {
        let trusted = vec!["https://app.example.com".parse().unwrap()];
        let all = headers.iter().copied().chain([("host", "memory.test:1")]);
        let headers = all.map(|(name, value)| {
            let name = header::HeaderName::from_static(name);
            (name, value.parse().unwrap())
        });
        let uri = Uri::from_static("/x");
        CrossSitePolicy::new(trusted)
            .check(method, &uri, &headers.collect())
            .is_ok()
    }

    #[test]
    fn rejects_unsafe_requests_of_other_pages() {
        const SITE: &str = "sec-fetch-site";
        let own = ("origin", "http://memory.test:1");
        let foreign = ("origin", "https://evil.example");
        let trusted = ("origin", "https://app.example.com");
        let cases: [(&[(&'static str, &str)], bool); 17] = [
            (&[], true),
            (&[(SITE, "same-origin")], true),
            (&[(SITE, "none")], true),
            (&[(SITE, "same-origin"), foreign], true),
            (&[(SITE, "same-site")], false),
            (&[(SITE, "cross-site")], false),
            (&[(SITE, "other")], false),
            (&[(SITE, "cross-site"), own], false),
            (&[(SITE, "cross-site"), trusted], true),
            (&[(SITE, "none"), (SITE, "none")], false),
            (&[own], true),
            (&[("origin", "HTTPS://Memory.TEST:1")], true),
            (&[foreign], false),
            (&[("origin", "null")], false),
            (&[("origin", "http://memory.test")], false),
            (&[trusted], true),
            (&[trusted, trusted], false),
        ];
        for (headers, expected) in cases {
            for method in [Method::POST, Method::PATCH, Method::DELETE, Method::PUT] {
                assert_eq!(is_admitted(&method, headers), expected, "{headers:?}");
            }
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert!(is_admitted(&method, headers), "{headers:?}");
            }
        }
    }

    #[test]
    fn parses_origins_into_the_form_of_browsers() {
        for (text, origin) in [
            ("https://app.example.com", "https://app.example.com"),
            (" HTTPS://App.Example.com:443 ", "https://app.example.com"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://[::1]:80", "http://[::1]"),
        ] {
            let parsed: WebOrigin = text.parse().unwrap();
            assert_eq!(parsed.as_header(), origin, "{text}");
        }
        for invalid in [
            "",
            "*",
            "null",
            "app.example.com",
            "https://",
            "https://*",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com/path",
            "https://app.example.com?q",
            "https://app.example.com:x",
            "https://app.example.com:99999",
            "https://user@app.example.com",
            "ftp://app.example.com",
            "https://a b",
        ] {
            assert!(invalid.parse::<WebOrigin>().is_err(), "{invalid}");
        }
    }
}
