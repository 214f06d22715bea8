//! Names and addresses on Google's side of the lab.
//!
//! The addresses are those of `private.googleapis.com` (199.36.153.8/30) and `restricted.googleapis.com`
//! (199.36.153.4/30): what hosts files and private zones point to where a VPC has no way to the internet.

/// `bigquery.googleapis.com` and the mirror, behind one front.
pub const GOOGLE: &str = "199.36.153.8";
/// The gRPC service.
pub const GRPC: &str = "199.36.153.9";
/// A server that asks for a client certificate and does without.
pub const ASKING: &str = "199.36.153.10";
/// A server that insists on a client certificate.
pub const INSISTING: &str = "199.36.153.11";
/// A server whose certificate has expired.
pub const EXPIRED: &str = "199.36.153.4";
/// A server whose certificate is for another name.
pub const WRONG_NAME: &str = "199.36.153.5";
/// A server whose certificate nobody vouches for.
pub const SELF_SIGNED: &str = "199.36.153.6";
/// A server that behaves as none should.
pub const ODD: &str = "199.36.153.7";
/// A server under a name that is none of Google's, in the VPC.
pub const OUTSIDE: &str = "10.61.9.30";

/// Where BigQuery is.
pub const BIGQUERY: &str = "bigquery.googleapis.com";
/// The service that tells its clients what it got.
pub const MIRROR: &str = "mirror.googleapis.com";

/// Each address with the names that hosts files have for it.
pub const HOSTS: [(&str, &[&str]); 9] = [
    (
        GOOGLE,
        &[
            BIGQUERY,
            MIRROR,
            "www.googleapis.com",
            "oauth2.googleapis.com",
            "iamcredentials.googleapis.com",
            "sts.googleapis.com",
            "storage.googleapis.com",
        ],
    ),
    (GRPC, &["echo.googleapis.com"]),
    (ASKING, &["asking.googleapis.com"]),
    (INSISTING, &["insisting.googleapis.com"]),
    (EXPIRED, &["expired.googleapis.com"]),
    (WRONG_NAME, &["wrong-name.googleapis.com"]),
    (SELF_SIGNED, &["self-signed.googleapis.com"]),
    (ODD, &["odd.googleapis.com"]),
    (OUTSIDE, &["api.lab.example"]),
];

/// The metadata server's address and names.
pub const METADATA: (&str, &[&str]) =
    ("169.254.169.254", &["metadata.google.internal", "metadata.google.internal.", "metadata"]);

/// Project of the lab.
pub const PROJECT: &str = "lab-project";
