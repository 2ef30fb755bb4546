//! Training on the terminal: what every stage's command does around it.

mod dashboard;
mod line;

use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use puna_hub::OpenOptions;
use puna_kernels::Cpu;
use puna_recipes::{Ending, Log, Recipe, RecipeError, Report, Start};

use crate::args::ThreadsArg;
use crate::claim::Claim;
use crate::environment;
use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::system;
use dashboard::{Dashboard, Screen, View};
use line::Line;

/// What the stages after pre-training take on the command line.
#[derive(Args)]
pub(super) struct StageArgs {
    /// What to train, on what, and how
    #[arg(value_name = "CONFIG.toml")]
    pub(super) config: PathBuf,
    /// The folder of the run [default: the configuration's `out`]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the plan and stop there
    #[arg(long)]
    plan: bool,
    /// Go on with the run in the folder
    #[arg(long, conflicts_with = "plan")]
    resume: bool,
    /// Show curves and figures on the whole terminal instead of one line
    #[arg(long, conflicts_with = "plan")]
    dashboard: bool,
    #[command(flatten)]
    threads: ThreadsArg,
}

/// Opens a stage: from the name and the text of its configuration, and the folder where its paths start.
pub(super) type Open = for<'a> fn(
    &str,
    &str,
    &Path,
    &OpenOptions,
    &'a Cpu,
) -> Result<Box<dyn Recipe + 'a>, RecipeError>;

impl StageArgs {
    /// Reads the configuration, opens the stage, and runs it.
    pub(super) fn run(&self, open: Open) -> anyhow::Result<()> {
        let (file, text) = self.read()?;
        let (cpu, options) = (self.cpu()?, environment::open_options(None, None));
        let recipe = open(&file, &text, self.folder(), &options, &cpu)?;
        self.drive(&*recipe, &text)
    }

    /// Where the configuration's paths start.
    pub(super) fn folder(&self) -> &Path {
        self.config.parent().unwrap_or(Path::new(""))
    }

    /// The configuration's name, and its text.
    pub(super) fn read(&self) -> anyhow::Result<(String, String)> {
        let file = self.config.display().to_string();
        let text = std::fs::read_to_string(&self.config).with_context(|| file.clone())?;
        Ok((file, text))
    }

    pub(super) fn cpu(&self) -> anyhow::Result<Cpu> {
        Cpu::new(self.threads.n_threads()).context("PUNA_ISA")
    }

    /// Shows the plan of a stage, and runs it unless the plan is all that was asked for.
    pub(super) fn drive(&self, recipe: &dyn Recipe, text: &str) -> anyhow::Result<()> {
        for line in recipe.plan() {
            note!("{line}");
        }
        let needed = recipe.memory();
        if let Some(free) = system::available_memory().filter(|&free| free < needed) {
            bail!(Usage(format!(
                "the run takes {} MB of memory, {} MB are free; a smaller `micro_batch` or `seq_len`, or `recompute = true`, takes less",
                needed.div_ceil(1_000_000),
                free / 1_000_000
            )));
        }
        if self.plan {
            return Ok(());
        }
        let configured = recipe.out().map(|out| self.folder().join(out));
        let missing = || Usage(format!("{} has no `out`: give --out", self.config.display()));
        let out = self.out.clone().or(configured).ok_or_else(missing)?;
        let start = if self.resume { Start::Resume } else { Start::New { config: text } };
        show_run(&out, recipe.n_steps(), self.dashboard, self.resume, |stop, on| {
            recipe.run(&out, start, stop, on)
        })
    }
}

/// Runs a stage with a line or a dashboard, and says how it ended.
pub(super) fn show_run(
    out: &Path,
    n_steps: u64,
    dashboard: bool,
    resume: bool,
    run: impl FnOnce(&dyn Fn() -> bool, &mut dyn FnMut(Report<'_>)) -> Result<Ending, RecipeError>,
) -> anyhow::Result<()> {
    let _claim = Claim::of(out)?;
    let screen = Arc::new(Screen::default());
    let interrupt = Interrupt::install_with({
        let screen = Arc::clone(&screen);
        move || screen.close()
    })?;
    let stop = || interrupt.is_set();
    let mut display = match dashboard && has_terminal() {
        false => Display::Line(Line::new()),
        true => {
            // What cannot be read here is told when the run goes on.
            let log = if resume { Log::read(out).unwrap_or_default() } else { Vec::new() };
            let view = View::new(out.display().to_string(), n_steps, &log);
            Display::Dashboard(Dashboard::open(view, screen, &interrupt)?)
        }
    };
    let ending = run(&stop, &mut |report: Report<'_>| display.tell(&report));
    display.end();
    match ending? {
        Ending::Complete => note!("done: {}", out.display()),
        Ending::Stopped => {
            note!("saved in {}; --resume goes on", out.display());
            bail!(Interrupted);
        }
        Ending::Fault(fault) => bail!(RecipeError::Check(format!(
            "{fault}; what was before it is in {}",
            out.display()
        ))),
    }
    Ok(())
}

/// Whether there is a terminal for a dashboard; says so if not.
fn has_terminal() -> bool {
    let is_terminal = stdout().is_terminal();
    if !is_terminal {
        note!("note: standard output is no terminal: a line instead of the dashboard");
    }
    is_terminal
}

/// How a run is shown.
enum Display {
    Line(Line),
    Dashboard(Dashboard),
}

impl Display {
    fn tell(&mut self, report: &Report<'_>) {
        match self {
            Self::Line(line) => line.tell(report),
            Self::Dashboard(dashboard) => dashboard.tell(report),
        }
    }

    /// Makes room for what is said at the end.
    fn end(self) {
        match self {
            Self::Line(line) => line.end(),
            Self::Dashboard(dashboard) => drop(dashboard),
        }
    }
}
