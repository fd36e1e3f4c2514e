//! Names of files in a repository. They come from the network and become paths.

use std::path::{Component, Path};

/// Whether a name is a plain relative path on every system: no way up, no root, no drive, no
/// backslash, nothing empty between slashes.
pub(crate) fn is_plain(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 1024
        && !name.contains(|c: char| c == '\\' || c.is_control())
        && name.split('/').all(|part| !part.is_empty() && part != ".")
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Whether a name from a response header can be a blob's file name.
pub(crate) fn is_etag(etag: &str) -> bool {
    !etag.is_empty()
        && etag.len() <= 128
        && !etag.starts_with('.')
        && etag
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// Whether an ETag is a SHA-256, as it is for files in large-file storage.
pub(crate) fn is_sha256(etag: &str) -> bool {
    etag.len() == 64
        && etag
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        for name in ["config.json", "a/b.json", "..a", "a..b/c", "ä.json"] {
            assert!(is_plain(name), "{name}");
        }
        let bad = [
            "",
            "..",
            "../x",
            "a/../../x",
            "/etc/passwd",
            "a//b",
            "./a",
            "a/.",
            "a\\..\\b",
            "a\0b",
            "a/",
        ];
        for name in bad {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn etags_are_file_names() {
        assert!(is_etag("d7edf6bd2a681fb0175f7735299831ee1b22b812"));
        for bad in ["", "../x", "a/b", ".x", "a b", "a\"b"] {
            assert!(!is_etag(bad), "{bad}");
        }
    }
}
