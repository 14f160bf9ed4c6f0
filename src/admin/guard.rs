//! Who may use the admin API: whoever brings the token.
//!
//! The token comes as `Authorization: Bearer ...` from programs, or as the password of any user in
//! Basic authentication, which is what browsers can do. It is compared in constant time; only
//! whether its length is right can be told from the time that an answer takes.
//!
//! **Invariant:** with a token configured, `/healthz` and `/readyz` alone answer without it. They
//! say whether the process lives and which shard has no master, to load balancers and supervisors
//! that have no place for a secret.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

use super::answer::ApiError;
use crate::config::Secret;

/// Paths that tell nothing but whether the proxy works.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The token that counts at present; `None` lets everybody in.
#[derive(Debug, Default)]
pub struct Guard {
    token: ArcSwapOption<Secret>,
}

impl Guard {
    pub fn new(token: Option<Secret>) -> Arc<Self> {
        let guard = Self::default();
        guard.set(token);
        Arc::new(guard)
    }

    /// From now on this token counts, and no former one.
    pub fn set(&self, token: Option<Secret>) {
        self.token.store(token.map(Arc::new));
    }

    /// Puts the guard in front of all routes.
    pub fn protect(self: &Arc<Self>, routes: Router) -> Router {
        routes.layer(middleware::from_fn_with_state(Arc::clone(self), admit))
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let token = self.token.load();
        let Some(token) = token.as_deref() else {
            return true;
        };
        let given = headers.get(header::AUTHORIZATION);
        let given = given.and_then(|value| brought(value.as_bytes()));
        given.is_some_and(|given| bool::from(given.ct_eq(token.expose().as_bytes())))
    }
}

async fn admit(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if OPEN_PATHS.contains(&request.uri().path()) || guard.admits(request.headers()) {
        return next.run(request).await;
    }
    // Basic is the one that browsers ask their user for.
    let challenge = "Basic realm=\"pointsman\", charset=\"UTF-8\"";
    let headers = [(header::WWW_AUTHENTICATE, challenge)];
    (headers, ApiError::NoToken).into_response()
}

/// The token in the value of an `Authorization` header.
fn brought(value: &[u8]) -> Option<Vec<u8>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"Bearer") {
        return Some(rest.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"Basic") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(rest).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    pair.get(colon + 1..).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(authorization: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        let token = Secret::new("0123456789abcdef");
        Guard::new(Some(token)).admits(&headers)
    }

    #[test]
    fn the_token_is_taken_as_bearer_and_as_the_password_of_any_user() {
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert!(admits(Some("Bearer 0123456789abcdef")));
        assert!(admits(Some("bearer  0123456789abcdef ")));
        assert!(admits(Some(&basic("operator:0123456789abcdef"))));
        assert!(admits(Some(&basic(":0123456789abcdef"))));
    }

    #[test]
    fn nothing_else_is_admitted() {
        let basic = |pair: &str| format!("Basic {}", BASE64_STANDARD.encode(pair));
        assert!(!admits(None));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "0123456789abcdef",
            "Bearer 0123456789abcdeg",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdef0",
            "Digest 0123456789abcdef",
            "Basic 0123456789abcdef",
            &basic("0123456789abcdef"),
            &basic("0123456789abcdef:"),
            &basic("a:b:0123456789abcdef"),
        ] {
            assert!(!admits(Some(wrong)), "{wrong}");
        }
    }

    #[test]
    fn without_a_token_everybody_is_admitted() {
        assert!(Guard::new(None).admits(&HeaderMap::new()));
    }
}
