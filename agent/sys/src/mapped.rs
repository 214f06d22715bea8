//! Files mapped into memory, allocated on disk before they are mapped.
