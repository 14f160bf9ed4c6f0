//! SHA-1 (RFC 3174): the name by which servers know a script.
//!
//! It protects nothing here, so the plain form is enough; it runs once for every script that is
//! new.

/// The digest of `message`.
pub fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state = [
        0x6745_2301_u32,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    let mut blocks = message.chunks_exact(64);
    for block in &mut blocks {
        mix(&mut state, block);
    }
    // A one bit, zeros, and the length in bits fill up the last block, or two of them.
    let mut tail = blocks.remainder().to_vec();
    tail.push(0x80);
    while tail.len() % 64 != 56 {
        tail.push(0);
    }
    tail.extend_from_slice(&(message.len() as u64).wrapping_mul(8).to_be_bytes());
    for block in tail.chunks_exact(64) {
        mix(&mut state, block);
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn mix(state: &mut [u32; 5], block: &[u8]) {
    let mut recent = [0_u32; 16];
    for (word, bytes) in recent.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    let [mut a, mut b, mut c, mut d, mut e] = *state;
    for round in 0..80 {
        let [w0, _, w2, _, _, _, _, _, w8, _, _, _, _, w13, ..] = recent;
        let (chosen, constant) = match round {
            0..20 => ((b & c) | (!b & d), 0x5a82_7999),
            20..40 => (b ^ c ^ d, 0x6ed9_eba1),
            40..60 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc_u32),
            _ => (b ^ c ^ d, 0xca62_c1d6),
        };
        let next = a
            .rotate_left(5)
            .wrapping_add(chosen)
            .wrapping_add(e)
            .wrapping_add(constant)
            .wrapping_add(w0);
        (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        recent.rotate_left(1);
        if let Some(last) = recent.last_mut() {
            *last = (w0 ^ w2 ^ w8 ^ w13).rotate_left(1);
        }
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d, e]) {
        *word = word.wrapping_add(added);
    }
}

/// A digest from its forty hexadecimal digits.
pub fn from_hex(hex: &[u8]) -> Option<[u8; 20]> {
    if hex.len() != 40 {
        return None;
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut digest = [0; 20];
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        let (high, low) = (digit(pair.first()?)?, digit(pair.last()?)?);
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digests_of_the_standard_and_of_every_length_of_padding() {
        let check = |message: &[u8], hex: &str| {
            assert_eq!(Some(sha1(message)), from_hex(hex.as_bytes()), "{message:?}");
        };
        check(b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d");
        check(b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709");
        check(
            b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
            "84983E441C3BD26EBAAE4AA1F95129E5E54670F1",
        );
        check(
            &[b'a'; 1_000_000],
            "34aa973cd4c4daa4f61eeb2bdbad27316534016f",
        );
        check(b"return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(from_hex(b"e0e1"), None);
        assert_eq!(from_hex(&[b'g'; 40]), None);
    }
}
