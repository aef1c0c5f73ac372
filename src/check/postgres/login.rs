//! Answers to what a server asks before it opens a session (the section "Start-up" of PostgreSQL's description of its
//! protocol).
//!
//! SCRAM-SHA-256 always, a password in plain only over TLS (servers that ask LDAP or PAM want it so). MD5, which
//! PostgreSQL gives up, and Kerberos are not spoken.

use super::scram::{Scram, Verifier};
use crate::check::secret::Secret;

/// Where the login stands.
#[derive(Debug)]
pub(super) enum Login {
    Begun,
    Challenged(Scram),
    Proved(Verifier),
    /// The server has proved itself too, or was sent the password.
    Done,
}

/// What an authentication message leads to.
#[derive(Debug)]
pub(super) enum Next {
    Send(Vec<u8>),
    GoOn,
    /// Why there is no session.
    Stop(&'static str),
}

impl Login {
    /// Answers the authentication message with this body.
    pub(super) async fn answer(&mut self, body: &[u8], password: &Secret, over_tls: bool) -> Next {
        let Some((code, data)) = body.split_first_chunk() else { return Next::Stop(MALFORMED) };
        match (u32::from_be_bytes(*code), std::mem::replace(self, Self::Done)) {
            (OK, Self::Begun | Self::Done) => Next::GoOn,
            (OK, _) => {
                Next::Stop("opened a session without a proof that it knows the password, expected one")
            }
            (CLEARTEXT, Self::Begun) if over_tls => {
                Next::Send(message(&[password.reveal().as_bytes(), b"\0"].concat()))
            }
            (CLEARTEXT, Self::Begun) => {
                Next::Stop("asks for the password in plain, expected SCRAM-SHA-256 (or tls)")
            }
            (MD5, Self::Begun) => Next::Stop("asks for MD5, expected SCRAM-SHA-256"),
            (SASL, Self::Begun) => self.begin(data),
            (SASL_CONTINUE, Self::Challenged(scram)) => self.prove(scram, data, password).await,
            (SASL_FINAL, Self::Proved(verifier)) if verifier.accepts(data) => Next::GoOn,
            (SASL_FINAL, Self::Proved(_)) => {
                Next::Stop("does not know the password itself: its signature is wrong")
            }
            _ => Next::Stop("asks for a kind of login that is not known here, expected SCRAM-SHA-256"),
        }
    }

    fn begin(&mut self, mechanisms: &[u8]) -> Next {
        if !mechanisms.split(|&byte| byte == 0).any(|mechanism| mechanism == MECHANISM) {
            return Next::Stop("offers no SCRAM-SHA-256, expected it");
        }
        match Scram::new() {
            Ok(scram) => {
                let first = scram.first();
                *self = Self::Challenged(scram);
                let length = (first.len() as u32).to_be_bytes();
                Next::Send(message(&[MECHANISM, b"\0", &length, first.as_bytes()].concat()))
            }
            Err(why) => Next::Stop(why),
        }
    }

    async fn prove(&mut self, scram: Scram, challenge: &[u8], password: &Secret) -> Next {
        let (challenge, password) = (challenge.to_vec(), password.clone());
        let proved = tokio::task::spawn_blocking(move || scram.finish(password.reveal(), &challenge));
        match proved.await {
            Ok(Ok((last, verifier))) => {
                *self = Self::Proved(verifier);
                Next::Send(message(last.as_bytes()))
            }
            Ok(Err(why)) => Next::Stop(why),
            Err(_) => Next::Stop("could not be answered: the computation ended early"),
        }
    }
}

/// PasswordMessage, SASLInitialResponse and SASLResponse share their letter.
fn message(body: &[u8]) -> Vec<u8> {
    // A password is short, and so is what comes of it.
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&b"p"[..], &length.to_be_bytes(), body].concat()
}

const OK: u32 = 0;
const CLEARTEXT: u32 = 3;
const MD5: u32 = 5;
const SASL: u32 = 10;
const SASL_CONTINUE: u32 = 11;
const SASL_FINAL: u32 = 12;

const MECHANISM: &[u8] = b"SCRAM-SHA-256";

const MALFORMED: &str = "sent a malformed question for a password";
