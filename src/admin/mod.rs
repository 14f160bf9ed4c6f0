//! The operator's HTTP interface: health, metrics, the JSON API and a status page.
//!
//! Owns the routes, their limits and the form of every answer. It sits on
//! [`Control`](crate::switchover::view::Control) and knows nothing of servers, sessions or gates.
//!
//! **Invariant:** orders are not taken from web pages. A request that changes something and carries
//! an `Origin` header is refused, because browsers send one with every such request and scripts
//! send none; so a page that reaches this address through somebody's browser, by DNS rebinding or
//! otherwise, can order nothing. Names of hosts are not checked: services have any name.
//!
//! **Invariant:** every request has a limit in bytes and in time, except a switchover that is
//! waited for, whose own steps have deadlines.
//!
//! Trade-off: there is one token and one right. Whoever has it ([`Guard`]) may move the master;
//! without one the configuration keeps the address on loopback.

mod answer;
mod api;
mod guard;
mod listen;

use std::sync::Arc;

use axum::Router;
use metrics_exporter_prometheus::PrometheusHandle;

use crate::switchover::view::Control;

pub use guard::Guard;
pub use listen::serve;

/// What the routes work on.
#[derive(Clone)]
struct Admin {
    control: Arc<dyn Control>,
    metrics: PrometheusHandle,
}

/// All routes, ready for [`Guard::protect`] and [`serve`].
pub fn router(control: Arc<dyn Control>, metrics: PrometheusHandle) -> Router {
    api::routes(Admin { control, metrics })
}
