//! Finds a command's row by its name, whatever the case, in a few nanoseconds.
//!
//! An open-addressing index, built while compiling. A name of up to 24 bytes is read as three
//! words that overlap where it is shorter; together with the length they say every byte of it, so
//! that a comparison is four integers and no loop, and folding the case is a few operations on a
//! word. A match on the name costs the compiler a tree of comparisons and the processor its
//! branches; a `HashMap` hashes at least as long as the whole lookup takes here.
//!
//! **Invariant:** a name is in the index once; the crate does not compile otherwise.

use super::Verdict;
use super::table::{BLOCKABLES, Blockable, CONTAINERS, Container, ROWS};

/// The longest name in the table has 22 bytes; a longer one is unknown without a look.
const NAME_BYTES_MAX: usize = 24;

/// A power of two, and more than three slots for a name: nearly every probe ends at the first.
const SLOTS: usize = 2048;

/// What the table knows about a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    Always(Verdict),
    BySubcommand(&'static Container),
    ByBlockOption(&'static Blockable),
}

/// The rule of a command, if it is in the table.
#[inline]
pub(super) fn find(name: &[u8]) -> Option<&'static Rule> {
    let key = Key::of(name)?;
    let mut slot = key.slot();
    loop {
        match INDEX.slots.get(slot) {
            None | Some(&EMPTY) => return None,
            Some(&at) => {
                let entry = INDEX.entries.get(usize::from(at))?;
                if entry.key.is(&key) {
                    return Some(&entry.rule);
                }
            }
        }
        slot = (slot + 1) % SLOTS;
    }
}

/// Every byte of a name, in upper case.
#[derive(Clone, Copy)]
struct Key {
    first: u64,
    middle: u64,
    last: u64,
    len: usize,
}

impl Key {
    /// None for names that no table can hold.
    #[inline]
    const fn of(name: &[u8]) -> Option<Key> {
        let len = name.len();
        let (first, middle, last) = match (name.first_chunk(), name.last_chunk()) {
            (Some(first), Some(last)) => {
                let middle = match name.split_at_checked(8) {
                    Some((_, rest)) if len > 16 => match rest.first_chunk() {
                        Some(middle) => u64::from_le_bytes(*middle),
                        None => 0,
                    },
                    _ => 0,
                };
                (
                    u64::from_le_bytes(*first),
                    middle,
                    u64::from_le_bytes(*last),
                )
            }
            _ => match (name.first_chunk(), name.last_chunk()) {
                (Some(first), Some(last)) => (
                    u32::from_le_bytes(*first) as u64,
                    0,
                    u32::from_le_bytes(*last) as u64,
                ),
                _ => match name {
                    [a] => (*a as u64, 0, 0),
                    [a, b] => (*a as u64, 0, *b as u64),
                    [a, b, c] => ((*a as u64) | (*b as u64) << 8, 0, *c as u64),
                    _ => return None,
                },
            },
        };
        if len > NAME_BYTES_MAX {
            return None;
        }
        Some(Key {
            first: upper(first),
            middle: upper(middle),
            last: upper(last),
            len,
        })
    }

    #[inline]
    const fn is(&self, other: &Key) -> bool {
        self.first == other.first
            && self.last == other.last
            && self.len == other.len
            && self.middle == other.middle
    }

    /// Where the search begins: Fibonacci hashing, whose high bits depend on every bit below.
    #[inline]
    const fn slot(&self) -> usize {
        let mixed = self.first ^ self.last.rotate_left(29) ^ self.middle ^ (self.len as u64);
        (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - SLOTS.ilog2())) as usize
    }
}

/// Folds the ASCII letters of a word to upper case, all eight bytes at once.
///
/// With the top bit of a byte out of the way, adding 0x1f carries into it from 'a' on, and adding
/// 0x05 from the byte after 'z' on; a byte where only the first did is a letter, and its top bit
/// shifted to 0x20 is what tells the two cases apart.
#[inline]
const fn upper(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7f);
    let from_a = low + ONES * 0x1f;
    let past_z = low + ONES * 0x05;
    let letters = from_a & !past_z & !word & (ONES * 0x80);
    word ^ (letters >> 2)
}

#[derive(Clone, Copy)]
struct Entry {
    key: Key,
    rule: Rule,
}

struct Index {
    slots: [u16; SLOTS],
    entries: [Entry; NAMES],
}

const EMPTY: u16 = u16::MAX;

/// How many names the table has.
// Runs while compiling only, where an index out of bounds is a compile error.
#[allow(clippy::indexing_slicing)]
const NAMES: usize = {
    let mut names = CONTAINERS.len() + BLOCKABLES.len();
    let mut part = 0;
    while part < ROWS.len() {
        names += ROWS[part].len();
        part += 1;
    }
    names
};

static INDEX: Index = Index::build();

// As above.
#[allow(clippy::indexing_slicing)]
impl Index {
    const fn build() -> Index {
        const VACANT: Entry = Entry {
            key: Key {
                first: 0,
                middle: 0,
                last: 0,
                len: 0,
            },
            rule: Rule::Always(super::table::UNKNOWN),
        };
        let mut index = Index {
            slots: [EMPTY; SLOTS],
            entries: [VACANT; NAMES],
        };
        let mut at = 0;
        let mut part = 0;
        while part < ROWS.len() {
            let mut row = 0;
            while row < ROWS[part].len() {
                let (name, verdict) = &ROWS[part][row];
                index.insert(at, name, Rule::Always(*verdict));
                at += 1;
                row += 1;
            }
            part += 1;
        }
        let mut row = 0;
        while row < CONTAINERS.len() {
            index.insert(at, CONTAINERS[row].0, Rule::BySubcommand(&CONTAINERS[row]));
            at += 1;
            row += 1;
        }
        let mut row = 0;
        while row < BLOCKABLES.len() {
            index.insert(at, BLOCKABLES[row].0, Rule::ByBlockOption(&BLOCKABLES[row]));
            at += 1;
            row += 1;
        }
        index
    }

    const fn insert(&mut self, at: usize, name: &str, rule: Rule) {
        let Some(key) = Key::of(name.as_bytes()) else {
            panic!("a name in the command table is empty or longer than NAME_BYTES_MAX");
        };
        let mut slot = key.slot();
        while self.slots[slot] != EMPTY {
            let there = &self.entries[self.slots[slot] as usize].key;
            assert!(!there.is(&key), "a name stands in the command table twice");
            slot = (slot + 1) % SLOTS;
        }
        self.slots[slot] = at as u16;
        self.entries[at] = Entry { key, rule };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn folding_a_word_equals_folding_its_bytes() {
        for byte in 0..=u8::MAX {
            for neighbour in [0, b'A', b'a', b'z', b'{', 0x7f, 0x80, 0xff] {
                let mut bytes = [neighbour; 8];
                bytes[3] = byte;
                let folded = upper(u64::from_le_bytes(bytes)).to_le_bytes();
                bytes.make_ascii_uppercase();
                assert_eq!(folded, bytes, "byte {byte:#x} beside {neighbour:#x}");
            }
        }
    }

    #[test]
    fn a_probe_is_short() {
        let taken: Vec<bool> = INDEX.slots.iter().map(|&at| at != EMPTY).collect();
        let longest = taken.split(|&taken| !taken).map(<[bool]>::len).max();
        assert!(longest < Some(16), "{longest:?} names in a row");
    }

    #[test]
    fn names_that_differ_in_any_byte_or_in_length_are_different() {
        for len in 1..=NAME_BYTES_MAX {
            let name = vec![b'A'; len];
            let key = Key::of(&name).unwrap();
            for at in 0..len {
                let mut other = name.clone();
                other[at] = b'B';
                assert!(
                    !key.is(&Key::of(&other).unwrap()),
                    "length {len}, byte {at}"
                );
            }
            let mut longer = name.clone();
            longer.push(0);
            assert!(
                Key::of(&longer).is_none_or(|longer| !key.is(&longer)),
                "length {len}"
            );
        }
        assert!(Key::of(b"").is_none());
        assert!(Key::of(&[b'A'; NAME_BYTES_MAX + 1]).is_none());
    }
}
