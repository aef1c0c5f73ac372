//! How long a certificate is good: its notAfter (RFC 5280 section 4.1.2.5), read from the DER.
//!
//! rustls verifies certificates and tells nothing of their dates, and a whole X.509 parser is a dozen crates.
//! So this walks the few elements before the one that is wanted. Whatever the bytes, it ends, and never panics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The end of a certificate's validity; None if the bytes are no certificate.
pub fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let certificate = Der(certificate).expect(SEQUENCE)?;
    let mut signed = Der(Der(certificate).expect(SEQUENCE)?);
    let mut peek = Der(signed.0);
    if peek.next()?.0 == VERSION {
        signed = peek;
    }
    signed.expect(INTEGER)?; // serial number
    signed.expect(SEQUENCE)?; // signature algorithm
    signed.expect(SEQUENCE)?; // issuer
    let mut validity = Der(signed.expect(SEQUENCE)?);
    validity.next()?; // notBefore
    match validity.next()? {
        (UTC_TIME, text) => {
            let (year, rest) = text.split_at_checked(2)?;
            let year = number(year)?;
            // RFC 5280: 50 to 99 are of the twentieth century.
            moment(if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, text) => {
            let (year, rest) = text.split_at_checked(4)?;
            moment(number(year)?, rest)
        }
        _ => None,
    }
}

/// What is left of some DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next element: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // Longer than 4 bytes, or 0x80 (indefinite), is no DER of a certificate.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, &byte| length << 8 | usize::from(byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }
}

/// `rest` is MMDDHHMMSSZ; before 1970 counts as 1970.
fn moment(year: u64, rest: &[u8]) -> Option<SystemTime> {
    let (fields, zone) = rest.split_at_checked(10)?;
    if zone != b"Z" {
        return None;
    }
    let mut fields = fields.chunks(2).map(number);
    let mut field = |least: u64, most: u64| fields.next()?.filter(|value| (least..=most).contains(value));
    let (month, day) = (field(1, 12)?, field(1, 31)?);
    let (hour, minute, second) = (field(0, 23)?, field(0, 59)?, field(0, 60)?);
    let days = days_since_1970(year, month, day);
    Some(UNIX_EPOCH + Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

/// Of the Gregorian calendar, with years that begin in March, so that the leap day comes last.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    days.saturating_sub(719_469)
}

fn number(digits: &[u8]) -> Option<u64> {
    let add = |sum: u64, &byte: &u8| byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'));
    digits.iter().try_fold(0, add)
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0]`, explicit; left out in version 1.
const VERSION: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    use super::*;

    fn certificate(name: &str) -> CertificateDer<'static> {
        let file = format!("{}/tests/data/tls/{name}.crt", env!("CARGO_MANIFEST_DIR"));
        CertificateDer::from_pem_file(file).expect("a certificate")
    }

    fn seconds(moment: SystemTime) -> u64 {
        moment.duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
    }

    #[test]
    fn both_forms_of_time_are_read() {
        // UTCTime 200102…Z, and GeneralizedTime for a year past 2049 (`openssl x509 -enddate`).
        let expired = seconds(not_after(&certificate("expired")).expect("a date"));
        assert_eq!(humantime::format_rfc3339(UNIX_EPOCH + Duration::from_secs(expired)).to_string(), EXPIRED);
        let far = not_after(&certificate("loopback")).expect("a date");
        assert_eq!(humantime::format_rfc3339(far).to_string(), "2126-10-29T20:59:10Z");
    }

    #[test]
    fn the_calendar_is_that_of_another_implementation() {
        let mut days = 0;
        while days < 200_000 {
            let moment = UNIX_EPOCH + Duration::from_secs(days * 86_400);
            let text = humantime::format_rfc3339(moment).to_string();
            let field = |from: usize, to: usize| number(&text.as_bytes()[from..to]).expect("digits");
            assert_eq!(days_since_1970(field(0, 4), field(5, 7), field(8, 10)), days, "{text}");
            days += 1;
        }
    }

    #[test]
    fn dates_that_are_none_are_refused() {
        for bad in
            ["1301000000Z", "0100000000Z", "0101240000Z", "0101000000", "0101000000+0100", "01a1000000Z"]
        {
            assert_eq!(moment(2030, bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = not_after(&bytes);
        }

        #[test]
        fn a_damaged_certificate_does_not_either(at in 0..400usize, byte in any::<u8>(), end in 0..500usize) {
            let mut bytes = certificate("loopback").to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(end);
            let _ = not_after(&bytes);
        }
    }

    const EXPIRED: &str = "2020-01-02T00:00:00Z";
}
