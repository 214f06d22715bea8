//! The documented configuration is one that is read.

use std::path::Path;

use verbatim_collector::config;

#[test]
fn the_documented_configuration_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy/collector.yaml");
    let config = config::load(&path).expect("read");
    assert!(config.ingest.tls.is_some() && config.audit.tls.is_none());
}

#[test]
fn the_configuration_for_clusters_is_read_and_audit_is_no_service() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/deploy/cluster-collector.yaml");
    let config = config::load(&path).expect("read");
    assert!(config.ingest.tls.is_some() && config.audit.tls.is_none());
    let service = std::fs::read_to_string(path.with_file_name("collector-service.yaml")).expect("there");
    assert!(!service.contains("audit"), "Audit is behind no Service");
}
