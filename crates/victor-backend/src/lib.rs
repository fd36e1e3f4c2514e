//! Which burn backends the engine runs on, how they are named, and the operations it may override on each.
