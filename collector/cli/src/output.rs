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
pub(crate) struct Writer {
    output: Output,
    width: usize,
    out: io::BufWriter<io::Stdout>,
    begun: bool,
}

impl Writer {
    pub(crate) fn new(output: Output) -> Self {
        let width = terminal_size::terminal_size()
            .filter(|_| io::stdout().is_terminal())
            .map_or(WIDTH_WITHOUT_TERMINAL, |(width, _)| usize::from(width.0).max(40));
        Self { output, width, out: io::BufWriter::new(io::stdout()), begun: false }
    }

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
            Output::Json => writeln!(self.out, "{}", serde_json::to_string(row).map_err(io::Error::from)?)?,
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
        let mut writer =
            csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(&mut self.out);
        let serde_json::Value::Object(fields) = value else { return Ok(()) };
        if header {
            writer.write_record(fields.keys()).map_err(csv_error)?;
        }
        writer.write_record(fields.values().map(flat)).map_err(csv_error)?;
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
