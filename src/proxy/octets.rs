//! Which bytes may stand where in HTTP/1, and fast looks for the first that may not.

use http::HeaderName;

/// How many bytes at the beginning are such.
pub fn run(bytes: &[u8], such: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !such(*byte)).unwrap_or(bytes.len())
}

/// How many bytes at the beginning may stand in a value.
pub fn plain(bytes: &[u8]) -> usize {
    // By blocks without a branch inside, which the compiler turns into a few instructions each.
    let blocks = bytes.chunks_exact(16);
    let clean = blocks.take_while(|block| !block.iter().fold(false, |found, byte| found | is_control(*byte)));
    let clean = 16 * clean.count();
    clean + run(&bytes[clean..], |byte| !is_control(byte))
}

fn is_control(byte: u8) -> bool {
    (byte < 0x20) & (byte != b'\t') | (byte == 0x7f)
}

/// Whether these are a length that every parser reads, and reads the same (RFC 9110, 8.6, in 64 bits).
pub fn is_digits(length: &[u8]) -> bool {
    (1..=19).contains(&length.len()) && length.iter().all(u8::is_ascii_digit)
}

/// RFC 9110, 5.6.2.
pub fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// Whether a name is one: of HTTP/2 the crate `http` also takes those with a quotation mark.
pub fn is_name(name: &HeaderName) -> bool {
    name.as_str().bytes().all(is_token)
}

/// What a target may have without being read in two ways: no blank, no control character, nothing beyond ASCII and
/// no fragment. Whether the rest is a target is for the crate `http` to say.
pub fn is_target(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && byte != b'#'
}

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let punctuation = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < punctuation.len() {
            if punctuation[at] == byte {
                table[byte as usize] = true;
            }
            at += 1;
        }
        if byte.is_ascii_alphanumeric() {
            table[byte as usize] = true;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_character_is_found_wherever_it_is() {
        for length in 0..70 {
            let mut bytes = vec![b'x'; 70];
            assert_eq!(plain(&bytes), 70);
            bytes[length] = 0x1f;
            assert_eq!(plain(&bytes), length);
        }
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
