//! Pixels, text and records: preprocessing, tokenizer, prompt templates, data sets.
