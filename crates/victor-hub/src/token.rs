//! The access token: found in the usual places, sent to one place, shown nowhere.

use std::fmt;

use crate::HubError;

/// A token that can be sent as a header. It has no `Display`, and its `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// Takes a token from a variable or file; white space around it is dropped, and nothing left is
    /// no token.
    pub(crate) fn parse(text: &str, from: impl fmt::Display) -> Result<Option<Self>, HubError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(HubError::MalformedToken {
                from: from.to_string(),
            });
        }
        Ok(Some(Self(text.to_owned())))
    }

    /// The value of an `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let token = Token::parse(" hf_secret\n", "HF_TOKEN").unwrap().unwrap();
        assert_eq!(token.header(), "Bearer hf_secret");
        assert!(!format!("{token:?}").contains("secret"));
        let error = Token::parse("hf_secret\r\nX: y", "HF_TOKEN").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
        assert!(Token::parse(" \n", "HF_TOKEN").unwrap().is_none());
    }
}
