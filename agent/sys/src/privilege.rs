//! Users, capabilities, the bounding set, mount namespaces.
