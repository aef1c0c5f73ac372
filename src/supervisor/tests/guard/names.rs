//! What the name of the peers says, and when it says nothing.

use super::*;

#[test]
fn floor_holds_where_the_name_lists_ready_pods_only() {
    for seed in 0..5 {
        clustered(seed, 10, HALF, async |cluster| {
            cluster.directory.set(Directory::Ready);
            // Each has looked at the others: who starts in the middle of an outage cannot know how many they were.
            sleep(secs(30)).await;
            for death in 0..5 {
                cluster.up.set(false);
                sleep(secs(40 + 300 * (death % 2))).await;
                cluster.up.set(true);
                sleep(secs(15)).await;
            }
            let least = cluster.least();
            assert!((5..8).contains(&least), "seed {seed}: {least}");
        });
    }
}

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
