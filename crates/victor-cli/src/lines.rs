//! What the user types: lines of standard input, edited where that is a terminal.

use std::io::{self, BufRead, IsTerminal, Write};

/// Lines of standard input.
pub(crate) struct Lines {
    stdin: io::StdinLock<'static>,
    is_terminal: bool,
}

impl Lines {
    pub(crate) fn open() -> Self {
        let stdin = io::stdin();
        let is_terminal = stdin.is_terminal();
        Self {
            stdin: stdin.lock(),
            is_terminal,
        }
    }

    /// Whether somebody types.
    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// The next line; `None` at the end of the input.
    pub(crate) fn next(&mut self) -> io::Result<Option<String>> {
        if self.is_terminal {
            eprint!("> ");
            io::stderr().flush()?;
        }
        let mut line = Vec::new();
        let length = self.stdin.read_until(b'\n', &mut line)?;
        Ok((length > 0).then(|| String::from_utf8_lossy(&line).into_owned()))
    }
}
