//! The part of a proxy in an operation of another one, as far as it is decided by what is said.
//! Pure.
//!
//! **Invariant:** it begins with a HOLD and ends by the first of: a RELEASE of the same operation
//! and the same proxy, the end of its time, and a drain that fails. Nothing that others say
//! prolongs it.

use super::message::{Message, Saying};

/// A part that has begun.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    pub operation: String,
    driver: String,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Writes are held; some are without their replies yet.
    Draining,
    Held,
    /// Reads go to the new master.
    Routed,
}

/// What a message asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Then {
    GoOn,
    /// See whether this node is the master.
    Confirm(String),
    End,
}

/// How a part ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The driver said so, and the master is another one now.
    Routed,
    /// The driver said so, and nothing has changed.
    Released,
    /// Nothing more was heard in time.
    Expired,
    /// Writes under way were not answered in time.
    Stuck,
}

impl End {
    /// The label of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Routed => "routed",
            End::Released => "released",
            End::Expired => "expired",
            End::Stuck => "stuck",
        }
    }
}

impl Part {
    pub fn of(hold: &Message) -> Part {
        Part {
            operation: hold.operation.clone(),
            driver: hold.proxy.clone(),
            stage: Stage::Draining,
        }
    }

    pub fn is_draining(&self) -> bool {
        self.stage == Stage::Draining
    }

    pub fn drained(&mut self) {
        if self.stage == Stage::Draining {
            self.stage = Stage::Held;
        }
    }

    /// The target is master, and the route names it.
    pub fn routed(&mut self) {
        self.stage = Stage::Routed;
    }

    pub fn is_routed(&self) -> bool {
        self.stage == Stage::Routed
    }

    /// What every node repeats is heard more than once.
    pub fn hear(&self, message: &Message) -> Then {
        if message.operation != self.operation || message.proxy != self.driver {
            return Then::GoOn;
        }
        match &message.saying {
            Saying::Route { target } if self.stage != Stage::Routed => {
                Then::Confirm(target.clone())
            }
            Saying::Release => Then::End,
            Saying::Route { .. } | Saying::Hold { .. } | Saying::Ack(_) => Then::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn message(operation: &str, proxy: &str, saying: Saying) -> Message {
        Message {
            operation: operation.into(),
            proxy: proxy.into(),
            saying,
        }
    }

    fn hold(operation: &str, proxy: &str) -> Message {
        let (length, target) = (Duration::from_millis(500), "b:2".into());
        message(operation, proxy, Saying::Hold { length, target })
    }

    fn route(operation: &str, proxy: &str) -> Message {
        message(
            operation,
            proxy,
            Saying::Route {
                target: "b:2".into(),
            },
        )
    }

    #[test]
    fn the_driver_leads_it_to_the_target_and_to_its_end() {
        let mut part = Part::of(&hold("o", "p"));
        part.drained();
        assert_eq!(part.hear(&route("o", "p")), Then::Confirm("b:2".into()));
        part.routed();
        assert_eq!(part.hear(&route("o", "p")), Then::GoOn);
        assert_eq!(part.hear(&message("o", "p", Saying::Release)), Then::End);
    }

    #[test]
    fn nobody_else_does() {
        let mut part = Part::of(&hold("o", "p"));
        part.drained();
        for (operation, proxy) in [("o", "q"), ("x", "p"), ("x", "q")] {
            for other in [
                hold(operation, proxy),
                route(operation, proxy),
                message(operation, proxy, Saying::Release),
            ] {
                assert_eq!(part.hear(&other), Then::GoOn, "{other}");
            }
        }
        assert_eq!(part.hear(&hold("o", "p")), Then::GoOn);
    }

    #[test]
    fn one_that_has_not_drained_is_led_all_the_same() {
        let mut part = Part::of(&hold("o", "p"));
        assert!(part.is_draining());
        assert_eq!(part.hear(&route("o", "p")), Then::Confirm("b:2".into()));
        part.routed();
        part.drained();
        assert!(part.is_routed());
    }
}
