//! Live progress: a bar per channel and wave on a terminal, plain lines otherwise.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use nixfleet_audit::database::WaveCount;

use nixfleet_harness::progress_printer::Printer;

/// Shortest pause between two progress lines, unless a wave has finished.
const LINE_PAUSE: Duration = Duration::from_secs(3);

/// States in the order in which a host passes them.
const STATES: [&str; 7] = [
    "Pending",
    "Activating",
    "Deferred",
    "Soaking",
    "Converged",
    "Failed",
    "Reverted",
];

/// Shows the progress of every wave.
pub struct Progress<'a> {
    printer: &'a Printer,
    bars: Option<Bars>,
    last: BTreeMap<String, String>,
    last_at: Option<Instant>,
}

#[derive(Default)]
struct Bars {
    all: MultiProgress,
    by_wave: BTreeMap<String, ProgressBar>,
}

impl<'a> Progress<'a> {
    pub fn new(printer: &'a Printer) -> Self {
        Self {
            printer,
            bars: printer.can_draw_bars().then(Bars::default),
            last: BTreeMap::new(),
            last_at: None,
        }
    }

    /// Shows the newest counts.
    pub fn show(&mut self, waves: &[WaveCount]) {
        match &mut self.bars {
            Some(bars) => waves.iter().for_each(|wave| bars.show(wave)),
            None => self.lines(waves),
        }
    }

    /// Makes room for lines of others.
    pub fn pause(&mut self) {
        if let Some(bars) = self.bars.take() {
            bars.abandon();
            self.bars = Some(Bars::default());
        }
    }

    /// Keeps the last display on the terminal.
    pub fn finish(self) {
        if let Some(bars) = self.bars {
            bars.abandon();
        }
    }

    fn lines(&mut self, waves: &[WaveCount]) {
        let rested = self.last_at.is_none_or(|at| at.elapsed() >= LINE_PAUSE);
        for wave in waves {
            let (name, text) = (name(wave), text(wave));
            let known = self.last.get(&name);
            if known == Some(&text) || !(rested || is_over(wave)) {
                continue;
            }
            self.printer.line(&format!("{name:<32} {text}"));
            self.last.insert(name, text);
            self.last_at = Some(Instant::now());
        }
    }
}

impl Bars {
    fn show(&mut self, wave: &WaveCount) {
        let total = u64::try_from(wave.hosts.values().sum::<i64>()).unwrap_or(0);
        let converged = wave.hosts.get("Converged").copied().unwrap_or(0);
        let bar = self.by_wave.entry(name(wave)).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(total));
            let style = "{prefix:<30} [{bar:30}] {pos:>5}/{len:<5} {msg}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(name(wave));
            bar
        });
        bar.set_position(u64::try_from(converged).unwrap_or(0));
        bar.set_message(text(wave));
    }

    fn abandon(self) {
        for bar in self.by_wave.values() {
            bar.abandon();
        }
    }
}

fn name(wave: &WaveCount) -> String {
    format!("{} wave {}", wave.rollout_id, wave.wave)
}

fn text(wave: &WaveCount) -> String {
    let counts: Vec<String> = STATES
        .iter()
        .filter_map(|state| Some(format!("{} {state}", wave.hosts.get(*state)?)))
        .collect();
    format!("{}: {}", wave.rollout_state, counts.join(", "))
}

fn is_over(wave: &WaveCount) -> bool {
    wave.hosts
        .keys()
        .all(|state| matches!(state.as_str(), "Converged" | "Reverted"))
}
