//! The pod's readiness: one state machine, and the views that probes and requests read.
//!
//! [`Gate`] is the writing side: the supervisor reports check results, the data plane reports that the
//! app's port refuses or accepts, the drain reports its progress. Each event goes through the pure
//! machine in [`core`] under a short lock; what follows is published for readers, who take no lock.
//! [`GateView`] is the reading side: `verdict` is two atomic loads.
