//! A pair of HTTP endpoints, a server toward the workload and a client toward its server: every exchange is
//! shown, piece by piece, to somebody who says what may go on.
//!
//! Owns HTTP/1.1 and HTTP/2 on both legs. Knows no record, no policy, no protocol above HTTP; nothing above it
//! knows which library speaks HTTP.

pub mod seam;
