//! The form of every answer: JSON with a status code, errors as `{"error": text}`.
//!
//! **Invariant:** what became of an order is turned into a status code here and nowhere else.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;

use crate::switchover::report::{Outcome, Report};
use crate::switchover::view::{AbortAnswer, StartError};

/// Why a request was not carried out. Nothing was changed in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request makes no sense as it is. Sending it again changes nothing.
    #[error("{0}")]
    BadRequest(String),
    /// It came without the token, or with a wrong one.
    #[error(
        "the admin token is missing or wrong: send it as `Authorization: Bearer ...`; `pointsman` \
         takes it from [admin] in the config or from POINTSMAN_ADMIN_TOKEN"
    )]
    NoToken,
    /// A browser sent it.
    #[error("orders are not taken from web pages: use `pointsman` or send no Origin header")]
    FromWebPage,
    /// The path, the shard or the operation is not there.
    #[error("{0}")]
    NotFound(String),
    /// The path is right and the method is not.
    #[error("this path does not know that method: see the manual of the admin API")]
    MethodNotAllowed,
    /// The body did not arrive in time.
    #[error("the body of the request did not arrive in time: send it again")]
    TooSlow,
    /// The body is larger than any valid one.
    #[error("the body of the request is larger than {0} bytes: send only `to` and `dry_run`")]
    TooLarge(usize),
    /// The body is not declared to be JSON.
    #[error("send the body as JSON, with the header `content-type: application/json`")]
    NotJson,
    /// The switchover was not started.
    #[error(transparent)]
    NotStarted(#[from] StartError),
    /// It is too late to abort.
    #[error("{0}")]
    TooLate(String),
    /// The operation ran, and its report is gone: too many operations ended since.
    #[error("the report of operation {0} is not kept any more: look at the status of the shard")]
    ReportGone(String),
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::BadRequest(_) => StatusCode::BAD_REQUEST,
            ApiError::NoToken => StatusCode::UNAUTHORIZED,
            ApiError::FromWebPage => StatusCode::FORBIDDEN,
            ApiError::NotFound(_) => StatusCode::NOT_FOUND,
            ApiError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::TooSlow => StatusCode::REQUEST_TIMEOUT,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::NotStarted(StartError::UnknownShard) => StatusCode::NOT_FOUND,
            ApiError::NotStarted(StartError::Busy { .. }) => StatusCode::CONFLICT,
            ApiError::NotStarted(StartError::ShuttingDown) => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::TooLate(_) => StatusCode::CONFLICT,
            ApiError::ReportGone(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = match &self {
            ApiError::NotStarted(StartError::Busy { id }) => {
                json!({ "error": self.to_string(), "id": id })
            }
            _ => json!({ "error": self.to_string() }),
        };
        json_response(self.status(), &body)
    }
}

/// The end of a switchover that was waited for. A rollback is a success of the request: the order
/// is over, and the report says how.
pub fn report(report: &Report) -> Response {
    let status = match report.outcome {
        Outcome::Switched | Outcome::SwitchedWithLeak | Outcome::RolledBack => StatusCode::OK,
        Outcome::Refused => StatusCode::UNPROCESSABLE_ENTITY,
        Outcome::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
    };
    json_response(status, report)
}

/// What became of the wish to abort.
pub fn abort(id: &str, answer: AbortAnswer) -> Result<Response, ApiError> {
    match answer {
        AbortAnswer::Aborting => {
            let body = json!({ "id": id, "state": "aborting" });
            Ok(json_response(StatusCode::ACCEPTED, &body))
        }
        AbortAnswer::Leaving => {
            let body = json!({ "id": id, "state": "leaving" });
            Ok(json_response(StatusCode::ACCEPTED, &body))
        }
        AbortAnswer::TooLate => Err(ApiError::TooLate(format!(
            "operation {id} has promoted its target: wait for its end, then switch back"
        ))),
        AbortAnswer::Ended => Err(ApiError::TooLate(format!(
            "operation {id} is over: see its report"
        ))),
        AbortAnswer::Unknown => Err(ApiError::NotFound(format!("there is no operation {id}"))),
    }
}

/// Any value as JSON. Nothing here can fail to serialise; should it, the answer says so.
pub fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    match serde_json::to_vec(body) {
        Ok(body) => (status, headers, body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
