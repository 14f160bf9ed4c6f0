//! Writes that can be told apart: the key and the value of write number n.
//!
//! A value begins with a mark that names its run and its number, and is filled up to the wanted
//! size with bytes that depend on nothing, so the whole value can be checked against what was sent.

use std::io::Write;

/// The shortest value that holds a mark.
pub const VALUE_BYTES_MIN: usize = 48;

#[derive(Clone, Debug)]
pub struct Series {
    name: String,
    filler: Vec<u8>,
}

impl Series {
    /// `name` tells series in the same database apart.
    pub fn new(name: &str, value_bytes: usize) -> Series {
        let alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let wanted = value_bytes.max(VALUE_BYTES_MIN);
        Series {
            name: name.to_owned(),
            filler: alphabet.iter().copied().cycle().take(wanted).collect(),
        }
    }

    pub fn value_bytes(&self) -> usize {
        self.filler.len()
    }

    pub fn key(&self, number: u64) -> String {
        format!("{}:{number:010}", self.name)
    }

    pub fn value(&self, number: u64) -> Vec<u8> {
        let mut value = self.filler.clone();
        let mark = format!("<{}:{number:010}>", self.name);
        for (at, byte) in value.iter_mut().zip(mark.bytes()) {
            *at = byte;
        }
        value
    }

    /// Whether `value` is, byte for byte, what write `number` sent.
    pub fn matches(&self, number: u64, value: &[u8]) -> bool {
        let mark = format!("<{}:{number:010}>", self.name);
        value.len() == self.filler.len()
            && value.starts_with(mark.as_bytes())
            && value.get(mark.len()..) == self.filler.get(mark.len()..)
    }

    /// Appends `SET key value`.
    pub fn put_set(&self, out: &mut Vec<u8>, number: u64) {
        let key_bytes = self.name.len() + 11;
        let value_bytes = self.filler.len();
        let written = write!(
            out,
            "*3\r\n$3\r\nSET\r\n${key_bytes}\r\n{0}:{number:010}\r\n\
             ${value_bytes}\r\n<{0}:{number:010}>",
            self.name
        );
        debug_assert!(written.is_ok(), "a Vec takes whatever is written");
        let mark_bytes = self.name.len() + 13;
        out.extend_from_slice(self.filler.get(mark_bytes..).unwrap_or_default());
        out.extend_from_slice(b"\r\n");
    }

    /// Appends `GET key`.
    pub fn put_get(&self, out: &mut Vec<u8>, number: u64) {
        let key_bytes = self.name.len() + 11;
        let written = write!(
            out,
            "*2\r\n$3\r\nGET\r\n${key_bytes}\r\n{}:{number:010}\r\n",
            self.name
        );
        debug_assert!(written.is_ok(), "a Vec takes whatever is written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::wire::put_request;

    #[test]
    fn a_write_carries_the_key_and_the_value_of_its_number() {
        let series = Series::new("demo:w", 200);
        let (mut quick, mut plain) = (Vec::new(), Vec::new());
        series.put_set(&mut quick, 7);
        put_request(
            &mut plain,
            &[b"SET".to_vec(), series.key(7).into(), series.value(7)],
        );
        assert_eq!(quick, plain);
        let (mut quick, mut plain) = (Vec::new(), Vec::new());
        series.put_get(&mut quick, 7);
        put_request(&mut plain, &[b"GET".to_vec(), series.key(7).into()]);
        assert_eq!(quick, plain);
    }

    #[test]
    fn a_value_matches_its_own_number_only_and_only_whole() {
        let series = Series::new("demo:w", 200);
        let mut value = series.value(7);
        assert!(series.matches(7, &value) && !series.matches(8, &value));
        value[199] ^= 1;
        assert!(!series.matches(7, &value));
        assert!(!series.matches(7, &series.value(7)[..199]));
    }
}
