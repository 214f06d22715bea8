//! What is added to a pod so that its clients trust us, and how a stored pod shows it, container by container.
//!
//! Pure functions over pods: no network, no clock.
