//! Notices that a file changed, by looking every now and then.
//!
//! A ConfigMap changes by a swap of the symbolic link `..data`, at most once a minute, and never where it is
//! mounted by `subPath`. Notification by the kernel sees the swap only in the right folder and misses
//! network file systems; a look every two seconds costs a few system calls and misses nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The files a configuration was read from, as they were at the last look.
#[derive(Debug)]
pub struct Watch {
    files: Vec<(PathBuf, Option<Look>)>,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look {
    /// Where links lead: the swap of `..data` shows here even if everything else is equal.
    target: PathBuf,
    modified: Option<SystemTime>,
    length: u64,
    device: u64,
    inode: u64,
}

impl Watch {
    /// How often to call [`Watch::changed`] unless there is a reason for another interval.
    pub const INTERVAL: Duration = Duration::from_secs(2);

    /// Takes the first look.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Watch { files: files.into_iter().map(|file| (file.clone(), look(&file))).collect() }
    }

    /// Watches these files from now on; says whether any of them is new. What was last seen of the others
    /// stays, so that no change of them is missed.
    pub fn follow(&mut self, files: impl IntoIterator<Item = PathBuf>) -> bool {
        let mut old = std::mem::take(&mut self.files);
        let mut any_new = false;
        for file in files {
            let known = old.iter().position(|(name, _)| *name == file);
            any_new |= known.is_none();
            self.files.push(match known {
                Some(at) => old.swap_remove(at),
                None => (file.clone(), look(&file)),
            });
        }
        any_new
    }

    /// Looks again: whether a file is another than at the last look.
    ///
    /// A file that is gone has not changed: between two steps of a swap, or of an editor's save, it is not
    /// there for a moment, and the old configuration stays valid until a new one can be read.
    pub fn changed(&mut self) -> bool {
        let mut changed = false;
        for (file, last) in &mut self.files {
            let now = look(file);
            if now.is_some() && now != *last {
                *last = now;
                changed = true;
            }
        }
        changed
    }
}

fn look(file: &Path) -> Option<Look> {
    let target = fs::canonicalize(file).ok()?;
    let metadata = fs::metadata(&target).ok()?;
    Some(Look {
        modified: metadata.modified().ok(),
        length: metadata.len(),
        device: metadata.dev(),
        inode: metadata.ino(),
        target,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("readygate-watch-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("temporary folder");
            Folder(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_swap_of_the_data_link_is_one_change() {
        let folder = Folder::new("swap");
        let at = |name: &str| folder.0.join(name);
        for version in ["..1", "..2"] {
            fs::create_dir_all(at(version)).expect("folder");
            fs::write(at(version).join("app.yaml"), "workers: 1").expect("file");
        }
        symlink("..1", at("..data")).expect("link");
        symlink("..data/app.yaml", at("app.yaml")).expect("link");
        let mut watch = Watch::new([at("app.yaml")]);
        assert!(!watch.changed());

        symlink("..2", at("..data_tmp")).expect("link");
        fs::rename(at("..data_tmp"), at("..data")).expect("swap");
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_file_that_is_gone_for_a_moment_changes_when_it_is_back() {
        let folder = Folder::new("gone");
        let file = folder.0.join("app.yaml");
        fs::write(&file, "workers: 1").expect("file");
        let mut watch = Watch::new([file.clone()]);
        fs::remove_file(&file).expect("file");
        assert!(!watch.changed());
        fs::write(&file, "workers: 10").expect("file");
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_file_that_was_missing_changes_when_it_appears() {
        let folder = Folder::new("missing");
        let file = folder.0.join("token");
        let mut watch = Watch::new([file.clone()]);
        assert!(!watch.changed());
        fs::write(&file, "x").expect("file");
        assert!(watch.changed());
    }
    #[test]
    fn file_that_stays_is_not_taken_for_seen_when_others_come_and_go() {
        let folder = Folder::new("follow");
        let at = |name: &str| folder.0.join(name);
        fs::write(at("app.yaml"), "workers: 1").expect("file");
        let mut watch = Watch::new([at("app.yaml")]);
        fs::write(at("app.yaml"), "workers: 10").expect("file");
        assert!(watch.follow([at("app.yaml"), at("token")]), "the token's file is new");
        assert!(!watch.follow([at("token"), at("app.yaml")]));
        assert!(watch.changed(), "app.yaml changed before");
        fs::write(at("token"), "x").expect("file");
        assert!(watch.changed());
        assert!(!watch.follow([at("app.yaml")]));
        fs::write(at("token"), "xyz").expect("file");
        assert!(!watch.changed(), "nobody watches it any more");
    }
}
