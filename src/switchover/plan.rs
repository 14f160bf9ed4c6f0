//! stub
mod effect;
pub use effect::*;

/// Where an operation stands. Opaque; ask [`phase`], [`is_over`] and [`can_abort`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    terms: Terms,
}

/// A new operation, and the first thing to do.
pub fn begin(terms: Terms) -> (State, Vec<Effect>) {
    (State { terms }, vec![Effect::Preflight])
}

/// An operation whose journal record has no end: the proxy stopped in the middle of it. The gate
/// must admit no write before the first `Publish`.
pub fn recover(terms: Terms, facts: Facts) -> (State, Vec<Effect>) {
    let _ = facts;
    (
        State { terms },
        vec![Effect::Settle(Node::Old), Effect::Settle(Node::Target)],
    )
}

/// The one transition function.
pub fn step(state: &State, event: Event) -> (State, Vec<Effect>) {
    let _ = event;
    (state.clone(), Vec::new())
}

/// The name of the current phase, as reports and the API show it.
pub fn phase(_state: &State) -> &'static str {
    "preflight"
}

/// Nothing is outstanding and nothing more will be asked.
pub fn is_over(_state: &State) -> bool {
    false
}

/// Would [`Event::Abort`] still undo it?
pub fn can_abort(_state: &State) -> bool {
    true
}
