//! The walk itself: breadth first, so that the first broken claim comes with a shortest trace.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::rules::Rules;
use crate::world::{Action, World};

/// A bound on the walk, so that a careless rule ends in a message and not in swap.
const STATES_MAX: usize = 8_000_000;

pub enum Found {
    Sound {
        states: usize,
        transitions: usize,
        ends: usize,
        /// Every outcome that was reported, also on the way, by its number.
        outcomes: u8,
    },
    Broken {
        why: String,
        trace: Vec<String>,
    },
}

/// Everything kept about a state that has been expanded: 128 bits of its hash and how it was
/// reached. At a million states a collision has a probability of about 1e-27.
struct Graph {
    numbers: HashMap<u128, u32, BuildHasherDefault<Identity>>,
    parents: Vec<(u32, Action)>,
    /// Kind transitions, as (to, from).
    kind: Vec<(u32, u32)>,
    ends: Vec<u32>,
}

pub fn walk(rules: Rules) -> Found {
    let mut graph = Graph {
        numbers: HashMap::default(),
        parents: vec![(0, Action::Start)],
        kind: Vec::new(),
        ends: Vec::new(),
    };
    let first = World::new(&rules);
    graph.numbers.insert(fingerprint(&first), 0);
    let mut frontier = vec![(0, first)];
    let (mut actions, mut transitions, mut outcomes) = (Vec::new(), 0, 0);
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (number, world) in frontier {
            if let Some((outcome, ..)) = world.said {
                outcomes |= 1 << outcome as u8;
            }
            if world.ended() {
                graph.ends.push(number);
            }
            world.actions(&rules, &mut actions);
            for &action in &actions {
                transitions += 1;
                match world.apply(&rules, action) {
                    Ok(after) => {
                        let (to, is_new) = graph.number(&after, number, action);
                        if action.is_kind() {
                            graph.kind.push((to, number));
                        }
                        if is_new {
                            next.push((to, after));
                        }
                    }
                    Err(why) => return graph.broken(&rules, why, number, Some(action)),
                }
            }
        }
        frontier = next;
        assert!(
            graph.parents.len() < STATES_MAX,
            "more states than STATES_MAX: {rules:?}"
        );
    }
    match graph.first_without_end() {
        Some(number) => graph.broken(
            &rules,
            "no end is reached without a fault".to_owned(),
            number,
            None,
        ),
        None => Found::Sound {
            states: graph.parents.len(),
            transitions,
            ends: graph.ends.len(),
            outcomes,
        },
    }
}

impl Graph {
    fn number(&mut self, world: &World, from: u32, by: Action) -> (u32, bool) {
        let next = self.parents.len() as u32;
        let number = *self.numbers.entry(fingerprint(world)).or_insert(next);
        if number == next {
            self.parents.push((from, by));
        }
        (number, number == next)
    }

    /// Goes backwards from the ends along kind transitions.
    fn first_without_end(&mut self) -> Option<u32> {
        self.kind.sort_unstable();
        let mut reaches = vec![false; self.parents.len()];
        let mut todo = self.ends.clone();
        for &end in &todo {
            reaches[end as usize] = true;
        }
        while let Some(to) = todo.pop() {
            let start = self.kind.partition_point(|edge| edge.0 < to);
            for &(_, from) in self.kind[start..].iter().take_while(|edge| edge.0 == to) {
                if !std::mem::replace(&mut reaches[from as usize], true) {
                    todo.push(from);
                }
            }
        }
        reaches
            .iter()
            .position(|reached| !reached)
            .map(|number| number as u32)
    }

    /// States are not kept, so the way there is walked again and told.
    fn broken(&self, rules: &Rules, why: String, at: u32, last: Option<Action>) -> Found {
        let mut actions: Vec<Action> = last.into_iter().collect();
        let mut number = at;
        while number != 0 {
            let (parent, action) = self.parents[number as usize];
            actions.push(action);
            number = parent;
        }
        let mut world = World::new(rules);
        let mut trace = Vec::new();
        for action in actions.into_iter().rev() {
            match world.apply(rules, action) {
                Ok(after) => {
                    world = after;
                    trace.push(format!("{action:?}"));
                }
                Err(why) => trace.push(format!("{action:?}: {why}")),
            }
        }
        trace.push(format!("{world:#?}"));
        Found::Broken { why, trace }
    }
}

fn fingerprint(world: &World) -> u128 {
    let mut lanes = Lanes {
        a: 0x9e37_79b9_7f4a_7c15,
        b: 0xd1b5_4a32_d192_ed03,
    };
    world.hash(&mut lanes);
    (u128::from(lanes.finish()) << 64) | u128::from(lanes.b ^ (lanes.b >> 29))
}

/// Two multiplicative hashes in one pass; std's is several times slower on many small fields.
struct Lanes {
    a: u64,
    b: u64,
}

impl Lanes {
    #[inline]
    fn add(&mut self, word: u64) {
        self.a = (self.a.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
        self.a ^= self.a >> 32;
        self.b =
            (self.b ^ word.wrapping_add(0x632b_e59b_d9b4_e019)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        self.b ^= self.b >> 33;
    }
}

impl Hasher for Lanes {
    fn finish(&self) -> u64 {
        self.a
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.add(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.add(n);
    }

    fn write_usize(&mut self, n: usize) {
        self.add(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.add(n as u64);
    }
}

/// The keys are hashes already.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }
}
