//! What the user types: lines edited in a terminal, or those of a pipe as they are.

use rustyline::config::Behavior;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};
use std::io::{self, BufRead, IsTerminal, StdinLock};

const PROMPT: &str = "> ";

/// Lines of standard input.
pub(crate) enum Lines {
    /// Somebody types; earlier lines come back with the arrow keys.
    Typed(Box<DefaultEditor>),
    /// A program or a file.
    Piped(StdinLock<'static>),
}

impl Lines {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self::Piped(stdin.lock()));
        }
        // On the terminal itself: standard output is for answers.
        let config = Config::builder()
            .behavior(Behavior::PreferTerm)
            .auto_add_history(true)
            .build();
        Ok(Self::Typed(Box::new(DefaultEditor::with_config(config)?)))
    }

    /// The next line; `None` at the end of the input.
    pub(crate) fn next(&mut self) -> anyhow::Result<Option<String>> {
        match self {
            Self::Typed(editor) => loop {
                match editor.readline(PROMPT) {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Interrupted) => eprintln!("/quit or Ctrl-D ends"),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(error.into()),
                }
            },
            Self::Piped(stdin) => {
                let mut line = Vec::new();
                let length = stdin.read_until(b'\n', &mut line)?;
                Ok((length > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
            }
        }
    }
}
