//! Files that are replaced while they are in use: certificates live for days, processes for months.
//!
//! Every two seconds the files are read (a Secret changes by a swap of the symbolic link `..data`, which no
//! notification of the kernel sees reliably). What is new and good is put [`InForce`]; what is bad changes nothing.
//! Certificate and key are often replaced one after the other, so what is bad at one look is called refused only
//! if it is still so at the next one, and then once.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::pem::FileError;

/// What workers read for each connection. None until the first that is good. Cheap to clone.
#[derive(Debug)]
pub struct InForce<T>(Arc<ArcSwapOption<T>>);

impl<T> InForce<T> {
    fn new() -> Self {
        Self(Arc::new(ArcSwapOption::empty()))
    }

    /// Without a lock.
    pub fn load(&self) -> Option<Arc<T>> {
        self.0.load_full()
    }
}

impl<T> Clone for InForce<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// What is made of files.
pub trait Made: Sized {
    type Files;
    type Contents: PartialEq;

    /// # Errors
    ///
    /// A file cannot be read right now.
    fn read(files: &Self::Files) -> Result<Self::Contents, FileError>;

    /// # Errors
    ///
    /// The files are not what they should be.
    fn make(files: &Self::Files, contents: &Self::Contents) -> Result<Self, FileError>;
}

/// Keeps what is made of files in force while the files change.
#[derive(Debug)]
pub struct Rotation<T: Made> {
    files: T::Files,
    in_force: InForce<T>,
    seen: Option<Result<T::Contents, String>>,
    /// Why what was seen last is bad, until it has been told.
    doubt: Option<String>,
}

/// What a look at the files found.
#[derive(Debug)]
pub enum Look<T> {
    Same,
    /// Something new is in force.
    Applied(Arc<T>),
    /// Something new is bad, but perhaps only half of it is there.
    Doubtful(String),
    /// What was doubtful is still there; what was in force stays.
    Refused(String),
}

/// How often to look.
pub const INTERVAL: Duration = Duration::from_secs(2);

impl<T: Made> Rotation<T> {
    /// Nothing is in force before the first look.
    pub fn new(files: T::Files) -> Self {
        Self { files, in_force: InForce::new(), seen: None, doubt: None }
    }

    pub fn in_force(&self) -> InForce<T> {
        self.in_force.clone()
    }

    /// Reads the files. A few system calls, and some milliseconds where a key is new.
    pub fn look(&mut self) -> Look<T> {
        let read = T::read(&self.files).map_err(|error| error.to_string());
        if self.seen.as_ref() == Some(&read) {
            return self.doubt.take().map_or(Look::Same, Look::Refused);
        }
        let made = read.as_ref().map_err(Clone::clone).and_then(|contents| {
            T::make(&self.files, contents).map(Arc::new).map_err(|error| error.to_string())
        });
        self.seen = Some(read);
        match made {
            Ok(new) => {
                self.doubt = None;
                self.in_force.0.store(Some(Arc::clone(&new)));
                Look::Applied(new)
            }
            Err(reason) => {
                self.doubt = Some(reason.clone());
                Look::Doubtful(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    use super::super::identity::{Identity, IdentityFiles};
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("readygate-tls-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).expect("temporary folder");
            Self(folder)
        }

        fn put(&self, name: &str, from: &str) {
            let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tls").join(from);
            fs::copy(data, self.0.join(name)).expect("a file");
        }

        fn rotation(&self) -> Rotation<Identity> {
            Rotation::new(IdentityFiles {
                certificate: self.0.join("tls.crt"),
                key: self.0.join("tls.key"),
                client_ca: None,
                protocols: &[],
            })
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn end(rotation: &Rotation<Identity>) -> Option<std::time::SystemTime> {
        rotation.in_force().load().and_then(|identity| identity.not_after)
    }

    #[test]
    fn a_pair_replaced_file_by_file_is_applied_once_and_never_refused() {
        let folder = Folder::new("pair");
        folder.put("tls.crt", "loopback.crt");
        folder.put("tls.key", "loopback.key");
        let mut rotation = folder.rotation();
        assert!(end(&rotation).is_none());
        assert!(matches!(rotation.look(), Look::Applied(_)));
        let old = end(&rotation);
        folder.put("tls.crt", "expired.crt");
        assert!(matches!(rotation.look(), Look::Doubtful(reason) if reason.contains("expected a pair")));
        assert_eq!(end(&rotation), old);
        folder.put("tls.key", "expired.key");
        assert!(matches!(rotation.look(), Look::Applied(_)));
        assert!(end(&rotation) < old);
        assert!(matches!(rotation.look(), Look::Same));
    }

    #[test]
    fn what_stays_bad_is_refused_once_and_changes_nothing() {
        let folder = Folder::new("bad");
        folder.put("tls.crt", "loopback.crt");
        folder.put("tls.key", "loopback.key");
        let mut rotation = folder.rotation();
        assert!(matches!(rotation.look(), Look::Applied(_)));
        let good = end(&rotation);
        for bad in ["README.md", "gone"] {
            match bad {
                "gone" => fs::remove_file(folder.0.join("tls.crt")).expect("a file"),
                name => folder.put("tls.crt", name),
            }
            assert!(matches!(rotation.look(), Look::Doubtful(_)), "{bad}");
            assert!(matches!(rotation.look(), Look::Refused(reason) if reason.contains("tls.crt")), "{bad}");
            assert!(matches!(rotation.look(), Look::Same), "{bad}");
            assert_eq!(end(&rotation), good);
        }
    }

    #[test]
    fn files_that_come_late_are_taken_and_a_swap_of_the_data_link_is_seen() {
        let folder = Folder::new("late");
        let mut rotation = folder.rotation();
        assert!(matches!(rotation.look(), Look::Doubtful(_)));
        assert!(matches!(rotation.look(), Look::Refused(_)));
        for (version, pair) in [("..1", "loopback"), ("..2", "expired")] {
            fs::create_dir_all(folder.0.join(version)).expect("a folder");
            for part in ["crt", "key"] {
                folder.put(&format!("{version}/tls.{part}"), &format!("{pair}.{part}"));
            }
        }
        for part in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{part}"), folder.0.join(part)).expect("a link");
        }
        for version in ["..1", "..2"] {
            symlink(version, folder.0.join("..data_tmp")).expect("a link");
            fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).expect("a swap");
            assert!(matches!(rotation.look(), Look::Applied(_)), "{version}");
            assert!(matches!(rotation.look(), Look::Same), "{version}");
        }
    }
}
