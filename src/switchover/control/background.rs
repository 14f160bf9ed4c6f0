//! An operation that waits for nodes behind its report, and nodes that go their own way meanwhile.
//! Pure judgement.
//!
//! **Invariant:** what the operation has made itself, or may still find out to have made, is not
//! taken for somebody else's doing: the fence on the old master, and either of its two nodes as
//! master while it is not known which one is.

use super::evidence::Verdict;

/// Whether somebody else is in charge of the shard now. `routed`: the master by the route, as the
/// operation has set it.
pub(super) fn is_superseded(verdict: &Verdict, routed: Option<&str>, from: &str, to: &str) -> bool {
    let ours = |node: &str| match routed {
        Some(master) => node == master,
        None => node == from || node == to,
    };
    match verdict {
        Verdict::Keep => false,
        Verdict::Follow(node) | Verdict::FollowWord { master: node, .. } => !ours(node),
        // The old master is none while it is fenced. A target is made none by others only.
        Verdict::Shut => routed == Some(to),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_superseded_by(node: &str, routed: Option<&str>) -> bool {
        let word = Verdict::FollowWord {
            master: node.into(),
            missing: None,
        };
        let by_word = is_superseded(&word, routed, "old", "target");
        let by_role = is_superseded(&Verdict::Follow(node.into()), routed, "old", "target");
        assert_eq!(by_word, by_role);
        by_role
    }

    #[test]
    fn a_third_node_that_leads_is_never_our_doing() {
        for routed in [None, Some("old"), Some("target")] {
            assert!(is_superseded_by("third", routed), "{routed:?}");
        }
    }

    #[test]
    fn the_two_nodes_are_ours_as_long_as_it_is_not_known_which_one_leads() {
        assert!(!is_superseded_by("old", None));
        assert!(!is_superseded_by("target", None));
        assert!(is_superseded_by("old", Some("target")));
        assert!(is_superseded_by("target", Some("old")));
    }

    #[test]
    fn a_fenced_old_master_is_our_doing_and_a_demoted_target_is_not() {
        let shut = |routed| is_superseded(&Verdict::Shut, routed, "old", "target");
        assert!(!shut(Some("old")));
        assert!(shut(Some("target")));
        assert!(!is_superseded(
            &Verdict::Keep,
            Some("target"),
            "old",
            "target"
        ));
    }
}
