//! Responses that are kept for a while: so many, so large together, the oldest going first.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use puna_tokenizer::chat::Message;
use serde_json::Value;

use crate::access::Client;

/// Most responses that are kept.
const MAX_RESPONSES: usize = 1_000;
/// Most bytes of text that they have together.
const MAX_BYTES: usize = 64 << 20;

/// A response and what was said up to it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) object: Value,
    /// Without instructions, which count for one response.
    pub(super) messages: Vec<Message>,
}

/// The responses of all clients; each sees its own.
#[derive(Debug, Default)]
pub(crate) struct Responses(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    by_id: HashMap<String, (Client, Stored, usize)>,
    /// Oldest first; deleted ones are skipped.
    order: VecDeque<String>,
    n_bytes: usize,
}

impl Books {
    fn remove(&mut self, id: &str) {
        if let Some((_, _, size)) = self.by_id.remove(id) {
            self.n_bytes -= size;
        }
    }
}

impl Responses {
    fn books(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn keep(&self, id: &str, client: Client, stored: Stored) {
        let text: usize = stored.messages.iter().map(|message| message.content.len()).sum();
        let size = id.len() + text + stored.object.to_string().len();
        let books = &mut *self.books();
        books.n_bytes += size;
        books.by_id.insert(id.to_owned(), (client, stored, size));
        books.order.push_back(id.to_owned());
        while books.order.len() > MAX_RESPONSES || books.n_bytes > MAX_BYTES {
            let Some(oldest) = books.order.pop_front() else { return };
            books.remove(&oldest);
        }
    }

    pub(super) fn find(&self, id: &str, client: Client) -> Option<Stored> {
        let books = self.books();
        let (owner, stored, _) = books.by_id.get(id)?;
        (*owner == client).then(|| stored.clone())
    }

    /// Whether there was one.
    pub(super) fn forget(&self, id: &str, client: Client) -> bool {
        let books = &mut *self.books();
        let is_own = books.by_id.get(id).is_some_and(|(owner, ..)| *owner == client);
        if is_own {
            books.remove(id);
            books.order.retain(|other| other != id);
        }
        is_own
    }
}

#[cfg(test)]
mod tests {
    use puna_tokenizer::chat::Role;

    use super::*;

    #[test]
    fn each_client_sees_its_own_and_the_oldest_goes_first() {
        let responses = Responses::default();
        let (a, b) = (Client::Key(0), Client::Key(1));
        let stored = |n_bytes| {
            let messages = vec![Message::new(Role::User, "x".repeat(n_bytes))];
            Stored { object: Value::Null, messages }
        };
        responses.keep("first", a, stored(10));
        assert!(responses.find("first", a).is_some() && responses.find("first", b).is_none());
        assert!(!responses.forget("first", b) && responses.forget("first", a));
        assert!(!responses.forget("first", a) && responses.find("first", a).is_none());
        for i in 0..=MAX_RESPONSES {
            responses.keep(&format!("r{i}"), a, stored(10));
        }
        assert!(responses.find("r0", a).is_none() && responses.find("r1", a).is_some());
        responses.keep("huge", b, stored(MAX_BYTES - 100));
        assert!(responses.find("huge", b).is_some());
        assert!(responses.find("r500", a).is_none());
        responses.keep("larger than all", b, stored(MAX_BYTES));
        assert!(responses.find("larger than all", b).is_none());
        let books = responses.books();
        assert_eq!((books.n_bytes, books.by_id.len()), (0, 0));
    }
}
