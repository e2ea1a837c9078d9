//! A report for people.

use super::{GreedyReport, LaunchReport, Report, StepReport};
use crate::table::table;
use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

const TITLES: [&str; 9] =
    ["kernel", "origin", "steps>", "i32>", "8-bit>", "share>", "largest error>", "bound>", "result"];

impl Report {
    /// One line a launch.
    pub fn launches_text(&self) -> String {
        let rows: Vec<Vec<String>> = self.launches.iter().map(|l| row(l, l.origin.clone())).collect();
        table(&TITLES, &rows)
    }

    /// One line a kernel: the worst of its launches; and one for each launch that failed.
    fn summary(&self) -> String {
        let mut kernels: BTreeMap<&str, Vec<&LaunchReport>> = BTreeMap::new();
        for launch in &self.launches {
            kernels.entry(launch.kernel).or_default().push(launch);
        }
        let mut rows: Vec<Vec<String>> =
            kernels.values().map(|launches| row(&worst(launches), format!("{} launches", launches.len()))).collect();
        let failed = self.launches.iter().filter(|launch| launch.failed > 0);
        rows.extend(failed.map(|launch| row(launch, launch.origin.clone())));
        table(&TITLES, &rows)
    }
}

fn worst(launches: &[&LaunchReport]) -> LaunchReport {
    let ratio = |launch: &LaunchReport| launch.relative / launch.bound.max(f64::MIN_POSITIVE);
    let nearest = launches.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    let mut worst = LaunchReport::clone(nearest.expect("a kernel is listed for its launches"));
    worst.steps = launches.iter().map(|launch| launch.steps).sum();
    worst.failed = launches.iter().map(|launch| launch.failed).sum();
    worst.accumulators = launches.iter().map(|launch| launch.accumulators).max().unwrap_or(0);
    worst.quantized = launches.iter().map(|launch| launch.quantized).max().unwrap_or(0);
    worst.state_share = launches.iter().map(|launch| launch.state_share).fold(0.0, f64::max);
    worst.quantized_share = launches.iter().map(|launch| launch.quantized_share).fold(0.0, f64::max);
    worst
}

fn row(launch: &LaunchReport, origin: String) -> Vec<String> {
    let result = match launch.failed {
        0 => "pass".to_owned(),
        failed => format!("FAIL in {failed} steps"),
    };
    vec![
        launch.kernel.to_owned(),
        origin,
        launch.steps.to_string(),
        launch.accumulators.to_string(),
        launch.quantized.to_string(),
        format!("{:.6}", launch.quantized_share.max(launch.state_share)),
        format!("{:.2e}", launch.relative),
        format!("{:.2e}", launch.bound),
        result,
    ]
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, phase {}\n{}\nagainst {}\n", self.model, self.phase, self.device, self.reference)?;
        writeln!(f, "{}", self.summary())?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))?;
        if let Some(greedy) = &self.greedy {
            writeln!(f, "{greedy}")?;
        }
        let failed = self.launches.iter().filter(|launch| launch.failed > 0).count();
        match (self.passes, failed) {
            (true, _) => writeln!(f, "all {} launches pass", self.launches.len()),
            (false, failed) => writeln!(f, "FAILED: {failed} of {} launches are out of bounds", self.launches.len()),
        }
    }
}

impl Display for StepReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "whole steps of {} sequences after {} tokens: ", self.sequences, self.context)?;
        match self.unequal {
            0 => write!(f, "as the launches one by one to the bit")?,
            count => write!(f, "{count} logits are not those of the launches one by one")?,
        }
        write!(f, "; logits differ by {:.2e}, bound {:.2e}", self.relative, self.bound)?;
        if !self.moved.is_empty() {
            let (least, most) = (
                self.moved.iter().copied().fold(f64::INFINITY, f64::min),
                self.moved.iter().copied().fold(0.0, f64::max),
            );
            write!(f, " (copies of the reference, moved as its launches may be: {least:.2e} to {most:.2e})")?;
        }
        write!(f, ": {}", if self.passes() { "pass" } else { "FAIL" })
    }
}

impl Display for GreedyReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "likeliest tokens: {} of {} are the same", self.equal, self.tokens)?;
        match &self.split {
            None => write!(f, ": pass"),
            Some(split) => write!(
                f,
                ", then {} instead of {}, whose logits are {:.2e} of their size apart, bound {:.1e}: {}",
                split.found,
                split.expected,
                split.gap,
                split.bound,
                if self.passes { "a tie within rounding, pass" } else { "FAIL" }
            ),
        }
    }
}
