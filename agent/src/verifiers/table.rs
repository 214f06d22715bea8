//! The form of a file of verifiers: that of pgbouncer's `userlist.txt` (<https://www.pgbouncer.org/config.html>,
//! "Authentication file format"), `"user" "verifier"`, with a third field, which pgbouncer does not read: the server
//! whose it is. An empty line, and one that begins with `;`, says nothing; `""` within quotes is a quote.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use verbatim_agent_config::Cidr;
use verbatim_wire::postgres::{Verifier, VerifierError};
use zeroize::Zeroizing;

/// Most lines.
const MAX_LINES: usize = 10_000;

/// What is wrong with a line. Never has anything of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    /// No text.
    #[error("it is not UTF-8")]
    Text,
    /// Fields.
    #[error(
        "expected `\"user\" \"verifier\"` and, where it is one server's, `\"server\"`, each in double quotes"
    )]
    Fields,
    /// The first.
    #[error("the user has no name")]
    User,
    /// The second.
    #[error("no verifier: {0}")]
    Verifier(#[from] VerifierError),
    /// The third.
    #[error(
        "no server: write NAME, *.NAME, ADDRESS or ADDRESS/LENGTH, and :PORT behind it where it matters; an IPv6 \
         address with a port in brackets"
    )]
    Server,
    /// Said before.
    #[error("this user has a verifier for this server already: the first one counts")]
    Twice,
    /// How many.
    #[error("more than 10000 lines")]
    Lines,
}

/// Which servers a verifier is for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    host: Host,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    /// In lower case.
    Name(String),
    /// With the dot in front.
    Below(String),
    Range(Cidr),
}

/// All verifiers, by user; of those, the first that matches.
#[derive(Debug, Default)]
pub(super) struct Table(HashMap<Vec<u8>, Vec<(Server, Arc<Verifier>)>>);

impl Table {
    /// Reads a file; an error comes with its line, from 1.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, (usize, LineError)> {
        let mut table = Self::default();
        for (number, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            if number > MAX_LINES {
                return Err((number, LineError::Lines));
            }
            table.line(line).map_err(|problem| (number, problem))?;
        }
        Ok(table)
    }

    fn line(&mut self, line: &[u8]) -> Result<(), LineError> {
        let mut rest = std::str::from_utf8(line).map_err(|_invalid| LineError::Text)?.trim();
        if rest.is_empty() || rest.starts_with(';') {
            return Ok(());
        }
        let user = field(&mut rest).ok_or(LineError::Fields)?;
        let verifier = field(&mut rest).ok_or(LineError::Fields)?;
        let server = if rest.is_empty() { None } else { Some(field(&mut rest).ok_or(LineError::Fields)?) };
        if !rest.is_empty() {
            return Err(LineError::Fields);
        }
        if user.is_empty() {
            return Err(LineError::User);
        }
        let server =
            server.map_or(Ok(Server { host: Host::Any, port: None }), |text| Server::parse(&text))?;
        let verifier = Arc::new(Verifier::parse(&verifier)?);
        let known = self.0.entry(user.as_bytes().to_vec()).or_default();
        if known.iter().any(|(other, _)| *other == server) {
            return Err(LineError::Twice);
        }
        known.push((server, verifier));
        Ok(())
    }

    pub(super) fn find(
        &self,
        destination: SocketAddr,
        server_name: Option<&str>,
        user: &[u8],
    ) -> Option<Arc<Verifier>> {
        let known = self.0.get(user)?;
        let found = known.iter().find(|(server, _)| server.is(destination, server_name))?;
        Some(Arc::clone(&found.1))
    }
}

/// The next field in quotes, and what follows it after white space.
fn field(rest: &mut &str) -> Option<Zeroizing<String>> {
    let mut inside = rest.strip_prefix('"')?;
    let mut read = Zeroizing::new(String::with_capacity(inside.len()));
    loop {
        let (part, after) = inside.split_once('"')?;
        read.push_str(part);
        match after.strip_prefix('"') {
            Some(after) => {
                read.push('"');
                inside = after;
            }
            None => {
                *rest = after.trim_start();
                // Fields do not touch.
                return (rest.is_empty() || rest.len() < after.len()).then_some(read);
            }
        }
    }
}

impl Server {
    fn parse(text: &str) -> Result<Self, LineError> {
        let cidr = |text: &str| Cidr::try_from(text.to_owned()).map_err(|_invalid| LineError::Server);
        let port =
            |text: &str| text.parse().ok().filter(|&port: &u16| port != 0).map(Some).ok_or(LineError::Server);
        if let Ok(range) = cidr(text) {
            return Ok(Self { host: Host::Range(range), port: None });
        }
        if let Some((range, rest)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let port = rest.strip_prefix(':').map_or(Ok(None), port)?;
            return Ok(Self { host: Host::Range(cidr(range)?), port });
        }
        let (host, port) = match text.split_once(':') {
            Some((host, given)) => (host, port(given)?),
            None => (text, None),
        };
        if let Ok(range) = cidr(host) {
            return Ok(Self { host: Host::Range(range), port });
        }
        let plain = |name: &str| {
            let parts = || name.split('.');
            let label = |label: &str| {
                !label.is_empty()
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            };
            parts().all(label).then(|| name.to_ascii_lowercase()).ok_or(LineError::Server)
        };
        let host = match host.strip_prefix('*') {
            Some(below) => Host::Below(format!(".{}", plain(below.strip_prefix('.').unwrap_or_default())?)),
            None => Host::Name(plain(host)?),
        };
        Ok(Self { host, port })
    }

    fn is(&self, destination: SocketAddr, server_name: Option<&str>) -> bool {
        if self.port.is_some_and(|port| port != destination.port()) {
            return false;
        }
        let name = server_name.map(str::to_ascii_lowercase);
        match &self.host {
            Host::Any => true,
            Host::Name(own) => name.as_ref() == Some(own),
            Host::Below(end) => name.is_some_and(|name| name.ends_with(end)),
            Host::Range(range) => within(range, destination.ip().to_canonical()),
        }
    }
}

fn within(range: &Cidr, address: IpAddr) -> bool {
    let width = if range.address.is_ipv4() { 32 } else { 128 };
    let bits = |address: IpAddr| match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let beside = width - u32::from(range.prefix.min(width as u8));
    range.address.is_ipv4() == address.is_ipv4()
        && (bits(range.address) ^ bits(address)).checked_shr(beside).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn parse(text: &str) -> Result<Table, (usize, LineError)> {
        Table::parse(text.replace("SECRET", SECRET).as_bytes())
    }

    fn finds(table: &Table, destination: &str, name: Option<&str>, user: &str) -> bool {
        table.find(destination.parse().expect("an address"), name, user.as_bytes()).is_some()
    }

    #[test]
    fn a_userlist_of_pgbouncers_is_read_with_its_comments_and_quotes() {
        let table = parse("; ours\n\n\"clerk\" \"SECRET\"\n  \"a \"\"b\"\"\"\t\"SECRET\"\r\n").expect("read");
        assert!(finds(&table, "192.0.2.1:5432", None, "clerk"));
        assert!(finds(&table, "192.0.2.1:5432", Some("db.example"), "a \"b\""));
        assert!(!finds(&table, "192.0.2.1:5432", None, "Clerk"));
    }

    #[test]
    fn a_verifier_is_of_the_servers_that_its_third_field_names() {
        for (server, destination, name, expected) in [
            ("db.example", "192.0.2.1:5432", Some("DB.example"), true),
            ("DB.example", "192.0.2.1:5432", Some("db.example"), true),
            ("db.example", "192.0.2.1:5432", None, false),
            ("db.example:5433", "192.0.2.1:5432", Some("db.example"), false),
            ("*.example", "192.0.2.1:5432", Some("db.example"), true),
            ("*.example", "192.0.2.1:5432", Some("example"), false),
            ("*.example", "192.0.2.1:5432", Some("dbexample"), false),
            ("192.0.2.0/24", "192.0.2.1:5432", None, true),
            ("192.0.2.0/24:5432", "192.0.2.1:5432", Some("db.example"), true),
            ("192.0.2.0/24:1", "192.0.2.1:5432", None, false),
            ("192.0.2.2", "192.0.2.1:5432", None, false),
            ("192.0.2.1", "[::ffff:192.0.2.1]:5432", None, true),
            ("0.0.0.0/0", "192.0.2.1:5432", None, true),
            ("0.0.0.0/0", "[2001:db8::1]:5432", None, false),
            ("2001:db8::/32", "[2001:db8::1]:5432", None, true),
            ("[2001:db8::1]:5432", "[2001:db8::1]:5432", None, true),
            ("[2001:db8::1]:5433", "[2001:db8::1]:5432", None, false),
            ("::/0", "[2001:db8::1]:5432", None, true),
        ] {
            let table = parse(&format!("\"clerk\" \"SECRET\" \"{server}\"")).expect(server);
            assert_eq!(
                finds(&table, destination, name, "clerk"),
                expected,
                "{server} {destination} {name:?}"
            );
        }
    }

    #[test]
    fn the_first_that_matches_counts() {
        let other = SECRET.replace("4096", "4097");
        let text = format!("\"c\" \"{other}\" \"192.0.2.1\"\n\"c\" \"SECRET\"");
        let table = parse(&text).expect("read");
        let find = |to: &str| table.find(to.parse().expect("an address"), None, b"c").expect("known");
        let [special, usual, again] = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map(find);
        assert!(!Arc::ptr_eq(&special, &usual) && Arc::ptr_eq(&usual, &again));
    }

    #[test]
    fn a_line_of_another_form_is_told_by_its_number() {
        let good = "\"a\" \"SECRET\"";
        for (line, problem) in [
            ("a SECRET", LineError::Fields),
            ("\"a\"", LineError::Fields),
            ("\"a\" \"SECRET", LineError::Fields),
            ("\"a\"\"SECRET\"", LineError::Fields),
            ("\"a\" \"SECRET\" db.example", LineError::Fields),
            ("\"a\" \"SECRET\" \"db.example\" \"more\"", LineError::Fields),
            ("\"\" \"SECRET\"", LineError::User),
            ("\"b\" \"geheim\"", LineError::Verifier(VerifierError::Mechanism)),
            ("\"b\" \"SCRAM-SHA-256$x\"", LineError::Verifier(VerifierError::Form)),
            ("\"b\" \"SECRET\" \"\"", LineError::Server),
            ("\"b\" \"SECRET\" \"db..example\"", LineError::Server),
            ("\"b\" \"SECRET\" \"*example\"", LineError::Server),
            ("\"b\" \"SECRET\" \"192.0.2.1/24\"", LineError::Server),
            ("\"b\" \"SECRET\" \"db:0\"", LineError::Server),
            ("\"b\" \"SECRET\" \"db:x\"", LineError::Server),
            ("\"a\" \"SECRET\"", LineError::Twice),
        ] {
            let found = parse(&format!("{good}\n{line}\n")).expect_err(line);
            assert_eq!(found, (2, problem), "{line}");
            assert!(!found.1.to_string().contains("geheim"));
        }
        assert_eq!(Table::parse(b"\"\xff\" \"x\"").expect_err("no text"), (1, LineError::Text));
        assert_eq!(parse(&"\n".repeat(10_001)).expect_err("lines"), (10_001, LineError::Lines));
    }
}
