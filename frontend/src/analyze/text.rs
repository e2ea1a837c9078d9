//! The analysis as plain text.

use super::Analysis;
use std::fmt::Write;

impl Analysis {
    /// The layer pattern in lines of at most `width` layers, each with a ruler of layer numbers above it.
    pub fn draw_pattern(&self, width: usize) -> String {
        const STEP: usize = 10;
        let width = width.max(STEP);
        let letters: Vec<char> = self.pattern.chars().collect();
        let mut out = String::new();
        for (line, chunk) in letters.chunks(width).enumerate() {
            let first = line * width;
            let mut ruler = String::new();
            for layer in (first..first + chunk.len()).filter(|layer| layer % STEP == 0) {
                let _ = write!(ruler, "{:<w$}", "", w = layer - first - ruler.len());
                let _ = write!(ruler, "{layer}");
            }
            let _ = writeln!(out, "  {ruler}\n  {}", chunk.iter().collect::<String>());
        }
        let counts = &self.layers;
        let _ = writeln!(
            out,
            "  M Mamba-2 x {}   - MLP x {}   * attention x {}",
            counts.mamba, counts.mlp, counts.attention
        );
        out
    }

    /// Everything as text without colors: sizes, pattern, table, and what each phase does and why.
    pub fn to_text(&self) -> String {
        let config = &self.config;
        let mut out = format!(
            "{}: {} layers, hidden {}, vocabulary {}, {} parameters\n\n{}\n",
            config.name,
            config.layers.len(),
            config.hidden_size,
            config.vocab_size,
            thousands(self.totals.parameters),
            self.draw_pattern(60),
        );
        self.write_table(&mut out);
        for phase in 0..3 {
            let _ = writeln!(out, "\nphase {}", phase + 1);
            for row in &self.rows {
                let cell = &row.phases[phase];
                let _ = writeln!(out, "  {:<24}{:<20}{}", row.label, cell.format, cell.why);
            }
        }
        let narrow = size(self.totals.phase_2_with_4_bit_vocabulary);
        let _ = writeln!(out, "\nphase 2 with embedding and lm_head in 4 bits, by a recipe: {narrow}");
        out
    }

    fn write_table(&self, out: &mut String) {
        let mut line = |cells: [&str; 8]| {
            let [label, count, parameters, share, rest @ ..] = cells;
            let _ = write!(out, "{label:<24}{count:>6}{parameters:>16}{share:>8}");
            for cell in rest {
                let _ = write!(out, "{cell:>12}");
            }
            out.push('\n');
        };
        line(["component", "count", "parameters", "share", "checkpoint", "phase 1", "phase 2", "phase 3"]);
        for row in &self.rows {
            line([
                row.label,
                &row.count.to_string(),
                &thousands(row.parameters),
                &format!("{:.2} %", row.share * 100.0),
                &size(row.bytes),
                &size(row.phases[0].bytes),
                &size(row.phases[1].bytes),
                &size(row.phases[2].bytes),
            ]);
        }
        let totals = &self.totals;
        line([
            "total",
            "",
            &thousands(totals.parameters),
            "",
            &size(totals.bytes),
            &size(totals.phases[0]),
            &size(totals.phases[1]),
            &size(totals.phases[2]),
        ]);
    }
}

/// `8,100,852,736`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of bytes in the largest binary unit that leaves at least 1.
pub fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.2} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}
