//! Names of what a scenario makes: its own name and something random, so that scenarios run side by side
//! and whatever should be left behind tells where it came from.

/// A name for everything that one scenario makes, e.g. `vlab-psql_simple-3f9a1c`.
#[must_use]
pub fn unique(scenario: &str) -> String {
    let random = uuid::Uuid::now_v7().simple().to_string();
    let tail = random.get(random.len() - 10..).unwrap_or_default();
    let scenario: String = scenario
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .take(40)
        .collect();
    format!("vlab-{scenario}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::unique;

    #[test]
    fn names_carry_the_scenario_and_never_repeat() {
        let names: std::collections::HashSet<String> = (0..1000).map(|_| unique("a scenario/x")).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.starts_with("vlab-a-scenario-x-")));
    }
}
