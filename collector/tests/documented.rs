//! The documented configuration is one that is read.

use std::path::Path;

use verbatim_collector::config;

#[test]
fn the_documented_configuration_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy/collector.yaml");
    let config = config::load(&path).expect("read");
    assert!(config.ingest.tls.is_some() && config.audit.tls.is_none());
}
