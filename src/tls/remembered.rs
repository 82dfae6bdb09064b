//! The sessions that clients remember in contexts with a memory limit. Servers choose how large
//! these are, and rustls does not tell: so there are few of them, and each counts as the largest.

use std::collections::VecDeque;
use std::sync::Mutex;

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

use crate::sync::lock;

/// The most bytes of a session: a ticket, and the certificates of the server.
pub(super) const SESSION_BYTES: usize = 128 << 10;

/// The last session with each of a bounded number of servers.
#[derive(Debug)]
pub(super) struct BoundedSessions {
    max: usize,
    servers: Mutex<VecDeque<Server>>,
}

#[derive(Debug)]
struct Server {
    name: ServerName<'static>,
    group: Option<NamedGroup>,
    session: Session,
}

#[derive(Debug, Default)]
enum Session {
    #[default]
    None,
    Tls12(Tls12ClientSessionValue),
    Tls13(Tls13ClientSessionValue),
}

impl BoundedSessions {
    pub(super) fn new(max: usize) -> BoundedSessions {
        BoundedSessions { max, servers: Mutex::default() }
    }

    /// Calls `look` with a server, if it is remembered.
    fn of<R>(
        &self,
        name: &ServerName<'_>,
        look: impl FnOnce(&mut Server) -> Option<R>,
    ) -> Option<R> {
        let mut servers = lock(&self.servers);
        look(servers.iter_mut().find(|server| server.name == *name)?)
    }

    /// Changes what is remembered of a server; the oldest is forgotten if there are too many.
    fn change(&self, name: ServerName<'static>, change: impl FnOnce(&mut Server)) {
        let mut servers = lock(&self.servers);
        if let Some(server) = servers.iter_mut().find(|server| server.name == name) {
            return change(server);
        }
        while servers.len() >= self.max {
            servers.pop_front();
        }
        let mut server = Server { name, group: None, session: Session::None };
        change(&mut server);
        servers.push_back(server);
    }
}

impl ClientSessionStore for BoundedSessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.change(name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.of(name, |server| server.group)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.change(name, |server| server.session = Session::Tls12(value));
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.of(name, |server| match &server.session {
            Session::Tls12(value) => Some(value.clone()),
            _ => None,
        })
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.of(name, |server| {
            if matches!(server.session, Session::Tls12(_)) {
                server.session = Session::None;
            }
            Some(())
        });
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.change(name, |server| server.session = Session::Tls13(value));
    }

    /// A ticket is good for one session.
    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.of(name, |server| match std::mem::take(&mut server.session) {
            Session::Tls13(value) => Some(value),
            other => {
                server.session = other;
                None
            }
        })
    }
}
