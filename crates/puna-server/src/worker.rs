//! One thread for each model: it owns the engine, takes requests between two steps, and sends back what came out.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use puna_engine::{
    Constraint, Engine, Event, FinishReason, Forward, Load, Logprobs, Request, RequestId,
    SubmitError, Usage,
};
use tokio::sync::mpsc::UnboundedSender;

/// What the engine is to do for one ticket.
pub(crate) enum Work {
    /// Continue a prompt.
    Answer { request: Request, constraint: Option<Box<dyn Constraint>> },
    /// Read a text for its hidden states.
    Hidden(Vec<u32>),
}

/// What comes back.
#[derive(Debug)]
pub(crate) enum Reply {
    Token {
        token: u32,
        logprobs: Option<Logprobs>,
        /// When it was drawn: whoever reads the replies may be late.
        at: Instant,
    },
    Hidden(Vec<f32>),
    Finished {
        reason: FinishReason,
        usage: Usage,
    },
    Refused(SubmitError),
    /// The engine cannot go on; it says why.
    Broken(String),
}

/// Where a request's replies go. Several requests may share a channel; `index` tells them apart. A request sends at most
/// as many replies as the context has tokens, so a reader that is slow costs little.
pub(crate) struct Route {
    pub(crate) index: usize,
    pub(crate) sender: UnboundedSender<(usize, Reply)>,
}

/// Names a request before the engine has seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

enum Command {
    Submit(Ticket, Work, Route),
    Cancel(Ticket),
}

/// A model's thread, seen from outside.
#[derive(Clone)]
pub(crate) struct Worker {
    commands: Sender<Command>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    last_ticket: AtomicU64,
    load: Mutex<Load>,
    is_broken: AtomicBool,
}

/// Looks after each step whether the model's files are still what they were.
pub(crate) type Watch = Box<dyn FnMut() -> Result<(), String> + Send>;

impl Worker {
    /// Starts the thread; it ends when the last `Worker` is dropped and its requests are done.
    pub(crate) fn start<F: Forward + Send + 'static>(
        name: &str,
        engine: Engine<F>,
        watch: Watch,
    ) -> std::io::Result<Self> {
        let (commands, receiver) = channel();
        let shared = Arc::new(Shared::default());
        *locked(&shared.load) = engine.load();
        let inside = Inside {
            engine,
            watch,
            receiver,
            shared: Arc::clone(&shared),
            routes: BTreeMap::new(),
            ids: BTreeMap::new(),
        };
        thread::Builder::new().name(format!("puna {name}")).spawn(move || inside.work())?;
        Ok(Self { commands, shared })
    }

    /// Hands work to the engine.
    pub(crate) fn submit(&self, work: Work, route: Route) -> Ticket {
        let ticket = Ticket(self.shared.last_ticket.fetch_add(1, Ordering::Relaxed));
        if let Err(refused) = self.commands.send(Command::Submit(ticket, work, route))
            && let Command::Submit(_, _, route) = refused.0
        {
            let _ = route.sender.send((route.index, Reply::Broken("the engine has ended".into())));
        }
        ticket
    }

    /// Ends the request, if it has not ended; its blocks are free before the next step.
    pub(crate) fn cancel(&self, ticket: Ticket) {
        let _ = self.commands.send(Command::Cancel(ticket));
    }

    /// How busy the engine was after its last step.
    pub(crate) fn load(&self) -> Load {
        *locked(&self.shared.load)
    }

    /// Whether the engine has given up.
    pub(crate) fn is_broken(&self) -> bool {
        self.shared.is_broken.load(Ordering::Relaxed)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the thread has.
struct Inside<F> {
    engine: Engine<F>,
    watch: Watch,
    receiver: Receiver<Command>,
    shared: Arc<Shared>,
    routes: BTreeMap<RequestId, (Ticket, Route)>,
    ids: BTreeMap<Ticket, RequestId>,
}

impl<F: Forward> Inside<F> {
    fn work(mut self) {
        loop {
            if self.engine.is_idle() {
                let Ok(command) = self.receiver.recv() else { return };
                self.take(command);
            }
            while let Ok(command) = self.receiver.try_recv() {
                self.take(command);
            }
            let stepped = catch_unwind(AssertUnwindSafe(|| self.engine.step()));
            let outcome = match stepped {
                Ok(events) => (self.watch)().map(|()| events),
                Err(panic) => Err(panic_text(&*panic)),
            };
            match outcome {
                Ok(events) => {
                    *locked(&self.shared.load) = self.engine.load();
                    let now = Instant::now();
                    events.into_iter().for_each(|event| self.send(event, now));
                }
                Err(why) => return self.give_up(&why),
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(ticket, work, route) => {
                let submitted = match work {
                    Work::Answer { request, constraint } => {
                        self.engine.submit_constrained(request, constraint)
                    }
                    Work::Hidden(text) => self.engine.submit_hidden(text),
                };
                match submitted {
                    Ok(id) => {
                        self.routes.insert(id, (ticket, route));
                        self.ids.insert(ticket, id);
                    }
                    Err(error) => {
                        let _ = route.sender.send((route.index, Reply::Refused(error)));
                    }
                }
            }
            Command::Cancel(ticket) => {
                if let Some(&id) = self.ids.get(&ticket) {
                    self.engine.cancel(id);
                }
            }
        }
    }

    fn send(&mut self, event: Event, at: Instant) {
        let (id, reply) = match event {
            Event::Token { id, token, logprobs } => (id, Reply::Token { token, logprobs, at }),
            Event::Hidden { id, rows } => (id, Reply::Hidden(rows)),
            Event::Finished { id, reason, usage } => (id, Reply::Finished { reason, usage }),
        };
        let is_last = matches!(reply, Reply::Finished { .. });
        let Some((ticket, route)) = self.routes.get(&id) else { return };
        let listens = route.sender.send((route.index, reply)).is_ok();
        if is_last {
            self.ids.remove(ticket);
            self.routes.remove(&id);
        } else if !listens {
            self.engine.cancel(id);
        }
    }

    /// Tells everybody, now and later.
    fn give_up(mut self, why: &str) {
        self.shared.is_broken.store(true, Ordering::Relaxed);
        let broken = |route: &Route| {
            let _ = route.sender.send((route.index, Reply::Broken(why.to_owned())));
        };
        self.routes.values().for_each(|(_, route)| broken(route));
        self.routes.clear();
        *locked(&self.shared.load) = Load::default();
        while let Ok(command) = self.receiver.recv() {
            if let Command::Submit(_, _, route) = command {
                broken(&route);
            }
        }
    }
}

/// What a panic says of itself.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}
