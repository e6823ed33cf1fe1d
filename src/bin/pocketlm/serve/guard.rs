//! Who may ask: those with a key where there are keys, this machine's own programs, and pages of the server itself.
//!
//! A page of a stranger runs in a browser of this very machine. It must neither have its requests answered (they carry `Origin`)
//! nor reach the server by a name of its own that it lets point here (*DNS rebinding*; such requests carry its name in `Host`).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Server;
use super::refusal::Refusal;

/// Whoever a request is from, as far as fairness goes: who has one of several keys; otherwise a machine, or on this one a
/// connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    key: Option<usize>,
    address: IpAddr,
    /// 0 for all connections of another machine.
    connection: u64,
}

impl Client {
    /// Whoever has one of several keys.
    fn with_key(key: usize) -> Self {
        Self { key: Some(key), address: IpAddr::from([0; 4]), connection: 0 }
    }

    /// Of the n-th connection.
    pub(crate) fn of(address: IpAddr, connection: u64) -> Self {
        Self { key: None, address, connection: if address.is_loopback() { connection } else { 0 } }
    }
}

/// Keys, kept as hashes: comparing them takes the same time for all that are wrong, however long and however near.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(Vec<[u8; 32]>);

impl Keys {
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().map(hash).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of a key.
    fn find(&self, key: &str) -> Option<usize> {
        let key = hash(key);
        let is_same = |own: &[u8; 32]| own.iter().zip(&key).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0;
        // All of them are looked at, whichever it is.
        (0..self.0.len()).fold(None, |found, at| if is_same(&self.0[at]) { Some(at) } else { found })
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// What anybody may see.
const OPEN: &[&str] = &["/", "/health", "/v1/health"];

/// Refuses who may not ask, counts, and lets pages of allowed origins read what comes back.
pub(crate) async fn guard(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let cross = origin.filter(|origin| server.allows(origin));
    let mut response = match check(&server, &mut request, cross.is_some()) {
        Err(refusal) => refusal.into_response(),
        Ok(()) if cross.is_some() && *request.method() == Method::OPTIONS => preflight(request.headers()),
        Ok(()) => next.run(request).await,
    };
    server.metrics.responded(response.status().as_u16());
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(concat!("pocketlm/", env!("CARGO_PKG_VERSION"))));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Some(origin) = cross {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

fn check(server: &Server, request: &mut Request, is_allowed: bool) -> Result<(), Refusal> {
    let headers = request.headers();
    let host = text(headers, header::HOST)
        .or_else(|| request.uri().authority().map(Authority::as_str))
        .unwrap_or_default();
    if server.is_local && !is_local(host) {
        return Err(Refusal::forbidden(format!(
            "This server answers to localhost, 127.0.0.1 and [::1], not to {host:?}."
        )));
    }
    if let Some(origin) = text(headers, header::ORIGIN).filter(|_| !is_allowed)
        && origin.split_once("://").is_none_or(|(_, from)| !from.eq_ignore_ascii_case(host))
    {
        return Err(Refusal::forbidden(format!(
            "Pages of {origin} may not ask; the server would have to be started with --cors {origin}."
        )));
    }
    let is_preflight = is_allowed && *request.method() == Method::OPTIONS;
    if !server.keys.is_empty() && !is_preflight && !OPEN.contains(&request.uri().path()) {
        let key = key(headers);
        let number =
            key.and_then(|key| server.keys.find(key)).ok_or_else(|| Refusal::wrong_key(key.is_none()))?;
        if server.keys.0.len() > 1 {
            request.extensions_mut().insert(Client::with_key(number));
        }
    }
    Ok(())
}

/// The key of a request, as OpenAI's clients send it or as others do.
fn key(headers: &HeaderMap) -> Option<&str> {
    let bearer = text(headers, header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
    });
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok())
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// Whether a name of a host, a port behind it or not, is one that only this machine can mean.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// What a browser asks before a request of another origin.
fn preflight(asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let wanted = wanted.unwrap_or(HeaderValue::from_static("authorization, content-type"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_machine() {
        for host in [
            "localhost",
            "LOCALHOST:80",
            "127.0.0.1:8080",
            "127.8.9.1",
            "[::1]:80",
            "[::1]",
            "a.localhost:1",
            "localhost.",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "[::2]:80",
            "notlocalhost",
            "0.0.0.0",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn keys_are_found_and_others_not() {
        let keys = Keys::new(["one", "two"]);
        assert_eq!((keys.find("one"), keys.find("two")), (Some(0), Some(1)));
        for wrong in ["", "on", "onee", "One", "one\0"] {
            assert_eq!(keys.find(wrong), None, "{wrong}");
        }
        let of = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            key(&headers).map(str::to_owned)
        };
        assert_eq!(of("authorization", "Bearer one").as_deref(), Some("one"));
        assert_eq!(of("authorization", "bearer  one").as_deref(), Some("one"));
        assert_eq!(of("x-api-key", "one").as_deref(), Some("one"));
        assert_eq!((of("authorization", "Basic one"), of("authorization", "one")), (None, None));
    }

    #[test]
    fn connections_are_clients_here_and_machines_elsewhere() {
        let (here, there) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 0, 0, 1]));
        assert_ne!(Client::of(here, 1), Client::of(here, 2));
        assert_eq!(Client::of(there, 1), Client::of(there, 2));
    }
}
