//! A report for people.

use super::{KernelTable, RaceRow, Report, Row};
use crate::cuda::{Pair, Product};
use crate::table::table;
use std::fmt::{self, Display, Formatter};

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, phase {}, on {}", self.model, self.phase, self.device)?;
        self.write_rates(f)?;
        if !self.decode.is_empty() {
            writeln!(f, "\ndecode, {} tokens before", self.decode[0].context)?;
            f.write_str(&self.rows(&self.decode))?;
        }
        if !self.prefill.is_empty() {
            writeln!(f, "\nprefill")?;
            f.write_str(&self.rows(&self.prefill))?;
        }
        for kernels in &self.kernels {
            let KernelTable { sequences, tokens, .. } = kernels;
            writeln!(f, "\nwhere the time goes: {sequences} sequences, {tokens} tokens each, launch by launch")?;
            f.write_str(&self.launches(kernels))?;
            if !kernels.races.is_empty() {
                writeln!(f, "\nlinears and the vendor's INT8 product in turn, of the same random bytes; medians")?;
                f.write_str(&races(&kernels.races))?;
            }
        }
        if !self.kernels_used.is_empty() {
            writeln!(f, "\ncompiled kernels that ran: {}", self.kernels_used.join(", "))?;
        }
        Ok(())
    }
}

impl Report {
    fn write_rates(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let how = if self.roofline_measured { "measured" } else { "of the target" };
        write!(f, "read bandwidth {}/s {how}", bytes(self.roofline.bytes_per_second))?;
        if self.roofline.int8_ops_per_second.is_finite() {
            let by = self.int8_peak.map_or(String::new(), |peak| format!(" by {}", peak.by));
            write!(f, ", INT8 peak {:.0} TOPS {how}{by}", self.roofline.int8_ops_per_second / 1e12)?;
        }
        writeln!(f)?;
        if let Some(load) = &self.load {
            write!(f, "ready in {:.2} s", load.seconds)?;
            if let (Some(rate), Some(copies)) = (load.upload_rate(), load.copy_bytes_per_second) {
                let share = 100.0 * rate / copies;
                write!(
                    f,
                    "; weights uploaded at {}/s, {share:.0} % of the {}/s of copies",
                    bytes(rate),
                    bytes(copies)
                )?;
            }
            writeln!(f)?;
        }
        let memory = [self.memory.weights, self.memory.buffers, self.memory.states].map(|part| bytes(part as f64));
        writeln!(f, "memory: weights {}, buffers {}, states {}", memory[0], memory[1], memory[2])
    }

    fn rows(&self, rows: &[Row]) -> String {
        let titles = [
            "sequences>",
            "tokens>",
            "tokens/s>",
            "device>",
            "wall>",
            "predicted>",
            "bytes>",
            "operations>",
            "of bandwidth>",
            "of INT8 peak>",
        ];
        let cells = |row: &Row| {
            vec![
                row.sequences.to_string(),
                row.tokens.to_string(),
                format!("{:.1}", row.tokens_per_second()),
                time(row.measured_us),
                time(row.wall_us),
                time(Some(row.predicted_us)),
                bytes(row.work.floor_bytes),
                operations(row.work.ops),
                self.share_of_bandwidth(row.work.floor_bytes, row.measured_us.or(row.wall_us)),
                self.share_of_peak(row.work.ops, row.measured_us.or(row.wall_us)),
            ]
        };
        table(&titles, &rows.iter().map(cells).collect::<Vec<_>>())
    }

    fn launches(&self, kernels: &KernelTable) -> String {
        let titles = [
            "kernel",
            "origin",
            "launches>",
            "predicted>",
            "measured>",
            "vendor>",
            "bytes>",
            "operations>",
            "of bandwidth>",
            "of INT8 peak>",
        ];
        let mut rows: Vec<Vec<String>> = Vec::new();
        for row in &kernels.rows {
            rows.push(vec![
                row.kernel.to_owned(),
                row.origin.clone(),
                row.launches.to_string(),
                time(Some(row.predicted_us)),
                time(row.measured_us),
                time(row.vendor_us),
                bytes(row.work.bytes),
                operations(row.work.ops),
                self.share_of_bandwidth(row.work.bytes, row.measured_us),
                self.share_of_peak(row.work.ops, row.measured_us),
            ]);
        }
        let predicted: f64 = kernels.rows.iter().map(|row| row.predicted_us).sum();
        let in_line = kernels.rows.iter().filter(|row| !row.beside);
        let measured: Option<f64> = in_line.map(|row| row.measured_us).sum();
        let mut total = vec![String::new(); titles.len()];
        total[0] = "all".to_owned();
        total[2] = kernels.rows.iter().map(|row| row.launches).sum::<usize>().to_string();
        (total[3], total[4]) = (time(Some(predicted)), time(measured));
        rows.push(total);
        table(&titles, &rows)
    }

    fn share_of_bandwidth(&self, bytes: f64, elapsed_us: Option<f64>) -> String {
        share(bytes / self.roofline.bytes_per_second, elapsed_us)
    }

    fn share_of_peak(&self, ops: f64, elapsed_us: Option<f64>) -> String {
        match self.roofline.int8_ops_per_second {
            peak if peak.is_finite() => share(ops / peak, elapsed_us),
            _ => "-".to_owned(),
        }
    }
}

/// Rates are the vendor's time over ours: after a rest, when the clock has settled, beside the library's first choice, and with
/// the W8 that is made of W4.
fn races(rows: &[RaceRow]) -> String {
    let titles = [
        "origin",
        "tokens>",
        "n>",
        "k>",
        "ours>",
        "vendor>",
        "rate>",
        "settled>",
        "its first>",
        "expand W4>",
        "with it>",
    ];
    let percent = |rate: f32| format!("{:.1} %", 100.0 * rate);
    let microseconds = |us: f32| time(Some(f64::from(us)));
    let cells = |RaceRow { origin, race }: &RaceRow| {
        let (Product { rows, n, k }, Pair { ours_us, vendor_us }) = (race.product, race.rested);
        vec![
            origin.clone(),
            rows.to_string(),
            n.to_string(),
            k.to_string(),
            microseconds(ours_us),
            microseconds(vendor_us),
            percent(race.rested.rate()),
            percent(race.settled.rate()),
            percent(race.first.rate()),
            race.expand_us.map_or("-".to_owned(), microseconds),
            race.expand_us.map_or("-".to_owned(), |expand_us| percent(vendor_us / (ours_us + expand_us))),
        ]
    };
    table(&titles, &rows.iter().map(cells).collect::<Vec<_>>())
}

fn share(floor_seconds: f64, elapsed_us: Option<f64>) -> String {
    elapsed_us.map_or("-".to_owned(), |elapsed_us| format!("{:.0} %", 100.0 * floor_seconds / elapsed_us * 1e6))
}

fn time(elapsed_us: Option<f64>) -> String {
    match elapsed_us {
        None => "-".to_owned(),
        Some(us) if us < 1e4 => format!("{us:.1} us"),
        Some(us) => format!("{:.1} ms", us / 1e3),
    }
}

fn bytes(count: f64) -> String {
    scaled(count, [" B", " kB", " MB", " GB", " TB"])
}

fn operations(count: f64) -> String {
    scaled(count, ["", " k", " M", " G", " T"])
}

fn scaled(count: f64, units: [&str; 5]) -> String {
    let mut value = count;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0}{}", units[0]) } else { format!("{value:.2}{}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Race;

    #[test]
    fn writes_how_linears_compare_with_and_without_expansion() {
        let pair = |ours_us, vendor_us| Pair { ours_us, vendor_us };
        let race = Race {
            product: Product { rows: 2048, n: 18_560, k: 4096 },
            rested: pair(200.0, 210.0),
            settled: pair(220.0, 220.0),
            first: pair(220.0, 275.0),
            expand_us: Some(50.0),
        };
        let text = races(&[RaceRow { origin: "mixer.in_proj".to_owned(), race }]);
        for found in ["200.0 us", "105.0 %", "100.0 %", "125.0 %", "84.0 %"] {
            assert!(text.contains(found), "{found}: {text}");
        }
    }

    #[test]
    fn writes_numbers_with_units() {
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(4.55e12), "4.55 TB");
        assert_eq!(operations(1.2e9), "1.20 G");
        assert_eq!(time(Some(12_345.0)), "12.3 ms");
        assert_eq!(share(1e-6, Some(2.0)), "50 %");
        assert_eq!(share(1e-6, None), "-");
    }
}
