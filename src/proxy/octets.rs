//! Which bytes may stand where in HTTP/1, and fast looks for the first that may not.

use http::HeaderName;

/// How many bytes at the beginning may stand in a method or in the name of a field.
pub fn token(bytes: &[u8]) -> usize {
    first(bytes, but_letters, |byte| !is_token(byte))
}

/// How many bytes at the beginning may stand in a target.
pub fn target(bytes: &[u8]) -> usize {
    first(
        bytes,
        |block| below(block, 0x21) | (block & MARKS) | equal(block, 0x7f) | equal(block, b'#'),
        |byte| !is_target(byte),
    )
}

/// How many bytes at the beginning may stand in a value.
pub fn plain(bytes: &[u8]) -> usize {
    first(bytes, |block| below(block, 0x20) | equal(block, 0x7f), is_control)
}

/// Where the first such byte is; the end if there is none. Looks at eight bytes at once: of those that `suspects` marks,
/// by their highest bits, the first one is looked at closely, and the first of such must be among them.
fn first(bytes: &[u8], suspects: impl Fn(u64) -> u64, such: impl Fn(u8) -> bool) -> usize {
    let mut at = 0;
    while let Some(block) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        let marks = suspects(u64::from_le_bytes(*block));
        if marks == 0 {
            at += block.len();
            continue;
        }
        at += marks.trailing_zeros() as usize / 8;
        if such(bytes[at]) {
            return at;
        }
        at += 1;
    }
    let rest = &bytes[at..];
    at + rest.iter().position(|byte| such(*byte)).unwrap_or(rest.len())
}

const ONES: u64 = u64::from_le_bytes([1; 8]);
const MARKS: u64 = ONES << 7;

/// Marks the first byte that is less than `limit` (at most 0x80), and perhaps some after it.
const fn below(block: u64, limit: u8) -> u64 {
    block.wrapping_sub(ONES * limit as u64) & !block & MARKS
}

/// Marks the first byte that is this one, and perhaps some after it.
const fn equal(block: u64, byte: u8) -> u64 {
    below(block ^ (ONES * byte as u64), 1)
}

/// Marks all bytes but letters and dashes.
const fn but_letters(block: u64) -> u64 {
    let lower = (block | (ONES * 0x20)) & !MARKS;
    // Without a carry from one byte into the next.
    let from_a = lower + ONES * (0x80 - b'a' as u64);
    let beyond_z = lower + ONES * (0x7f - b'z' as u64);
    let dash = block ^ (ONES * b'-' as u64);
    let but_dash = ((dash & !MARKS) + !MARKS) | dash;
    (!from_a | beyond_z | block) & but_dash & MARKS
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20) & (byte != b'\t') | (byte == 0x7f)
}

/// Whether these are a length that every parser reads, and reads the same (RFC 9110, 8.6, in 64 bits).
pub fn is_digits(length: &[u8]) -> bool {
    (1..=19).contains(&length.len()) && length.iter().all(u8::is_ascii_digit)
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");
    TOKEN[usize::from(byte)]
}

/// RFC 3986, 3.2.2: `reg-name`, but for percent signs: whether `%61` is `a` is what parsers differ on.
pub fn is_host(byte: u8) -> bool {
    const HOST: [bool; 256] = alphanumeric_and(b"-._~!$&'()*+;=");
    HOST[usize::from(byte)]
}

/// Whether a name is one: of HTTP/2 the crate `http` also takes those with a quotation mark.
pub fn is_name(name: &HeaderName) -> bool {
    name.as_str().bytes().all(is_token)
}

/// What a target may have without being read in two ways: no blank, no control character, nothing beyond ASCII and
/// no fragment. Whether the rest is a target is for the crate `http` to say.
fn is_target(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'#'
}

const fn alphanumeric_and(punctuation: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let mut at = 0;
    while at < punctuation.len() {
        table[punctuation[at] as usize] = true;
        at += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_found_wherever_it_is_and_whatever_stands_before_it() {
        type Look = fn(&[u8]) -> usize;
        type Such = fn(u8) -> bool;
        let looks: [(Look, Such); 3] =
            [(token, |byte| !is_token(byte)), (target, |byte| !is_target(byte)), (plain, is_control)];
        for (look, such) in looks {
            let harmless: Vec<u8> = (0..=255).filter(|byte| !such(*byte)).collect();
            for byte in (0..=255).filter(|byte| such(*byte)) {
                for at in 0..20 {
                    for before in &harmless {
                        let mut bytes = [*before; 24];
                        assert_eq!(look(&bytes), 24, "{before:#x}");
                        bytes[at] = byte;
                        // What comes after it is looked at in the same step.
                        bytes[at + 1] = byte;
                        assert_eq!(look(&bytes), at, "{byte:#x} after {before:#x}");
                    }
                }
            }
        }
    }

    #[test]
    fn values_are_those_of_the_standard() {
        let plain_bytes: Vec<u8> = (0..=255).filter(|byte| plain(&[*byte]) == 1).collect();
        let expected: Vec<u8> = (0x20..=0x7e).chain(0x80..=0xff).collect();
        assert_eq!(plain_bytes, [vec![b'\t'], expected].concat());
    }

    #[test]
    fn tokens_and_targets_are_those_of_the_standards() {
        let tokens: String = (0..=255).filter(|byte| is_token(*byte)).map(char::from).collect();
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let expected = format!("!#$%&'*+-.0123456789{letters}^_`{}|~", letters.to_lowercase());
        assert_eq!(tokens, expected);
        assert_eq!((0..=255).filter(|byte| is_target(*byte)).count(), 93);
    }
}
