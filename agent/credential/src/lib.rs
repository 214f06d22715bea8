//! Credentials that clients present: whose they are, as far as it can be read, and never what they are.
//!
//! Pure functions over what the decoders hand on, and tables of what was issued here. Knows no socket.
