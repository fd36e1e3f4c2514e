//! LLaVA's conversation records.

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordProblem {
    /// No conversation.
    #[error("it holds no conversation")]
    Empty,
}
