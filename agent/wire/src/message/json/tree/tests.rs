use super::*;

fn tree(text: &str, keep: Keep, limit: usize) -> Tree {
    let whole = tree_by(text, keep, limit, usize::MAX);
    for piece in 1..=text.len().min(200) {
        assert_eq!(tree_by(text, keep, limit, piece).root, whole.root, "by {piece}");
    }
    whole
}

fn tree_by(text: &str, keep: Keep, limit: usize, piece: usize) -> Tree {
    let mut builder = TreeBuilder::new(keep, limit);
    for piece in text.as_bytes().chunks(piece) {
        builder.push(piece);
    }
    builder.finish()
}

fn all(_: &[&str]) -> Kept {
    Kept::All
}

#[test]
fn what_is_wanted_is_kept_and_the_rest_is_not() {
    fn keep(path: &[&str]) -> Kept {
        match path {
            [] | ["a"] | ["list"] => Kept::Value,
            ["a", "b"] | ["list", "x"] => Kept::All,
            ["rows"] => Kept::Count,
            _ => Kept::Skip,
        }
    }
    let text = r#"{"a": {"b": {"deep": [1]}, "c": "no"}, "z": [{"b": 1}], "rows": [1, "2", [], {"rows": []}, null],
        "list": [{"x": "1", "y": 2}, {"x": "2"}], "s": "skipped", "e": ""}"#;
    let tree = tree(text, keep, 1000);
    let root = tree.root();
    assert_eq!(root.get("a").get("b").get("deep").items().len(), 1);
    assert!(root.get("a").get("c").is_absent() && root.get("z").is_absent() && root.get("s").is_absent());
    assert_eq!((root.get("rows").count(), root.get("rows").items().len()), (Some(5), 0));
    let texts: Vec<_> = root.get("list").items().iter().map(|item| item.get("x").text()).collect();
    assert_eq!(texts, [Some("1".to_owned()), Some("2".to_owned())]);
    assert_eq!((tree.fault, tree.cut), (None, false));
}

#[test]
fn texts_share_one_bound_and_say_that_they_were_cut() {
    let tree = tree(r#"["12345", "12345", "1"]"#, all, 8);
    let texts: Vec<_> = tree.root().items().iter().filter_map(Value::text).collect();
    assert_eq!(texts, ["12345", "123", ""]);
    assert!(tree.cut);
}

#[test]
fn values_without_end_cost_little_and_are_counted() {
    let text = format!("[{}1]", "1,".repeat(100_000));
    let tree = tree_by(&text, all, 1000, 5000);
    assert_eq!(tree.root().count(), Some(100_001));
    assert!(tree.root().items().len() < 30_000 && tree.cut);
}

#[test]
fn a_text_that_was_cut_is_kept_as_far_as_it_came() {
    let mut builder = TreeBuilder::new(all, 100);
    builder.push(br#"{"a": {"b": ["x", "yz"#);
    let tree = builder.so_far();
    let list = tree.root().get("a").get("b");
    assert_eq!(list.items().iter().filter_map(Value::text).collect::<Vec<_>>(), ["x", "yz"]);
    assert_eq!(builder.finish().fault, Some(Fault::Malformed));
}

#[test]
fn a_field_is_found_by_either_of_its_spellings() {
    let tree = tree(r#"{"use_legacy_sql": true, "useLegacySql": "false"}"#, all, 100);
    assert_eq!(tree.root().get("useLegacySql").flag(), Some(false));
    assert_eq!(tree.root().all("use_legacy_sql").count(), 2);
}
