//! What the name of the peers says, and when it says nothing.

use super::*;

#[test]
fn pod_that_loses_its_resolver_with_the_dependency_knows_its_peers_from_before() {
    clustered(1, 4, HALF, async |cluster| {
        // Long enough for a look.
        sleep(secs(90)).await;
        cluster.directory.set(Directory::Broken);
        cluster.path(2, false);
        cluster.until("it has left", secs(25), |cluster| !cluster.is_ready(2)).await;
        assert_eq!(cluster.least(), 3);
    });
}

#[test]
fn pod_that_never_found_its_peers_stays() {
    clustered(2, 4, HALF, async |cluster| {
        cluster.directory.set(Directory::Broken);
        cluster.path(2, false);
        sleep(secs(300)).await;
        assert_eq!((cluster.least(), cluster.guarded()), (4, 1));
    });
}
