//! A command line without the credentials in it.
//!
//! Errs on the side of cutting: an argument is kept to tell processes apart, not to be run again.

use verbatim_wire::without_tokens;

/// Arguments kept.
const ARGUMENTS: usize = 64;
/// Bytes of each.
const ARGUMENT_BYTES: usize = 1024;
const MARK: &str = "[redacted]";
/// What stands before a credential, lower case.
const NAMES: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api-key",
    "api_key",
    "credential",
];

/// The arguments of a NUL-separated command line.
pub(super) fn redacted(command_line: &[u8]) -> Vec<String> {
    let command_line = command_line.strip_suffix(b"\0").unwrap_or(command_line);
    if command_line.is_empty() {
        return Vec::new();
    }
    let mut is_value = false;
    let mut mysql = false;
    let mut kept = Vec::new();
    for (place, argument) in command_line.split(|&byte| byte == 0).take(ARGUMENTS).enumerate() {
        let argument = without_tokens(argument);
        let cut = argument.get(..ARGUMENT_BYTES).unwrap_or(&argument);
        let argument = String::from_utf8_lossy(cut).into_owned();
        if place == 0 {
            let name = argument.rsplit('/').next().unwrap_or_default();
            mysql = name.starts_with("mysql") || name.starts_with("mariadb");
        }
        if std::mem::take(&mut is_value) {
            kept.push(MARK.to_owned());
            continue;
        }
        is_value = is_flag_for_credential(&argument);
        kept.push(match argument.strip_prefix("-p") {
            Some(password) if mysql && !password.is_empty() => format!("-p{MARK}"),
            _ => without_authorization(&without_assignments(&without_url_password(&argument))),
        });
    }
    kept
}

/// `--password`, `--auth-token`: the next argument is the credential.
fn is_flag_for_credential(argument: &str) -> bool {
    let lower = argument.to_ascii_lowercase();
    lower.starts_with("--") && NAMES.iter().any(|name| lower.ends_with(name))
}

/// `scheme://user:password@host` → `scheme://user:[redacted]@host`.
fn without_url_password(argument: &str) -> String {
    let mut output = String::new();
    let mut rest = argument;
    while let Some((before, after)) = rest.split_once("://") {
        output.push_str(before);
        output.push_str("://");
        let authority = after.find(['/', '?', '#', ' ']).unwrap_or(after.len());
        let (authority, path) = after.split_at(authority);
        match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
            Some((user, host)) => output.extend([user, ":", MARK, "@", host]),
            None => output.push_str(authority),
        }
        rest = path;
    }
    output.push_str(rest);
    output
}

/// `password=x`, `PGPASSWORD=x`, `token: x`, `PASSWORD 'x'`: the value is cut.
fn without_assignments(argument: &str) -> String {
    let mut output = String::new();
    let mut rest = argument;
    loop {
        let lower = rest.to_ascii_lowercase();
        let found = NAMES.iter().filter_map(|name| Some((lower.find(name)?, name.len()))).min();
        let Some((at, length)) = found else { break };
        let (before, after) = rest.split_at(at + length);
        output.push_str(before);
        let value = after.trim_start_matches([' ', '\t']);
        let gap = after.len() - value.len();
        let (sign, value) = match value.strip_prefix(['=', ':']) {
            Some(stripped) => (true, stripped.trim_start_matches([' ', '\t'])),
            None => (false, value),
        };
        let length = credential_length(value, sign);
        if length == 0 || (!sign && gap == 0) {
            rest = after;
            continue;
        }
        output.push_str(&after[..after.len() - value.len()]);
        output.push_str(MARK);
        rest = &value[length..];
    }
    output.push_str(rest);
    output
}

/// Length of the credential that a value starts with. Without `=` only a quoted one counts.
fn credential_length(value: &str, sign: bool) -> usize {
    let quote = value.chars().next().filter(|first| matches!(first, '\'' | '"'));
    match quote {
        Some(quote) => value[1..].rfind(quote).map_or(value.len(), |end| end + 2),
        None if sign => value.find([' ', '\t', '&', ';', ',']).unwrap_or(value.len()),
        None => 0,
    }
}

/// `Authorization: Bearer x`, `Basic x`: everything behind the scheme is cut.
fn without_authorization(argument: &str) -> String {
    let lower = argument.to_ascii_lowercase();
    let scheme = ["bearer ", "basic "].iter().filter_map(|name| Some(lower.find(name)? + name.len())).min();
    match scheme {
        Some(end) => format!("{}{MARK}", &argument[..end]),
        None => argument.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Vec<String> {
        let mut bytes = arguments.join("\0").into_bytes();
        bytes.push(0);
        redacted(&bytes)
    }

    #[test]
    fn credentials_in_arguments_are_cut_and_the_rest_is_kept() {
        let secret = "hunter2";
        for (argument, kept) in [
            ("--password=hunter2", "--password=[redacted]"),
            ("PGPASSWORD=hunter2", "PGPASSWORD=[redacted]"),
            ("postgres://app:hunter2@db/shop", "postgres://app:[redacted]@db/shop"),
            ("postgres://app:hun@ter2hunter2@db", "postgres://app:[redacted]@db"),
            ("host=db password=hunter2 user=app", "host=db password=[redacted] user=app"),
            ("host=db password='hunter2 x' user=app", "host=db password=[redacted] user=app"),
            ("ALTER USER app PASSWORD 'hunter2'", "ALTER USER app PASSWORD [redacted]"),
            ("Authorization: Bearer hunter2", "Authorization: Bearer [redacted]"),
            ("--auth-token=hunter2", "--auth-token=[redacted]"),
            ("https://x/?access_token=hunter2&a=b", "https://x/?access_token=[redacted]&a=b"),
        ] {
            let line = line(&["client", argument]);
            assert!(!line[1].contains(secret), "{argument} → {}", line[1]);
            assert_eq!(line[1], kept);
        }
        assert_eq!(line(&["client", "--password", "hunter2", "-h", "db"])[2..], ["[redacted]", "-h", "db"]);
        assert_eq!(line(&["/usr/bin/mysql", "-phunter2", "shop"])[1], "-p[redacted]");
        assert_eq!(
            line(&["psql", "-p5432", "-c", "select password from users"]),
            ["psql", "-p5432", "-c", "select password from users"]
        );
        assert_eq!(line(&["pgbench", "-S", "-c", "8"]), ["pgbench", "-S", "-c", "8"]);
    }

    #[test]
    fn a_command_line_of_any_bytes_and_length_is_taken() {
        assert!(redacted(b"").is_empty());
        assert_eq!(redacted(b"\xff\xfe\0").len(), 1);
        assert_eq!(redacted(&b"a\0".repeat(1000)).len(), ARGUMENTS);
        assert_eq!(redacted(&[b'x'; 5000])[0].len(), ARGUMENT_BYTES);
    }
}
