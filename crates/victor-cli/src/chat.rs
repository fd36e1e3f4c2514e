//! `victor chat`: a conversation in a terminal, or over a pipe line by line.

use crate::answer::in_words;
use crate::args::{AnswerArgs, DeviceArgs, ModelArgs};
use crate::interrupt::Interrupt;
use crate::lines::Lines;
use crate::output::Output;
use crate::{pictures, with_causes};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use victor::{Chat, ChatOptions, ChatUsage, Completion, FinishReason, Timings};

const HELP: &str = "\
/image FILE  show a picture with what you say next
/clear       forget the conversation and its pictures
/help        tell the commands
/quit        end, as does the end of the input
Anything else is said to the model; a line that begins with a blank may begin with a / after it.
Ctrl-C stops an answer.";

/// Lead a conversation about pictures
///
/// What you type is said to the model; lines that begin with / are commands, /help tells which. The
/// pictures named here are shown with the first thing said.
#[derive(Args)]
pub(crate) struct ChatArgs {
    /// Picture files (PNG, JPEG, WebP, GIF, BMP or TIFF)
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Instructions above the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    answer: AnswerArgs,
}

/// A turn as JSON.
#[derive(Serialize)]
struct TurnRecord<'a> {
    turn: usize,
    said: &'a str,
    images: &'a [PathBuf],
    text: &'a str,
    ids: &'a [u32],
    finish_reason: FinishReason,
    prompt_tokens: usize,
    new_tokens: usize,
    usage: ChatUsage,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

/// A line of the user's.
#[derive(Debug, PartialEq)]
enum Line<'a> {
    Nothing,
    Say(&'a str),
    Image(&'a Path),
    Clear,
    Help,
    Quit,
    Unknown(&'a str),
}

/// The conversation and what is told about it.
struct Session<'a> {
    args: &'a ChatArgs,
    chat: Chat<'a>,
    interrupt: Interrupt,
    /// The files of the pictures that wait for the next turn.
    waiting: Vec<PathBuf>,
    turns: usize,
}

pub(crate) fn run(args: &ChatArgs, output: &mut Output) -> anyhow::Result<()> {
    let options = ChatOptions {
        generate: args.answer.options()?,
        system: args.system.clone(),
    };
    let shown = pictures::decode(&args.images)?;
    let interrupt = Interrupt::install()?;
    let model = args.model.open(&args.device)?;
    let mut chat = model.chat(options)?;
    for picture in &shown {
        chat.add_image(picture)?;
    }
    let mut lines = Lines::open()?;
    if let Lines::Typed(_) = lines {
        eprintln!("/help tells the commands, /quit ends.");
    }
    let mut session = Session {
        args,
        chat,
        interrupt,
        waiting: args.images.clone(),
        turns: 0,
    };
    while let Some(line) = lines.next()? {
        match Line::read(&line) {
            Line::Nothing => {}
            Line::Say(text) => session.say(text, output)?,
            Line::Image(path) => session.show(path),
            Line::Clear => session.clear(),
            Line::Help => eprintln!("{HELP}"),
            Line::Quit => break,
            Line::Unknown(command) => {
                eprintln!("error: {command}: not a command; /help tells how they are written");
            }
        }
    }
    Ok(())
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let line = line.trim_end();
        if line.trim_start().is_empty() {
            return Self::Nothing;
        }
        if !line.starts_with('/') {
            return Self::Say(line.trim_start());
        }
        let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match (command, unquoted(rest.trim())) {
            ("/image", path) if !path.is_empty() => Self::Image(Path::new(path)),
            ("/clear", "") => Self::Clear,
            ("/help", "") => Self::Help,
            ("/quit", "") => Self::Quit,
            _ => Self::Unknown(line),
        }
    }
}

/// A file's name as terminals paste it.
fn unquoted(name: &str) -> &str {
    let within = |quote| name.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(name)
}

impl Session<'_> {
    /// Answers one turn; what goes wrong with it is told, and the conversation goes on.
    fn say(&mut self, text: &str, output: &mut Output) -> anyhow::Result<()> {
        self.interrupt.begin();
        let answered = self.answer(text, output);
        self.interrupt.end();
        let Some((completion, usage, timings)) = answered? else {
            return Ok(());
        };
        self.turns += 1;
        let images = std::mem::take(&mut self.waiting);
        if self.args.answer.json {
            output.json(&TurnRecord {
                turn: self.turns,
                said: text,
                images: &images,
                text: &completion.text,
                ids: &completion.ids,
                finish_reason: completion.finish_reason,
                prompt_tokens: completion.prompt_tokens,
                new_tokens: completion.ids.len(),
                usage,
                timings: self.args.answer.timings.then_some(timings),
            })?;
        }
        if self.args.answer.timings {
            eprintln!("{}", in_words(&timings));
        }
        Ok(())
    }

    fn answer(
        &mut self,
        text: &str,
        output: &mut Output,
    ) -> anyhow::Result<Option<(Completion, ChatUsage, Timings)>> {
        let mut turn = match self.chat.say(text) {
            Ok(turn) => turn,
            Err(error) => {
                tell(&error.into());
                return Ok(None);
            }
        };
        while !self.interrupt.is_asked() {
            match turn.next() {
                Some(Ok(token)) if !self.args.answer.json => output.piece(&token.text)?,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    tell(&error.into());
                    break;
                }
                None => break,
            }
        }
        let completion = turn.completion();
        if !self.args.answer.json {
            output.line("")?;
            if completion.finish_reason == FinishReason::Interrupted {
                eprintln!("(stopped)");
            }
        }
        Ok(Some((completion, turn.usage(), turn.timings())))
    }

    fn show(&mut self, path: &Path) {
        let added = victor::decode_image(path).map_err(anyhow::Error::from);
        match added.and_then(|picture| Ok(self.chat.add_image(&picture)?)) {
            Ok(()) => self.waiting.push(path.into()),
            Err(error) => tell(&error),
        }
    }

    fn clear(&mut self) {
        self.chat.clear();
        self.waiting.clear();
    }
}

fn tell(error: &anyhow::Error) {
    eprintln!("error: {}", with_causes(error));
}

#[cfg(test)]
mod tests {
    use super::Line;
    use std::path::Path;

    #[test]
    fn lines_are_words_or_commands() {
        assert_eq!(Line::read("  \n"), Line::Nothing);
        assert_eq!(Line::read("What is it?\r\n"), Line::Say("What is it?"));
        assert_eq!(
            Line::read(" /quit is a word\n"),
            Line::Say("/quit is a word")
        );
        let file = Path::new("my cat.png");
        for line in [
            "/image my cat.png",
            "/image  'my cat.png' ",
            "/image \"my cat.png\"\n",
        ] {
            assert_eq!(Line::read(line), Line::Image(file), "{line}");
        }
        assert_eq!(Line::read("/clear\n"), Line::Clear);
        assert_eq!(Line::read("/quit"), Line::Quit);
        for line in ["/image", "/clear all", "/nothing"] {
            assert_eq!(Line::read(line), Line::Unknown(line));
        }
    }
}
