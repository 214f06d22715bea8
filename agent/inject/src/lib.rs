//! What a pod is given so that its clients trust the cluster's roots, and how that is read back from the pod as it is
//! stored: the evidence of trust.
//!
//! Owns the volume, the mounts, the variables and the annotation. Pure: reads no cluster, no file and no clock. A pod
//! has no UID yet when it is admitted, so what is evidence later is the stored pod itself: mounts and variables of a
//! container cannot be changed once it exists, only the annotation can.
//!
//! Nothing of the pod's own is changed, but for Java's options, to which ours are appended. Ephemeral containers come
//! into a pod that exists already, past the admission of pods: they are given nothing, and read so.

mod container;
mod evidence;
mod options;
mod patch;
mod pod;

pub use container::{Own, OwnCause};
pub use evidence::{ContainerTrust, NotInjected, trust};
pub use options::{EnvFrom, Extra, Options, UnknownExtra};
pub use pod::{Injected, Outcome, Skip, inject};
pub use verbatim_tls::RootId;

/// The pod's say: `"false"` as an annotation or a label leaves it alone.
pub const INJECT: &str = "verbatim-audit.github.io/inject";
/// The pod's say: words of [`Extra`], comma-separated, are set beside the minimal set.
pub const EXTRAS: &str = "verbatim-audit.github.io/extras";
/// The pod's say: `override` where its `envFrom` is known to hold none of the variables.
pub const ENV_FROM: &str = "verbatim-audit.github.io/env-from";
/// What was given, as JSON; written over whatever the pod brings.
pub const INJECTED: &str = "verbatim-audit.github.io/injected";

/// The version of what is given that this code gives, in [`INJECTED`].
pub const VERSION: u32 = 1;
