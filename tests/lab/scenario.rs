//! What a scenario is, and how one is run.

use anyhow::{Context as _, Result};
use verbatim_tests::{
    agent::Options,
    lab::Lab,
    parts::{Part, USUAL},
};

/// One scenario.
pub(crate) struct Scenario {
    /// A sentence about behaviour.
    pub(crate) name: &'static str,
    /// What it cannot do without.
    pub(crate) needs: &'static [Part],
    body: Body,
}

enum Body {
    /// Makes what it needs by itself; is given its own name.
    Alone(fn(&str) -> Result<()>),
    /// In a lab with everything running.
    InLab(fn() -> Options, fn(&mut Lab) -> Result<()>),
}

impl Scenario {
    /// A scenario that makes what it needs by itself.
    pub(crate) fn alone(name: &'static str, needs: &'static [Part], body: fn(&str) -> Result<()>) -> Self {
        Self { name, needs, body: Body::Alone(body) }
    }

    /// A scenario in a whole lab.
    pub(crate) fn usual(name: &'static str, body: fn(&mut Lab) -> Result<()>) -> Self {
        Self { name, needs: USUAL, body: Body::InLab(Options::default, body) }
    }

    /// The same with other needs.
    pub(crate) fn needing(mut self, needs: &'static [Part]) -> Self {
        self.needs = needs;
        self
    }

    /// The same with another agent.
    pub(crate) fn with(mut self, options: fn() -> Options) -> Self {
        if let Body::InLab(own, _) = &mut self.body {
            *own = options;
        }
        self
    }

    /// Runs it. A failure in a lab tells what the binaries under test had to say.
    pub(crate) fn run(self) -> Result<()> {
        match self.body {
            Body::Alone(body) => body(self.name),
            Body::InLab(options, body) => {
                let mut lab = Lab::with(self.name, options())?;
                let result = body(&mut lab);
                result.with_context(|| {
                    format!(
                        "agent: {}\ncollector: {}\n",
                        tail(&lab.agent.complaints()),
                        tail(&lab.collector.complaints())
                    )
                })
            }
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(25)..).unwrap_or_default().join("\n  ")
}

/// A scenario named after its function.
macro_rules! usual {
    ($function:ident) => {
        $crate::scenario::Scenario::usual(stringify!($function), $function)
    };
}

/// A scenario on its own named after its function.
macro_rules! alone {
    ($function:ident, $needs:expr) => {
        $crate::scenario::Scenario::alone(stringify!($function), $needs, $function)
    };
}

/// What is needed for clients over TLS, and more.
macro_rules! needs {
    ($($more:ident),+) => {{
        use verbatim_tests::parts::Part;
        &[
            Part::Root,
            Part::Sandbox,
            Part::Binaries,
            Part::Postgres,
            Part::PythonGoogle,
            Part::Openssl,
            Part::Bpf,
            $(Part::$more),+
        ]
    }};
}

pub(crate) use {alone, needs, usual};
