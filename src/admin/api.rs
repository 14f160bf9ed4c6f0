//! The routes and what they ask of [`Control`].
//!
//! A switchover goes on when whoever ordered it hangs up: it belongs to the control path, and only
//! `DELETE /v1/operations/{id}` aborts it.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Deserialize;
use serde_json::json;

use super::Admin;
use super::answer::{self, ApiError, json_response};
#[cfg(doc)]
use crate::switchover::view::Control;

/// The only bodies that are read hold an address and a flag.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest wait for such a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

const STATUS_PAGE: &str = include_str!("status_page.html");
/// The page runs its own script, talks to this address and is shown in no frame.
const STATUS_PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
     style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'";

pub(super) fn routes(admin: Admin) -> Router {
    Router::new()
        .route("/", get(status_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/shards", get(shards))
        .route("/v1/shards/{name}", get(shard))
        .route("/v1/shards/{name}/switchover", post(switchover))
        .route("/v1/operations/{id}", get(operation).delete(abort))
        .fallback(|| async {
            ApiError::NotFound("there is no such path: begin at /v1/shards".to_owned())
        })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(middleware::from_fn(refuse_web_pages))
        .with_state(admin)
}

async fn refuse_web_pages(request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    if !reads && request.headers().contains_key(header::ORIGIN) {
        return ApiError::FromWebPage.into_response();
    }
    next.run(request).await
}

async fn status_page() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, STATUS_PAGE_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(STATUS_PAGE)).into_response()
}

/// Ready means that every shard has somewhere to send writes to.
async fn ready(State(admin): State<Admin>) -> Response {
    let mut reasons = String::new();
    for name in admin.control.names() {
        let master = admin.control.status(&name).and_then(|status| status.master);
        if master.is_none() {
            reasons.push_str(&format!("shard {name} has no master\n"));
        }
    }
    if reasons.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, reasons).into_response()
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        admin.metrics.render(),
    )
        .into_response()
}

async fn shards(State(admin): State<Admin>) -> Response {
    let names = admin.control.names();
    let shards: Vec<_> = names
        .iter()
        .filter_map(|name| admin.control.status(name))
        .collect();
    json_response(StatusCode::OK, &json!({ "shards": shards }))
}

async fn shard(State(admin): State<Admin>, Path(name): Path<String>) -> Result<Response, ApiError> {
    match admin.control.status(&name) {
        Some(status) => Ok(json_response(StatusCode::OK, &status)),
        None => Err(unknown_shard(&admin, &name)),
    }
}

/// What an order consists of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    to: String,
    #[serde(default)]
    dry_run: bool,
}

async fn switchover(
    State(admin): State<Admin>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let wait = wait_wanted(query.as_deref())?;
    if admin.control.status(&name).is_none() {
        return Err(unknown_shard(&admin, &name));
    }
    let order = read_order(&headers, body).await?;
    let id = admin
        .control
        .switchover(name, order.to, order.dry_run)
        .await?;
    if !wait {
        return Ok(json_response(StatusCode::ACCEPTED, &json!({ "id": id })));
    }
    match admin.control.wait(id.clone()).await {
        Some(report) => Ok(answer::report(&report)),
        None => Err(ApiError::ReportGone(id)),
    }
}

async fn operation(
    State(admin): State<Admin>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    match admin.control.operation(&id) {
        Some(view) => Ok(json_response(StatusCode::OK, &view)),
        None => Err(ApiError::NotFound(format!("there is no operation {id}"))),
    }
}

async fn abort(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, ApiError> {
    answer::abort(&id, admin.control.abort(&id))
}

fn unknown_shard(admin: &Admin, name: &str) -> ApiError {
    let names = admin.control.names().join(", ");
    ApiError::NotFound(format!("there is no shard {name}: there is {names}"))
}

/// `?wait=false` asks for an answer at once; waiting for the end is the default.
fn wait_wanted(query: Option<&str>) -> Result<bool, ApiError> {
    match query.unwrap_or_default() {
        "" | "wait=true" => Ok(true),
        "wait=false" => Ok(false),
        _ => Err(ApiError::BadRequest(
            "the query may only be wait=true or wait=false".to_owned(),
        )),
    }
}

/// Reads the body with a limit and a deadline and says what is wrong with it.
async fn read_order(headers: &HeaderMap, body: Body) -> Result<Order, ApiError> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = content_type
        .and_then(|value| value.split(';').next())
        .unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        return Err(ApiError::NotJson);
    }
    let collected =
        tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect());
    let bytes = match collected.await {
        Err(_) => return Err(ApiError::TooSlow),
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err(ApiError::TooLarge(BODY_BYTES_MAX));
        }
        Ok(Err(error)) => {
            return Err(ApiError::BadRequest(format!("the body broke off: {error}")));
        }
    };
    serde_json::from_slice(&bytes).map_err(|error| {
        let form = r#"{"to": "host:port", "dry_run": false}"#;
        ApiError::BadRequest(format!("the body is no order: {error}; send {form}"))
    })
}
