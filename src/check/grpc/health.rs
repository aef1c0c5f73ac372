//! The two messages of `grpc.health.v1.Health/Check`, in the encoding of protocol buffers.
//!
//! ```text
//! message HealthCheckRequest  { string service = 1; }
//! message HealthCheckResponse { ServingStatus status = 1; }
//! ```

/// The method that is called.
pub(in crate::check) const PATH: &str = "/grpc.health.v1.Health/Check";

/// The question for a service; an empty name is the whole server.
pub(in crate::check) fn request(service: &str) -> Vec<u8> {
    if service.is_empty() {
        return Vec::new();
    }
    let mut message = vec![1 << 3 | LENGTH];
    let mut length = service.len();
    while length > 0x7f {
        message.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(service.as_bytes());
    message
}

/// What the message calls `ServingStatus`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::check) enum HealthStatus {
    Unknown,
    Serving,
    NotServing,
    /// The server does not know the service; `Check` says NOT_FOUND instead.
    ServiceUnknown,
    Other,
}

impl HealthStatus {
    pub(in crate::check) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Serving => "SERVING",
            Self::NotServing => "NOT_SERVING",
            Self::ServiceUnknown => "SERVICE_UNKNOWN",
            Self::Other => "an unknown status",
        }
    }
}

/// Reads an answer; None if it is not one. Unknown fields are skipped, and the last of several counts, as everywhere
/// in protocol buffers.
pub(in crate::check) fn response(mut message: &[u8]) -> Option<HealthStatus> {
    let mut status = HealthStatus::Unknown;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        match (key >> 3, key as u8 & 7) {
            (0, _) => return None,
            (1, VARINT) => {
                status = match varint(&mut message)? {
                    0 => HealthStatus::Unknown,
                    1 => HealthStatus::Serving,
                    2 => HealthStatus::NotServing,
                    3 => HealthStatus::ServiceUnknown,
                    _ => HealthStatus::Other,
                }
            }
            (_, VARINT) => drop(varint(&mut message)?),
            (_, EIGHT_BYTES) => message = message.get(8..)?,
            (_, FOUR_BYTES) => message = message.get(4..)?,
            (_, LENGTH) => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(status)
}

/// Takes a number of at most ten bytes, of seven bits each, the lowest first.
fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// How a field is written.
const VARINT: u8 = 0;
const EIGHT_BYTES: u8 = 1;
const LENGTH: u8 = 2;
const FOUR_BYTES: u8 = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_question_is_that_of_the_kubelet() {
        // tests/data/kubelet-probe-vectors.json, behind the five bytes of the prefix.
        assert_eq!(request(""), b"");
        assert_eq!(request("serving"), b"\x0a\x07serving");
        let long = request(&"x".repeat(300));
        assert_eq!((&long[..3], long.len()), (&[0x0a, 0xac, 0x02][..], 303));
    }

    #[test]
    fn answers_are_read_as_protocol_buffers_are() {
        assert_eq!(response(&[]), Some(HealthStatus::Unknown));
        assert_eq!(response(&[8, 1]), Some(HealthStatus::Serving));
        assert_eq!(response(&[8, 2]), Some(HealthStatus::NotServing));
        assert_eq!(response(&[8, 3]), Some(HealthStatus::ServiceUnknown));
        assert_eq!(response(&[8, 9]), Some(HealthStatus::Other));
        assert_eq!(
            response(&[8, 2, 8, 0x81, 0]),
            Some(HealthStatus::Serving),
            "the last counts, in any length"
        );
        let unknown_fields = [0x12, 2, 8, 2, 0x18, 7, 8, 1, 0x25, 1, 2, 3, 4, 0x29, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(response(&unknown_fields), Some(HealthStatus::Serving));
        for bad in [&[8][..], &[8, 0x80], &[0x0a, 5, 1], &[0, 1], &[0x0b], &[0x0f], &[0xff; 11]] {
            assert_eq!(response(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = response(&bytes);
        }

        #[test]
        fn a_good_answer_is_found_among_unknown_fields(
            fields in prop::collection::vec((2_u8..16, prop::collection::vec(any::<u8>(), 0..100)), 0..5),
        ) {
            let mut message = Vec::new();
            for (number, bytes) in &fields {
                message.extend([number << 3 | LENGTH, bytes.len() as u8]);
                message.extend(bytes);
            }
            message.extend([8, 1]);
            prop_assert_eq!(response(&message), Some(HealthStatus::Serving));
        }
    }
}
