//! File formats and foreign key names: reads and writes checkpoints.
