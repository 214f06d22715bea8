//! The issuer's configuration file: YAML, camelCase keys, unknown ones denied.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use verbatim_config::{ConfigError, Span};
use verbatim_inject::{EnvFrom, Extra};

/// Reads and checks a file.
///
/// # Errors
/// See [`ConfigError`].
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    checked(verbatim_config::load(path)?, path)
}

/// Reads and checks a text; `path` is for errors.
///
/// # Errors
/// See [`ConfigError`].
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    checked(verbatim_config::parse(text, path)?, path)
}

fn checked(config: Config, path: &Path) -> Result<Config, ConfigError> {
    match check(&config) {
        Ok(()) => Ok(config),
        Err(problem) => {
            Err(ConfigError::Contradiction { path: path.to_owned(), problem: problem.to_owned() })
        }
    }
}

fn check(config: &Config) -> Result<(), &'static str> {
    let roots = &config.roots;
    match () {
        () if config.names.is_empty() => {
            Err("`names` is empty: say by which names nodes and the API server reach the issuer")
        }
        () if config.nodes.intermediate_lifetime.0 < Duration::from_secs(600) => {
            Err("`nodes.intermediateLifetime` is below 10m: nodes ask again at half of it")
        }
        () if config.nodes.requests_per_minute == 0 => {
            Err("`nodes.requestsPerMinute` is 0, so no node would be given anything")
        }
        // What is published takes the old one's place only then; both must be good until the old one is out of use.
        () if roots.lifetime.0 < roots.max_pod_lifetime.0.saturating_mul(3) => {
            Err("`roots.lifetime` must be three times `roots.maxPodLifetime` at least")
        }
        () if !config.bundle.system && config.bundle.extra_roots.is_empty() => {
            Err("`bundle` holds no root beside Verbatim's: let `system` be true, or list `extraRoots`")
        }
        () if config.collector.as_ref().is_some_and(|collector| collector.names.is_empty()) => {
            Err("`collector.names` is empty: say by which names nodes reach the collector")
        }
        () => Ok(()),
    }
}

/// A whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Version of this format.
    pub api_version: ApiVersion,
    /// What the file configures.
    pub kind: Kind,
    /// Where nodes, the API server and kubelet reach it.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// DNS names and addresses in its own certificate.
    pub names: Vec<String>,
    /// Its own namespace; that of its pod where it is absent.
    pub namespace: Option<String>,
    /// The Secret that holds everything that must be kept, in its own namespace.
    #[serde(default = "default_secret")]
    pub secret: String,
    /// The ConfigMap, in its own namespace, with what nodes and collector are to believe.
    #[serde(default = "default_authorities")]
    pub authorities: String,
    /// What workloads are to believe.
    #[serde(default)]
    pub roots: Roots,
    /// Where it is kept for them.
    pub bundle: Bundle,
    /// Who is given intermediates.
    #[serde(default)]
    pub nodes: Nodes,
    /// The collector's certificate, where it is made here.
    pub collector: Option<Collector>,
    /// What pods are given.
    #[serde(default)]
    pub injection: Injection,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
}

fn default_listen() -> SocketAddr {
    ([0, 0, 0, 0], 8443).into()
}

fn default_secret() -> String {
    "verbatim-issuer".to_owned()
}

fn default_authorities() -> String {
    "verbatim-authorities".to_owned()
}

/// The one version that there is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum ApiVersion {
    /// `verbatim.v1`.
    #[serde(rename = "verbatim.v1")]
    V1,
}

/// The one kind that there is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub enum Kind {
    /// `Issuer`.
    Issuer,
}

/// See [`Config::roots`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Roots {
    /// Names and address ranges of databases, beside private ranges. Changing them begins a rotation.
    pub names: Vec<String>,
    /// How long a root is good for.
    pub lifetime: Span,
    /// The longest time that a pod runs: so long a new root is in the bundles before it is used.
    pub max_pod_lifetime: Span,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Roots {
    fn default() -> Self {
        Self { names: Vec::new(), lifetime: Span(730 * DAY), max_pod_lifetime: Span(30 * DAY) }
    }
}

/// See [`Config::bundle`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// Its name in each namespace.
    #[serde(default = "default_config_map")]
    pub config_map: String,
    /// The namespaces that get it, by their labels, as `kubectl -l` reads it. The webhook's `namespaceSelector` must
    /// select no others.
    pub namespace_selector: String,
    /// Whether it holds the roots of the issuer's image.
    #[serde(default = "default_true")]
    pub system: bool,
    /// Files with further roots, PEM: a company's own.
    #[serde(default)]
    pub extra_roots: Vec<PathBuf>,
}

fn default_config_map() -> String {
    "verbatim-trust".to_owned()
}

fn default_true() -> bool {
    true
}

/// See [`Config::nodes`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Nodes {
    /// The node agents' service account, in the issuer's namespace.
    pub service_account: String,
    /// The audience that their tokens must have.
    pub audience: String,
    /// How long an intermediate is good for; nodes ask again at half of it.
    pub intermediate_lifetime: Span,
    /// How long a certificate toward the collector is good for.
    pub client_lifetime: Span,
    /// Of one node, and of one address.
    pub requests_per_minute: u32,
}

impl Default for Nodes {
    fn default() -> Self {
        Self {
            service_account: "verbatim-agent".to_owned(),
            audience: verbatim_issuer_api::AUDIENCE.to_owned(),
            intermediate_lifetime: Span(DAY),
            client_lifetime: Span(DAY),
            requests_per_minute: 30,
        }
    }
}

/// See [`Config::collector`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Collector {
    /// The Secret (`kubernetes.io/tls`) with its certificate and key, in the issuer's namespace.
    #[serde(default = "default_collector_secret")]
    pub secret: String,
    /// DNS names and addresses by which nodes reach it.
    pub names: Vec<String>,
}

fn default_collector_secret() -> String {
    "verbatim-collector-tls".to_owned()
}

/// See [`Config::injection`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Injection {
    /// The MutatingWebhookConfiguration whose `caBundle` is kept; nothing is kept, and nobody asks, where it is empty.
    pub webhook: String,
    /// Where a container finds the bundle.
    pub folder: String,
    /// Namespaces whose pods are left alone, beside the issuer's own and `kube-system`.
    pub exempt_namespaces: BTreeSet<String>,
    /// The first that matches decides; what no rule matches is given the minimal set.
    pub rules: Vec<Rule>,
}

impl Default for Injection {
    fn default() -> Self {
        Self {
            webhook: "verbatim".to_owned(),
            folder: "/run/verbatim-trust".to_owned(),
            exempt_namespaces: BTreeSet::new(),
            rules: Vec::new(),
        }
    }
}

/// See [`Injection::rules`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// Which pods; all where it is absent.
    #[serde(default, rename = "match")]
    pub matching: Match,
    /// What.
    pub set: Given,
}

/// All that is given must match.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Match {
    /// Exact.
    pub namespace: Option<String>,
    /// Exact.
    pub service_account: Option<String>,
    /// Of the pod.
    pub labels: BTreeMap<String, String>,
}

/// See [`Rule::set`].
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Given {
    /// Whether anything.
    pub inject: bool,
    /// Beside the minimal set.
    pub extras: BTreeSet<Extra>,
    /// Where a container takes variables from elsewhere.
    pub env_from: EnvFrom,
}

impl Default for Given {
    fn default() -> Self {
        Self { inject: true, extras: BTreeSet::new(), env_from: EnvFrom::LeaveAlone }
    }
}

/// See [`Config::log`].
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Log {
    /// e.g. `info`.
    pub level: Option<String>,
    /// One line of text or of JSON.
    pub format: LogFormat,
}

/// See [`Log::format`].
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
apiVersion: verbatim.v1
kind: Issuer
names: [verbatim-issuer.verbatim.svc]
bundle: {namespaceSelector: 'capture=on'}
injection:
  rules:
  - {match: {namespace: shop, labels: {app: cart}}, set: {extras: [no-bound-tokens, deno], envFrom: override}}
  - {match: {serviceAccount: batch}, set: {inject: false}}
";

    #[test]
    fn a_short_file_says_enough() {
        let config = parse(GOOD, Path::new("issuer.yaml")).expect("good");
        assert_eq!(config.listen.port(), 8443);
        assert_eq!(config.roots.max_pod_lifetime.0, 30 * DAY);
        assert_eq!(
            (config.nodes.audience.as_str(), config.bundle.config_map.as_str()),
            ("verbatim-issuer", "verbatim-trust")
        );
        assert!(!config.injection.rules[1].set.inject && config.injection.rules[0].set.inject);
    }

    #[test]
    fn the_documented_configuration_is_read() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/deploy");
        let complete = load(&deploy.join("issuer-configuration.yaml")).expect("the complete one");
        assert_eq!(complete.injection.rules.len(), 2);
        // And what the manifest gives it.
        let manifest = std::fs::read_to_string(deploy.join("issuer.yaml")).expect("the manifest");
        let (_, embedded) = manifest.split_once("issuer.yaml: |\n").expect("the file in it");
        let embedded: Vec<_> = embedded.lines().take_while(|line| line.starts_with("    ")).collect();
        let text: Vec<_> = embedded.iter().map(|line| line.get(4..).unwrap_or_default()).collect();
        let given = parse(&text.join("\n"), &deploy.join("issuer.yaml")).expect("the manifest's");
        assert_eq!(given.bundle.namespace_selector, complete.bundle.namespace_selector);
    }

    #[test]
    fn what_contradicts_itself_is_refused_and_named() {
        for (from, to, complaint) in [
            ("names: [verbatim-issuer.verbatim.svc]", "names: []", "`names` is empty"),
            ("'capture=on'", "'capture=on', system: false", "`bundle` holds no root"),
            (
                "kind: Issuer",
                "kind: Issuer\nnodes: {intermediateLifetime: 1m}",
                "`nodes.intermediateLifetime`",
            ),
            ("kind: Issuer", "kind: Issuer\nnodes: {requestsPerMinute: 0}", "`nodes.requestsPerMinute`"),
            ("kind: Issuer", "kind: Issuer\nroots: {lifetime: 31d}", "three times"),
            ("kind: Issuer", "kind: Issuer\ncollector: {names: []}", "`collector.names`"),
            ("bundle:", "bundel:", "bundel"),
            ("[no-bound-tokens, deno]", "[denno]", "denno"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let error =
                parse(&GOOD.replacen(from, to, 1), Path::new("issuer.yaml")).expect_err(to).to_string();
            assert!(error.contains(complaint) && error.contains("issuer.yaml"), "{error}");
        }
    }
}
