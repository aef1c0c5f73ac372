//! SCRAM-SHA-256 from the client's side (RFC 5802, RFC 7677), without channel binding.
//!
//! The password never leaves the process; the server proves that it knows it, too (or what was derived from it), and that
//! proof is verified. Known limit: a password beyond ASCII is used as it is written, without SASLprep (RFC 4013), which
//! leaves most such passwords as they are, too.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use ring::{digest, hmac, pbkdf2};

/// The client's first message is made; what the server answers is awaited.
#[derive(Debug)]
pub(super) struct Scram {
    /// `n=NAME,r=NONCE`.
    first_bare: String,
    nonce: String,
}

impl Scram {
    /// With a nonce of its own; no name, since PostgreSQL takes that of the startup message.
    pub(super) fn new() -> Result<Self, &'static str> {
        let mut random = [0; 18];
        SystemRandom::new().fill(&mut random).map_err(|_| "no random number can be had here")?;
        Ok(Self::with("", BASE64.encode(random)))
    }

    fn with(name: &str, nonce: String) -> Self {
        Self { first_bare: format!("n={name},r={nonce}"), nonce }
    }

    /// client-first-message: no channel binding, no other identity.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.first_bare)
    }

    /// client-final-message in answer to server-first-message, and how to judge what follows. Takes some
    /// milliseconds of computing, as many as the server wants: off the thread that other checks share.
    ///
    /// # Errors
    ///
    /// The server's message is malformed, belongs to another exchange, or asks for too much.
    pub(super) fn finish(
        self,
        password: &str,
        server_first: &[u8],
    ) -> Result<(String, Verifier), &'static str> {
        let malformed = "its challenge is malformed";
        let server_first = std::str::from_utf8(server_first).map_err(|_| malformed)?;
        let mut attributes = server_first.split(',');
        let mut attribute =
            |name| attributes.next().and_then(|text| text.strip_prefix(name)).ok_or(malformed);
        let (nonce, salt, iterations) = (attribute("r=")?, attribute("s=")?, attribute("i=")?);
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("its challenge is not an answer to ours");
        }
        let salt = BASE64.decode(salt).map_err(|_| malformed)?;
        let iterations = iterations.parse().map_err(|_| malformed)?;
        if iterations > MOST_ITERATIONS {
            return Err("its challenge asks for more than a million iterations");
        }
        let mut salted = [0; digest::SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut salted);
        // `biws` is `n,,`: what the first message said of channel binding.
        let without_proof = format!("c=biws,r={nonce}");
        let transcript = format!("{},{server_first},{without_proof}", self.first_bare);
        let client_key = sign(&salted, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let signature = sign(stored_key.as_ref(), transcript.as_bytes());
        let proof = client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, signed)| key ^ signed);
        let proof = BASE64.encode(proof.collect::<Vec<_>>());
        let server_key = hmac::Key::new(hmac::HMAC_SHA256, sign(&salted, b"Server Key").as_ref());
        Ok((format!("{without_proof},p={proof}"), Verifier { server_key, transcript }))
    }
}

/// Knows what the server must prove.
pub(super) struct Verifier {
    server_key: hmac::Key,
    transcript: String,
}

impl Verifier {
    /// Whether server-final-message proves that the server knows the password.
    pub(super) fn accepts(&self, server_final: &[u8]) -> bool {
        let signature = server_final.strip_prefix(b"v=").unwrap_or_default();
        // Extensions may follow.
        let signature = signature.split(|&byte| byte == b',').next().unwrap_or_default();
        let Ok(signature) = BASE64.decode(signature) else { return false };
        hmac::verify(&self.server_key, self.transcript.as_bytes(), &signature).is_ok()
    }
}

impl std::fmt::Debug for Verifier {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// PostgreSQL asks for 4096 by default; a million take up to a second.
const MOST_ITERATIONS: NonZeroU32 = NonZeroU32::new(1_000_000).expect("more than none");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The exchange of RFC 7677 section 3.
    fn exchange() -> Scram {
        Scram::with("user", "rOprNGfwEbeRWgbNEkqO".to_owned())
    }

    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    #[test]
    fn the_exchange_of_the_standard_is_ours() {
        assert_eq!(exchange().first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (last, verifier) = exchange().finish("pencil", SERVER_FIRST.as_bytes()).expect("well-formed");
        let expected = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(last, expected);
        let proof = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(verifier.accepts(proof.as_bytes()));
        assert!(verifier.accepts(format!("{proof},x=y").as_bytes()));
        for wrong in ["", "v=", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5=", "v=AAAA", &proof[2..]] {
            assert!(!verifier.accepts(wrong.as_bytes()), "{wrong}");
        }
        assert!(!format!("{verifier:?}").contains("pencil"));
    }

    #[test]
    fn a_challenge_of_another_exchange_or_out_of_bounds_is_refused() {
        let why = |challenge: &str| exchange().finish("pencil", challenge.as_bytes()).err();
        let ours = "r=rOprNGfwEbeRWgbNEkqO";
        assert_eq!(why("r=other,s=AAAA,i=1"), Some("its challenge is not an answer to ours"));
        assert_eq!(why(&format!("{ours},s=AAAA,i=1")), Some("its challenge is not an answer to ours"));
        let long = "its challenge asks for more than a million iterations";
        assert_eq!(why(&format!("{ours}x,s=AAAA,i=4294967295")), Some(long));
        for bad in ["m=x,", "", "s=AAAA,i=1", ",s=?,i=1", ",s=AAAA,i=0", ",s=AAAA,i=-1", ",s=AAAA"] {
            let challenge =
                if bad.starts_with('m') { format!("{bad}{ours}x") } else { format!("{ours}x{bad}") };
            assert_eq!(why(&challenge), Some("its challenge is malformed"), "{challenge}");
        }
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(Scram::new().expect("random").first(), Scram::new().expect("random").first());
    }

    proptest! {
        #[test]
        fn no_challenge_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), at in 0..80_usize) {
            let mut challenge = SERVER_FIRST.replace("4096", "1").into_bytes();
            let _ = exchange().finish("pencil", &bytes);
            let at = at.min(challenge.len());
            challenge.splice(at.., bytes);
            if let Ok((_, verifier)) = exchange().finish("pencil", &challenge) {
                prop_assert!(!verifier.accepts(&challenge));
            }
        }
    }
}
