//! The cluster's issuer: roots, intermediates for nodes, the bundle in each namespace, and the admission webhook.
