//! What the environment says about the Hub: `huggingface_hub`'s variables, with its precedence.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::HubError;
use crate::token::Token;

/// The Hub itself.
const ENDPOINT: &str = "https://huggingface.co";

/// Where to ask, where to keep files, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) endpoint: String,
    pub(crate) cache: PathBuf,
    pub(crate) token: Option<Token>,
    pub(crate) offline: bool,
    /// A file of certificate authorities, instead of those that come with the program.
    pub(crate) authorities: Option<PathBuf>,
}

impl Settings {
    /// Reads the variables through `var`, and the token's file.
    pub(crate) fn read(var: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let set = |name: &str| var(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).map(|value| value.to_string_lossy().into_owned());
        let home = user_home(&set);
        let path =
            |name: &str| set(name).map(|value| expand(PathBuf::from(value), home.as_deref()));

        let hf_home = path("HF_HOME").unwrap_or_else(|| {
            path("XDG_CACHE_HOME")
                .unwrap_or_else(|| home.clone().unwrap_or_default().join(".cache"))
                .join("huggingface")
        });
        let cache = path("HF_HUB_CACHE")
            .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
            .unwrap_or_else(|| hf_home.join("hub"));
        let token = if is_true(text("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
            None
        } else {
            let file = path("HF_TOKEN_PATH").unwrap_or_else(|| hf_home.join("token"));
            find_token(&text, &file)?
        };
        let authorities = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];
        Ok(Self {
            // The second may also be a folder.
            authorities: authorities
                .into_iter()
                .filter_map(path)
                .find(|file| !file.is_dir()),
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()),
            cache,
            token,
            offline: is_true(text("HF_HUB_OFFLINE").or_else(|| text("TRANSFORMERS_OFFLINE"))),
        })
    }
}

fn find_token(
    text: &impl Fn(&str) -> Option<String>,
    file: &Path,
) -> Result<Option<Token>, HubError> {
    for name in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        if let Some(value) = text(name) {
            return Token::parse(&value, name);
        }
    }
    match std::fs::read_to_string(file) {
        Ok(value) => Token::parse(&value, file.display()),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HubError::Read {
            path: file.to_owned(),
            source,
        }),
    }
}

/// The values Python takes for yes.
fn is_true(value: Option<String>) -> bool {
    value.is_some_and(|value| {
        ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
    })
}

fn user_home(set: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    set("HOME").map(PathBuf::from).or_else(std::env::home_dir)
}

/// Python expands `~` in these variables, which a shell does not do behind every `=`.
fn expand(path: PathBuf, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Settings, HubError> {
        Settings::read(|name| {
            let found = vars.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_cache_is_found_as_python_finds_it() {
        let home = ("HOME", "/h");
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[home], "/h/.cache/huggingface/hub"),
            (&[home, ("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (
                &[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")],
                "/f/hub",
            ),
            (&[home, ("HF_HOME", "~/f")], "/h/f/hub"),
            (
                &[home, ("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/o")],
                "/o",
            ),
            (
                &[
                    home,
                    ("HUGGINGFACE_HUB_CACHE", "/o"),
                    ("HF_HUB_CACHE", "/c"),
                ],
                "/c",
            ),
        ];
        for (vars, expected) in cases {
            assert_eq!(read(vars).unwrap().cache, Path::new(expected), "{vars:?}");
        }
    }

    #[test]
    fn the_token_is_found_as_python_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().to_str().unwrap();
        std::fs::write(folder.path().join("token"), "hf_stored\n").unwrap();
        std::fs::write(folder.path().join("other"), "hf_other").unwrap();
        let other = folder.path().join("other");
        let header = |vars: &[(&str, &str)]| {
            let mut all = vec![("HF_HOME", home)];
            all.extend_from_slice(vars);
            read(&all).unwrap().token.map(|token| token.header())
        };
        let bearer = |token: &str| Some(format!("Bearer {token}"));
        assert_eq!(header(&[]), bearer("hf_stored"));
        assert_eq!(
            header(&[("HF_TOKEN_PATH", other.to_str().unwrap())]),
            bearer("hf_other")
        );
        assert_eq!(
            header(&[("HUGGING_FACE_HUB_TOKEN", "hf_old")]),
            bearer("hf_old")
        );
        let both = [("HUGGING_FACE_HUB_TOKEN", "hf_old"), ("HF_TOKEN", "hf_new")];
        assert_eq!(header(&both), bearer("hf_new"));
        assert_eq!(header(&[("HF_TOKEN", "")]), bearer("hf_stored"));
        assert_eq!(header(&[("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), None);
        assert_eq!(header(&[("HF_TOKEN_PATH", "/nothing/here")]), None);
    }

    #[test]
    fn the_rest_has_defaults() {
        let plain = read(&[("HOME", "/h")]).unwrap();
        assert_eq!((plain.endpoint.as_str(), plain.offline), (ENDPOINT, false));
        let set = read(&[("HF_ENDPOINT", "https://m"), ("HF_HUB_OFFLINE", "True")]).unwrap();
        assert_eq!((set.endpoint.as_str(), set.offline), ("https://m", true));
        assert!(!read(&[("HF_HUB_OFFLINE", "0")]).unwrap().offline);
        assert_eq!(plain.authorities, None);
        let bundles = [("REQUESTS_CA_BUNDLE", "/"), ("CURL_CA_BUNDLE", "/c.pem")];
        let authorities = read(&bundles).unwrap().authorities;
        assert_eq!(authorities.as_deref(), Some(Path::new("/c.pem")));
    }
}
