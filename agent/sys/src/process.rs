//! Processes: pidfds, their death, their start time.
