//! Accepts steered flows, relays them and has every command recorded and decided before it goes on.
//!
//! Owns connections. Knows protocols, policy, identity and records; none of them knows it. How a flow was
//! steered, and who a cgroup is, come through [`seam`].

pub mod seam;
