//! Where the frames of a WebSocket begin and end (RFC 6455, 5.2), and the frame that says goodbye.
//!
//! A sidecar that leaves has to tell the ends of a long connection, and may put a frame of its own between
//! two of theirs only: so it follows the frames that pass, head by head, and reads no payload. Bytes that
//! are no frames end that quietly: they pass as they are, and nothing is ever put between them.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;

/// Who sends the frames of one direction: a client masks them, a server must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    App,
}

/// The frames of one direction, as far as they came.
#[derive(Debug)]
pub struct Frames {
    sender: Sender,
    state: State,
}

#[derive(Debug)]
enum State {
    /// In a head, of which that many bytes came: 0 is between two frames.
    Head { bytes: [u8; LONGEST_HEAD], length: usize },
    /// In a payload, of which that much is to come.
    Payload { left: u64, closes: bool },
    /// A Close frame passed: nothing may follow it.
    Closed,
    /// What came is no frame.
    Lost,
}

impl Frames {
    pub fn new(sender: Sender) -> Self {
        Self { sender, state: State::BETWEEN }
    }

    pub fn sender(&self) -> Sender {
        self.sender
    }

    /// Notes bytes that pass.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.advance(bytes)..];
        }
    }

    /// Notes bytes that pass up to the end of the frame under way; says how many those are: none between two
    /// frames, all if its end is not among them.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() && !self.is_between() {
            passed += self.advance(&bytes[passed..]);
        }
        passed
    }

    /// Whether a frame may be put in here.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head { length: 0, .. })
    }

    /// Whether a frame may be put in here or further on.
    pub fn is_followed(&self) -> bool {
        !matches!(self.state, State::Closed | State::Lost)
    }

    /// Whether the sender said goodbye.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes bytes of one head or one payload, at least one; says how many.
    fn advance(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Head { bytes: head, length } => {
                head[*length] = bytes[0];
                *length += 1;
                if let Some(next) = after_head(&head[..*length], self.sender) {
                    self.state = next;
                }
                1
            }
            State::Payload { left, closes } => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.state = State::after_frame(*closes);
                }
                taken
            }
            State::Closed | State::Lost => bytes.len(),
        }
    }
}

impl State {
    const BETWEEN: Self = Self::Head { bytes: [0; LONGEST_HEAD], length: 0 };

    fn after_frame(closes: bool) -> Self {
        if closes { Self::Closed } else { Self::BETWEEN }
    }
}

/// What follows a head; `None` if it is not complete.
fn after_head(head: &[u8], sender: Sender) -> Option<State> {
    let (&[first, second], rest) = head.split_first_chunk()?;
    let (opcode, masked, short) = (first & 0x0f, second & 0x80 != 0, second & 0x7f);
    let is_control = opcode & 0x08 != 0;
    let is_frame = matches!(opcode, 0x0..=0x2 | CLOSE | 0x9 | 0xa)
        && masked == (sender == Sender::Client)
        // Control frames are neither fragmented nor long (5.5).
        && (!is_control || (first & FIN != 0 && short <= 125));
    if !is_frame {
        return Some(State::Lost);
    }
    let (left, rest) = match short {
        126 => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest))?,
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        short => (short.into(), rest),
    };
    if masked && rest.len() < MASK {
        return None;
    }
    Some(match left {
        0 => State::after_frame(opcode == CLOSE),
        // The highest bit must be 0 (5.2).
        left if left > i64::MAX as u64 => State::Lost,
        left => State::Payload { left, closes: opcode == CLOSE },
    })
}

/// The Close frame of an end that goes away (7.4.1), as that sender has to send it.
pub fn going_away(sender: Sender) -> Bytes {
    let payload = [&GOING_AWAY.to_be_bytes(), REASON].concat();
    let mut frame = vec![FIN | CLOSE, payload.len() as u8];
    match sender {
        Sender::App => frame.extend(payload),
        Sender::Client => {
            // Masks keep what a script sends from looking like another protocol to boxes on the way (10.3).
            // Nobody chose what this one hides, so what seeds our hash maps is random enough.
            let mask = (RandomState::new().build_hasher().finish() as u32).to_be_bytes();
            frame[1] |= 0x80;
            frame.extend(mask);
            frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
    }
    frame.into()
}

const FIN: u8 = 0x80;
const CLOSE: u8 = 0x8;
/// Two bytes, eight of an extended length, four of a mask.
const LONGEST_HEAD: usize = 14;
const MASK: usize = 4;
const GOING_AWAY: u16 = 1001;
const REASON: &[u8] = b"this pod is leaving";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as `sender` sends it.
    fn frame(sender: Sender, first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = if sender == Sender::Client { 0x80 } else { 0 };
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(mask | length as u8),
            length @ 126..65_536 => {
                frame.push(mask | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(mask | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        if mask != 0 {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(payload);
        frame
    }

    fn sender() -> impl Strategy<Value = Sender> {
        prop_oneof![Just(Sender::Client), Just(Sender::App)]
    }

    /// Frames but Close: text, binary and their fragments, ping, pong.
    fn frames() -> impl Strategy<Value = Vec<(u8, usize)>> {
        let data = (prop_oneof![Just(0x00), Just(0x01), Just(0x02), Just(0x80), Just(0xc1), Just(0x82)], {
            prop_oneof![0_usize..300, Just(125), Just(126), Just(65_535), Just(65_536), Just(70_000)]
        });
        let control = (prop_oneof![Just(0x89), Just(0x8a)], 0_usize..=125);
        prop::collection::vec(prop_oneof![data, control], 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn boundaries_are_found_in_any_chunks(
            sender in sender(),
            frames in frames(),
            chunks in prop::collection::vec(1_usize..5000, 1..40),
        ) {
            let (mut bytes, mut boundaries) = (Vec::new(), vec![0]);
            for (first, length) in frames {
                bytes.extend(frame(sender, first, &vec![0x88; length]));
                boundaries.push(bytes.len());
            }
            let (mut followed, mut at) = (Frames::new(sender), 0);
            for chunk in chunks.into_iter().cycle() {
                prop_assert_eq!(followed.is_between(), boundaries.contains(&at));
                prop_assert!(followed.is_followed());
                if at == bytes.len() {
                    break;
                }
                let end = (at + chunk).min(bytes.len());
                followed.pass(&bytes[at..end]);
                at = end;
            }
        }

        #[test]
        fn finish_stops_at_the_end_of_the_frame_under_way(
            sender in sender(),
            frames in frames(),
            stop in any::<prop::sample::Index>(),
        ) {
            let (mut bytes, mut boundaries) = (Vec::new(), vec![0]);
            for (first, length) in frames {
                bytes.extend(frame(sender, first, &vec![0; length]));
                boundaries.push(bytes.len());
            }
            let stop = stop.index(bytes.len() + 1);
            let mut followed = Frames::new(sender);
            followed.pass(&bytes[..stop]);
            let next = boundaries.iter().copied().find(|&boundary| boundary >= stop);
            prop_assert_eq!(Some(stop + followed.finish(&bytes[stop..])), next);
            prop_assert!(followed.is_between());
        }

        #[test]
        fn any_bytes_are_taken_without_harm(sender in sender(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let (mut whole, mut single) = (Frames::new(sender), Frames::new(sender));
            whole.pass(&bytes);
            for byte in &bytes {
                single.pass(&[*byte]);
            }
            prop_assert_eq!((whole.is_between(), whole.is_followed()), (single.is_between(), single.is_followed()));
        }
    }

    #[test]
    fn bytes_that_are_no_frames_end_it_quietly() {
        let no_frames: [(Sender, &[u8]); 7] = [
            (Sender::App, b"SSH-2.0-OpenSSH"),
            (Sender::App, &[0x83, 1, 0]),                // a reserved opcode
            (Sender::App, &[0x81, 0x81, 1, 2, 3, 4, 0]), // masked by a server
            (Sender::Client, &[0x81, 1, 0]),             // not masked by a client
            (Sender::App, &[0x09, 0]),                   // a fragment of a ping
            (Sender::App, &[0x89, 126, 0, 126]),         // a long ping
            (Sender::App, &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 0]), // longer than lengths are
        ];
        for (sender, bytes) in no_frames {
            let mut frames = Frames::new(sender);
            frames.pass(bytes);
            assert!(!frames.is_followed() && !frames.is_between() && !frames.is_closed(), "{bytes:x?}");
            assert_eq!(frames.finish(b"more"), 4);
        }
    }

    #[test]
    fn nothing_is_put_in_after_a_close_frame() {
        for sender in [Sender::Client, Sender::App] {
            for payload in [&b""[..], b"\x03\xe8bye"] {
                let mut frames = Frames::new(sender);
                frames.pass(&frame(sender, 0x88, payload));
                assert!(frames.is_closed() && !frames.is_followed() && !frames.is_between());
            }
        }
    }

    #[test]
    fn goodbye_is_a_close_frame_of_its_sender_with_code_1001() {
        for sender in [Sender::Client, Sender::App] {
            let goodbye = going_away(sender);
            let mut frames = Frames::new(sender);
            frames.pass(&goodbye);
            assert!(frames.is_closed(), "{goodbye:x?}");
            let masked = usize::from(sender == Sender::Client) * MASK;
            let mask = [&goodbye[2..2 + masked], &[0; MASK]].concat();
            let payload = goodbye[2 + masked..].iter().zip(mask[..MASK].iter().cycle());
            let payload: Vec<u8> = payload.map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(payload, [&[0x03, 0xe9], REASON].concat());
        }
    }
}
