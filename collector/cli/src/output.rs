//! Writing rows as a table, as JSON lines or as CSV.

use std::io::{self, IsTerminal, Write};

use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::{
    args::{Args, Output},
    failure::Failure,
};

/// Width of a table that goes to no terminal, columns.
const WIDTH_WITHOUT_TERMINAL: usize = 200;

/// Something that can be shown as a row.
pub(crate) trait Row: Serialize {
    /// Titles of the table's columns; the last takes what is left of the width.
    const TITLES: &'static [&'static str];
    /// Widths that rows which come one by one are aligned to, columns.
    const WIDTHS: &'static [usize];
    fn cells(&self) -> Vec<String>;
}

/// Writes rows that come all at once or one by one.
pub(crate) struct Writer<W: Write = io::Stdout> {
    output: Output,
    /// Whether a terminal reads it, which would obey what it reads.
    terminal: bool,
    width: usize,
    out: io::BufWriter<W>,
    begun: bool,
}

impl Writer {
    pub(crate) fn new(output: Output) -> Self {
        Self::to(io::stdout(), output)
    }
}

impl<W: Write + IsTerminal> Writer<W> {
    fn to(out: W, output: Output) -> Self {
        let terminal = out.is_terminal();
        let width = terminal_size::terminal_size()
            .filter(|_| terminal)
            .map_or(WIDTH_WITHOUT_TERMINAL, |(width, _)| usize::from(width.0).max(40));
        Self { output, terminal, width, out: io::BufWriter::new(out), begun: false }
    }
}

impl<W: Write> Writer<W> {
    /// Rows that are known together: columns are as wide as they need to be.
    pub(crate) fn rows<T: Row>(&mut self, rows: &[T]) -> Result<(), Failure> {
        let cells: Vec<Vec<String>> = match self.output {
            Output::Table => rows.iter().map(|row| shown(row)).collect(),
            _ => Vec::new(),
        };
        let widths: Vec<usize> = (0..T::TITLES.len())
            .map(|column| {
                let widest = cells.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
                widest.unwrap_or(0).max(T::TITLES[column].width())
            })
            .collect();
        for (index, row) in rows.iter().enumerate() {
            self.row(row, &widths, cells.get(index))?;
        }
        Ok(self.out.flush()?)
    }

    /// A row as it comes in; shown at once.
    pub(crate) fn live<T: Row>(&mut self, row: &T) -> Result<(), Failure> {
        self.row(row, T::WIDTHS, None)?;
        Ok(self.out.flush()?)
    }

    fn row<T: Row>(&mut self, row: &T, widths: &[usize], cells: Option<&Vec<String>>) -> Result<(), Failure> {
        let first = !std::mem::replace(&mut self.begun, true);
        match self.output {
            Output::Table => {
                if first {
                    let titles: Vec<String> = T::TITLES.iter().map(|title| (*title).to_owned()).collect();
                    self.line(&titles, widths)?;
                }
                match cells {
                    Some(cells) => self.line(cells, widths)?,
                    None => self.line(&shown(row), widths)?,
                }
            }
            Output::Json => {
                let row = serde_json::to_string(row).map_err(io::Error::from)?;
                writeln!(self.out, "{}", verbatim_terminal::json(&row))?;
            }
            Output::Csv => self.csv(row, first)?,
        }
        Ok(())
    }

    fn line(&mut self, cells: &[String], widths: &[usize]) -> io::Result<()> {
        let mut line = String::new();
        for (index, cell) in cells.iter().enumerate() {
            line.push_str(cell);
            if index + 1 < cells.len() {
                let pad = widths.get(index).copied().unwrap_or(0).saturating_sub(cell.width()) + 2;
                line.extend(std::iter::repeat_n(' ', pad));
            }
        }
        writeln!(self.out, "{}", cut(line.trim_end(), self.width))
    }

    fn csv<T: Row>(&mut self, row: &T, header: bool) -> Result<(), Failure> {
        let value = serde_json::to_value(row).map_err(io::Error::from)?;
        let terminal = self.terminal;
        let field = |value| if terminal { harmless(&flat(value)) } else { flat(value) };
        let mut writer =
            csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut self.out);
        let serde_json::Value::Object(fields) = value else { return Ok(()) };
        if header {
            writer.write_record(fields.keys()).map_err(csv_error)?;
        }
        writer.write_record(fields.values().map(field)).map_err(csv_error)?;
        writer.flush()?;
        Ok(())
    }
}

/// One CSV field: text as it is, lists and objects as JSON.
fn flat(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn csv_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn shown<T: Row>(row: &T) -> Vec<String> {
    row.cells().iter().map(|cell| harmless(cell)).collect()
}

/// What a workload wrote must not steer the reader's terminal.
pub(crate) fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    verbatim_terminal::escape(text.as_bytes(), &mut out);
    out
}

fn cut(line: &str, width: usize) -> String {
    if line.width() <= width {
        return line.to_owned();
    }
    let mut used = 0;
    let mut out: String = line
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used < width
        })
        .collect();
    out.push('…');
    out
}

/// Writes a completion script.
pub(crate) fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "verbatim", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_cannot_steer_the_terminal() {
        let text = harmless("a\n\n\tb\u{1b}[2J\u{202e}c\u{7f}");
        assert_eq!(text, "a b\\u{1b}[2J\\u{202e}c\\u{7f}");
    }

    /// What a workload wrote to steer the terminal of whoever reads it: by C0 and C1, and turned around.
    const STATEMENT: &str = "=1,\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\u{e0041}\r\nb";

    #[derive(Serialize)]
    struct One {
        statement: &'static str,
        parameters: [&'static str; 1],
    }

    impl Row for One {
        const TITLES: &'static [&'static str] = &["STATEMENT"];
        const WIDTHS: &'static [usize] = &[0];

        fn cells(&self) -> Vec<String> {
            vec![self.statement.to_owned()]
        }
    }

    fn written(output: Output, terminal: bool) -> String {
        let out = io::BufWriter::new(Vec::new());
        let mut writer = Writer { output, terminal, width: WIDTH_WITHOUT_TERMINAL, out, begun: false };
        writer.rows(&[One { statement: STATEMENT, parameters: [STATEMENT] }]).unwrap();
        String::from_utf8(writer.out.into_inner().unwrap()).unwrap()
    }

    #[test]
    fn no_form_of_an_answer_lets_a_statement_steer_the_terminal() {
        for output in [Output::Table, Output::Json, Output::Csv] {
            let text = written(output, true).replace("\r\n", "\n");
            for line in text.lines() {
                assert_eq!(harmless(line), line, "{output:?}");
            }
        }
    }

    #[test]
    fn a_terminal_is_told_from_a_file() {
        let terminal = std::fs::File::options().read(true).write(true).open("/dev/ptmx").unwrap();
        assert!(Writer::to(terminal, Output::Csv).terminal);
        assert!(!Writer::to(tempfile::tempfile().unwrap(), Output::Csv).terminal);
    }

    #[test]
    fn json_and_csv_for_machines_lose_nothing() {
        let row: serde_json::Value = serde_json::from_str(&written(Output::Json, false)).unwrap();
        assert_eq!(row["statement"], STATEMENT);
        assert_eq!(row["parameters"][0], STATEMENT);
        assert_eq!(written(Output::Json, false), written(Output::Json, true));

        let text = written(Output::Csv, false);
        let mut rows = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(rows.records().next().unwrap().unwrap().get(0), Some(STATEMENT));
    }

    #[test]
    fn a_line_is_cut_by_width_and_not_by_bytes() {
        assert_eq!(cut("データベース", 7), "データ…");
        assert_eq!(cut("short", 7), "short");
    }

    #[test]
    fn completion_knows_every_verb() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Args::command(), "verbatim", &mut script);
        let script = String::from_utf8(script).unwrap();
        for verb in
            ["records", "show", "tail", "sessions", "findings", "coverage", "events", "delete-content"]
        {
            assert!(script.contains(verb), "{verb}");
        }
    }
}
