//! Training recipes, batches, loss and checkpoints.
