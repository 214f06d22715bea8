//! Raw BPF commands that aya does not offer: link update, object pinning.
