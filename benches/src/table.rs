//! A row of the suite: its cells, the rounds over its contestants, and its Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::contestants::Who;

/// Figures of one run, by metric name.
pub type Sample = BTreeMap<String, f64>;

/// What is measured and how it is written.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Key in the samples.
    pub name: &'static str,
    /// Column title.
    pub title: &'static str,
    /// Whether the ratio to the reference stands beside it.
    pub ratio: bool,
}

/// A metric with its ratio to the reference.
pub const fn compared(name: &'static str, title: &'static str) -> Metric {
    Metric { name, title, ratio: true }
}

/// A metric by itself.
pub const fn plain(name: &'static str, title: &'static str) -> Metric {
    Metric { name, title, ratio: false }
}

type Run<'a> = Box<dyn Fn() -> Result<Sample, String> + 'a>;

/// One contestant's part in a cell.
pub struct Entry<'a> {
    /// Who it is.
    pub who: Who,
    /// A word after the name, where one contestant takes part twice.
    pub variant: &'static str,
    /// Measures once.
    pub run: Run<'a>,
}

/// Work that all contestants do alike.
pub struct Cell<'a> {
    /// What the work is.
    pub label: String,
    /// Where it stands on a curve.
    pub x: f64,
    /// Who does it.
    pub entries: Vec<Entry<'a>>,
}

/// A named set of cells.
pub struct Row<'a> {
    /// Name on the command line.
    pub name: &'static str,
    /// Title in the output.
    pub title: &'static str,
    /// Ratios are to this contestant.
    pub reference: Who,
    /// Its columns.
    pub metrics: Vec<Metric>,
    /// Its work.
    pub cells: Vec<Cell<'a>>,
    /// Metrics to plot, each with the meaning of x; empty if it is no curve.
    pub curves: &'static [(&'static str, &'static str)],
}

/// The samples of one contestant in one cell.
#[derive(Clone, Debug)]
pub struct Series {
    /// Label of the cell.
    pub cell: String,
    /// Where the cell stands on a curve.
    pub x: f64,
    /// Who it was.
    pub who: Who,
    /// Its name in the table.
    pub name: String,
    /// By round; `None` where the run failed.
    pub samples: Vec<Option<Sample>>,
    /// The last failure.
    pub failure: Option<String>,
}

impl Series {
    fn values(&self, metric: &str) -> Vec<f64> {
        self.samples.iter().flatten().filter_map(|s| s.get(metric).copied()).collect()
    }

    /// The median over the rounds.
    pub fn median(&self, metric: &str) -> Option<f64> {
        median(self.values(metric))
    }
}

/// Runs all cells: in each round every contestant of a cell once, so that drift cancels.
pub fn run(row: &Row<'_>, rounds: usize) -> Vec<Series> {
    let mut all = Vec::new();
    for cell in &row.cells {
        let mut series: Vec<Series> = cell.entries.iter().map(|e| empty(cell, e)).collect();
        for round in 0..rounds {
            let n = series.len();
            for i in 0..n {
                // Another goes first in each round.
                let i = (i + round) % n;
                match (cell.entries[i].run)() {
                    Ok(sample) => series[i].samples.push(Some(sample)),
                    Err(failure) => {
                        eprintln!("{} / {} / {}: {failure}", row.name, cell.label, series[i].name);
                        series[i].samples.push(None);
                        series[i].failure = Some(failure);
                    }
                }
            }
        }
        eprintln!("{}: {} done", row.name, cell.label);
        all.extend(series);
    }
    all
}

fn empty(cell: &Cell<'_>, entry: &Entry<'_>) -> Series {
    let name = match entry.variant {
        "" => entry.who.to_string(),
        variant => format!("{} {variant}", entry.who),
    };
    Series {
        cell: cell.label.clone(),
        x: cell.x,
        who: entry.who,
        name,
        samples: Vec::new(),
        failure: None,
    }
}

/// The row as a Markdown table.
pub fn markdown(row: &Row<'_>, all: &[Series]) -> String {
    let mut text = format!("### {} (`{}`)\n\n| work | contestant |", row.title, row.name);
    let mut rule = String::from("|---|---|");
    for metric in &row.metrics {
        let _ = write!(text, " {} | ± |", metric.title);
        rule.push_str("--:|--:|");
        if metric.ratio {
            let _ = write!(text, " × {} |", row.reference);
            rule.push_str("--:|");
        }
    }
    let _ = writeln!(text, "\n{rule}");
    for series in all {
        let reference = all.iter().find(|s| s.cell == series.cell && s.who == row.reference);
        let _ = write!(text, "| {} | {} |", series.cell, series.name);
        for metric in &row.metrics {
            text.push_str(&columns(series, reference, metric));
        }
        if let Some(failure) = &series.failure {
            let short: String = failure.chars().filter(|c| *c != '|').take(120).collect();
            let failed = series.samples.iter().filter(|s| s.is_none()).count();
            let _ = write!(text, " {failed} of {} failed: {short}", series.samples.len());
        }
        text.push('\n');
    }
    text
}

fn columns(series: &Series, reference: Option<&Series>, metric: &Metric) -> String {
    let values = series.values(metric.name);
    let mut text = match median(values.clone()) {
        Some(middle) => format!(" {} | {} |", number(middle), spread(&values, middle)),
        None => String::from(" – | – |"),
    };
    if metric.ratio {
        let ratio = reference.and_then(|r| ratio(series, r, metric.name));
        let _ = match ratio {
            Some(ratio) => write!(text, " {ratio:.2} |"),
            None => write!(text, " – |"),
        };
    }
    text
}

/// The median of the ratios within the rounds: what slows a whole round down cancels.
pub fn ratio(series: &Series, reference: &Series, metric: &str) -> Option<f64> {
    let of_round = |(mine, theirs): (&Option<Sample>, &Option<Sample>)| {
        let (mine, theirs) = (mine.as_ref()?.get(metric)?, theirs.as_ref()?.get(metric)?);
        (*theirs != 0.0).then(|| mine / theirs)
    };
    median(series.samples.iter().zip(&reference.samples).filter_map(of_round).collect())
}

/// Half the distance between the extremes, as a share of the median.
fn spread(values: &[f64], middle: f64) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if middle == 0.0 || values.len() < 2 {
        return "–".into();
    }
    format!("{:.0} %", (high - low) / 2.0 / middle.abs() * 100.0)
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(values[n / 2]),
        _ => Some(f64::midpoint(values[n / 2 - 1], values[n / 2])),
    }
}

fn number(value: f64) -> String {
    let size = value.abs();
    if value == value.round() && size < 1000.0 {
        format!("{value:.0}")
    } else if size >= 1e6 {
        format!("{:.2} M", value / 1e6)
    } else if size >= 1e4 {
        format!("{:.1} k", value / 1e3)
    } else if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_is_taken_within_rounds() {
        let series = |who: Who, values: &[f64]| Series {
            cell: String::new(),
            x: 0.0,
            who,
            name: who.to_string(),
            samples: values.iter().map(|v| Some([("m".to_owned(), *v)].into())).collect(),
            failure: None,
        };
        let slow_round = series(Who::Raw, &[1.0, 10.0, 1.0]);
        let mine = series(Who::Go, &[2.0, 20.0, 2.0]);
        assert_eq!(ratio(&mine, &slow_round, "m"), Some(2.0));
        assert_eq!(mine.median("m"), Some(2.0));
    }
}
