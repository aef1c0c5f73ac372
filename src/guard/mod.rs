//! The guard against cascades: what pods tell each other before one of them leaves, and what follows from it.
//!
//! A dependency that all pods share fails for all of them, and each of them, by itself, would leave: the Service is
//! empty, and clients are refused where they might have had an error page, or an answer from a cache. So a pod whose
//! check has a guard leaves only on proof: that enough others remain ready without it, or that the fault is its own.
//!
//! ```text
//!   check fails ─► excused ─ a random while ─► look ──── not enough ────► guarded: stays ready, looks again later
//!   (threshold)                                 │ enough                       ▲
//!                                               ▼                              │ takes it back
//!                                            announce ─► look again ─ not enough
//!                                                           │ enough
//!                                                           ▼
//!                                                        leaves
//! ```
//!
//! A look asks every peer's admin port (`GET /guard/CHECK`) for an [`Answer`]: who it is, whether it is ready, whether
//! it is leaving, and how the check of that name does there. [`Count`] counts, [`Verdict`] judges; both are pure. No
//! coordinator, no leases, no clocks that agree, no permissions in the cluster.
//!
//! # Why ready pods never fall below `min_ready`
//!
//! All pods may decide at the same moment, answers may take any time, and some are lost. The rules that matter:
//!
//! 1. A pod announces *before* the look by which it decides, and every answer it gives from then on says `leaving`,
//!    until it takes that back, or says `not ready`. State and announcement are one snapshot (`gate::Report`).
//! 2. In that look only those count that answered, are ready and are not leaving, whoever announced first.
//! 3. It leaves only if `min_ready` such peers were counted (or by the exception below).
//!
//! Take any moment, let `L` be all pods that are out because a guard let them leave, and `p` the one of `L` that
//! announced last. Every other pod of `L` had announced before `p` did, and said `leaving` or `not ready` ever since; so
//! in `p`'s deciding look, which began after `p` announced, none of `L` was counted. `p` counted at least `min_ready`
//! pods: none of them is in `L`, each was ready, and so it still is unless it left for another reason than a guard
//! (it crashed, drains, fails a check without one, or left by the exception below). How long anything took appears nowhere in this, so a pod that
//! hangs between look and leaving breaks nothing.
//!
//! Two pods that see each other announce both stay, though one of them might have left. That costs nothing but time:
//! both look again, after pauses that are random. The first look spares most announcements: where too few are ready
//! nobody announces at all.
//!
//! # The fault that is one's own
//!
//! Where fewer than `min_ready` remain for other reasons (a rollout, a lost node), a pod whose own path to the
//! dependency breaks should still leave. It does if *every* peer answers, none fails the check, and each of those that
//! pass ran it after this pod had counted it as failing, by the peer's own measure of how long ago that was. A fault
//! that is shared but not noticed everywhere yet is thereby told from one that is not shared. Peers that are silent
//! might fail for the same reason, so they count as not ready and forbid the exception.
//!
//! # Known limits
//!
//! The floor is that of the pod that leaves last; pods with different `min_ready` have different floors. More than
//! [`MOST_ASKED`] peers are sampled, and then the floor holds with the certainty of three standard deviations for each
//! look. Ready is what `/ready` says: a pod that has just left still gets traffic until the endpoints have heard of it.

mod answer;
mod count;

pub use self::answer::{Answer, CheckAnswer, State};
pub use self::count::{Count, Heard, Verdict};

/// Peers asked in one look; of more, these many at random.
pub const MOST_ASKED: usize = 200;

/// Bytes of an answer, head included, that are read.
pub const MOST_ANSWER_BYTES: usize = 4096;
