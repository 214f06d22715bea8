//! Network namespaces: entering one for a moment, cookies.
