//! `puna pull`: a model from a hub into the store.

use std::io::{self, BufRead, IsTerminal};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::bail;
use clap::Args;
use indicatif::ProgressBar;
use puna_hub::HubError;
use puna_hub::licence::{Acceptance, LLAMA2_SPECIAL_TERMS, Terms};
use puna_hub::pull::{
    Event, Hub, Listing, PullError, Reference, Selection, choices, model_name, select,
};
use puna_hub::store::Store;

use crate::failure::{Interrupted, Usage};
use crate::interrupt::Interrupt;
use crate::{environment, progress, units};

/// Most lines of a licence file that are shown.
const MAX_SHOWN_LINES: usize = 400;

/// Fetch a model from huggingface.co or a hub like it
#[derive(Args)]
#[command(
    override_usage = "puna pull [--accept-licence] ORG/NAME[@REVISION][:FILE|:TYPE]",
    after_help = "An interrupted pull goes on where it ended. HF_ENDPOINT names another hub, HF_TOKEN gives access to \
                  gated models, PUNA_HOME is where models are kept.\n\n\
                  Example: puna pull TheBloke/Llama-2-7B-GGUF:Q4_K_M"
)]
pub(crate) struct PullArgs {
    /// The repository, and which of its models: a file, or a type like Q4_K_M
    #[arg(value_name = "REPO")]
    repository: String,
    /// Accept the model's licence without being asked, in scripts
    #[arg(long, alias = "accept-license")]
    accept_licence: bool,
}

/// Looks at the repository, asks what must be asked, and fetches.
pub(crate) fn run(args: &PullArgs) -> anyhow::Result<()> {
    let reference = Reference::parse(&args.repository).map_err(|e| Usage(e.to_string()))?;
    let store = environment::store_or_fail()?;
    let hub = Hub::new(environment::hub_options())?;
    let quiet = |event: Event<'_>| {
        if let Event::Retrying(error, pause) = event {
            note!("{error}; trying again in {}", units::seconds(pause.as_secs_f64()));
        }
        true
    };
    let listing = hub.list(&reference, &quiet)?;
    if let Some(first) = listing.left_out.first() {
        note!("{} left out: {first}", units::plural(listing.left_out.len(), "file"));
    }
    let selection = choose(&listing, &reference)?;
    let model = model_name(&reference, &selection);
    if let Ok(old) = store.find(&model.to_string())
        && (&old.model, &old.commit) == (&model, &listing.commit)
        && store.is_whole(&old)
    {
        note!("{model} is here already, and up to date");
        return Ok(());
    }
    let terms = hub.terms(&reference, &listing, &selection, &quiet)?;
    let licence = accept(args, &hub, &store, &reference, &terms)?;
    fetch(&hub, &store, &reference, &listing, &selection, licence)
}

/// The model that was named; if the repository has several and none was, the user is asked.
fn choose(listing: &Listing, reference: &Reference) -> anyhow::Result<Selection> {
    let repository = reference.repository();
    let error = match select(listing, reference) {
        Err(error @ PullError::Several { .. }) => error,
        selection => return Ok(selection?),
    };
    let choices = choices(listing);
    let width = choices.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
    let lines = choices.iter().enumerate();
    let lines: Vec<String> = lines
        .map(|(idx, c)| format!("{:>4}  {:<width$}  {}", idx + 1, c.name, units::bytes(c.n_bytes)))
        .collect();
    if !can_ask() {
        bail!(Usage(format!("{error}:\n{}", lines.join("\n"))));
    }
    note!("{repository} has several models:\n{}", lines.join("\n"));
    loop {
        let answer = ask("Which one? (number or name) ")?;
        let by_number = answer.parse::<usize>().ok().and_then(|n| choices.get(n.checked_sub(1)?));
        let wanted = by_number.map_or(answer, |choice| choice.name.clone());
        match select(listing, &Reference { wanted: Some(wanted), ..reference.clone() }) {
            Ok(selection) => return Ok(selection),
            Err(e) => note!("{e}"),
        }
    }
}

/// Shows the licence and has it accepted, unless these terms were accepted before.
fn accept(
    args: &PullArgs,
    hub: &Hub,
    store: &Store,
    reference: &Reference,
    terms: &Terms,
) -> anyhow::Result<Acceptance> {
    if let Some(acceptance) = terms.accepted(store, reference)? {
        note!("licence accepted {}", acceptance.accepted);
        return Ok(acceptance);
    }
    show(hub, reference, terms);
    if !args.accept_licence {
        if !can_ask() {
            bail!(Usage(format!(
                "{}: its licence must be accepted first; read it above, then add --accept-licence",
                reference.repository()
            )));
        }
        if ask("Type yes to accept these terms: ")? != "yes" {
            bail!("the licence was not accepted, so the model was not fetched");
        }
    }
    Ok(terms.accept(store, reference)?)
}

/// Writes the terms to stderr.
fn show(hub: &Hub, reference: &Reference, terms: &Terms) {
    for paper in &terms.papers {
        note!("--- {} ---", paper.path);
        for line in paper.text.lines().take(MAX_SHOWN_LINES) {
            note!("{line}");
        }
        if paper.text.lines().nth(MAX_SHOWN_LINES).is_some() {
            note!("... the rest: {}", hub.page_of(reference, &paper.path));
        }
    }
    note!("---");
    if terms.is_llama2() {
        note!("This is the Llama 2 Community License. In short, besides what is usual:");
        for term in LLAMA2_SPECIAL_TERMS {
            note!("  {term}");
        }
    }
    let link = terms.stated.link.as_ref().map(|link| format!(", {link}")).unwrap_or_default();
    match terms.id() {
        Some(id) => note!("licence of {}: {id}{link}", reference.repository()),
        None if terms.papers.is_empty() => {
            note!(
                "{} states no licence: its owner has reserved all rights",
                reference.repository()
            );
        }
        None => note!("licence of {}: as above{link}", reference.repository()),
    }
}

fn fetch(
    hub: &Hub,
    store: &Store,
    reference: &Reference,
    listing: &Listing,
    selection: &Selection,
    licence: Acceptance,
) -> anyhow::Result<()> {
    let started = Instant::now();
    let n_bytes = selection.files.iter().map(|file| file.size).sum();
    let model = model_name(reference, selection);
    note!("{model}: {}, {}", units::plural(selection.files.len(), "file"), units::bytes(n_bytes));
    let interrupt = Interrupt::install()?;
    let bar = progress::over_bytes("fetching", n_bytes);
    let last_setback = Mutex::new(String::new());
    let watch = |event: Event<'_>| {
        report(&bar, &last_setback, event);
        !interrupt.is_set()
    };
    let outcome = hub.pull(store, reference, listing, selection, licence, &watch);
    bar.finish_and_clear();
    match outcome {
        Err(HubError::Stopped) => {
            note!("stopped; the same command goes on from here");
            bail!(Interrupted)
        }
        outcome => outcome?,
    };
    let secs = units::seconds(started.elapsed().as_secs_f64());
    note!("pulled {model}: {} in {secs}", units::bytes(n_bytes));
    Ok(())
}

/// Moves the bar; tells of setbacks, the same one once.
fn report(bar: &ProgressBar, last_setback: &Mutex<String>, event: Event<'_>) {
    match event {
        Event::Fetched(n) => {
            bar.set_message("fetching");
            bar.inc(n);
        }
        Event::Present(n) => {
            bar.inc(n);
            bar.reset_eta();
        }
        Event::Lost(n) => bar.set_position(bar.position().saturating_sub(n)),
        Event::Checking(_) => bar.set_message("checking"),
        Event::Waiting(file) => {
            bar.suspend(|| note!("{file}: another puna is fetching it; waiting"));
        }
        Event::Retrying(error, pause) => {
            let pause = units::seconds(pause.as_secs_f64());
            let setback = format!("{error}; trying again in {pause}");
            let mut last = last_setback.lock().expect("no holder panics");
            if *last != setback {
                bar.suspend(|| note!("{setback}"));
                *last = setback;
            }
        }
        Event::Idle => {}
    }
}

/// Whether somebody is there to answer.
fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// The trimmed answer to a question; an end of the input is a refusal.
fn ask(question: &str) -> anyhow::Result<String> {
    let _ = io::Write::write_all(&mut anstream::stderr().lock(), question.as_bytes());
    let mut answer = String::new();
    if io::stdin().lock().read_line(&mut answer)? == 0 {
        bail!("no answer");
    }
    Ok(answer.trim().to_owned())
}
