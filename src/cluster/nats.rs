//! The bus between real processes: NATS, on one thread of its own. Nothing else names tokio.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, ConnectOptions, Event, Message, ServerAddr, StatusCode, Subscriber};
use futures::StreamExt;
use futures::future::poll_fn;
use futures::stream::{AbortHandle, Abortable, ReadyChunks, SelectAll};
use tokio::sync::mpsc;
use tokio::task::unconstrained;

use super::Options;
use super::node::Node;
use super::outbox::Parcel;
use super::state::TICK;
use super::wire::{ends_a_name, order};
use crate::logging::Seldom;
use crate::os::signal;

/// What everybody is told; what one process is told; what is published.
const ALL: &str = "node-lua.all";
const NODE: &str = "node-lua.node";
const TOPIC: &str = "node-lua.topic";

/// The longest pause between two attempts to connect.
const RETRY_MAX: Duration = Duration::from_millis(500);

/// How long an attempt may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);

/// Between signs of life that the server is asked for; after two without an answer it is away.
const PING: Duration = Duration::from_millis(800);

/// The most messages that are received at once.
const CHUNK: usize = 128;

/// Commands that wait for the connection.
const COMMANDS_MAX: usize = 64;

/// Starts the thread, which connects, and connects again, for as long as the process lives.
///
/// # Errors
/// Options that make no sense, or a thread that cannot be started.
pub fn start(options: &Options, node: &Arc<Node>) -> io::Result<()> {
    let (client, servers) = options.client()?;
    let client = client
        .retry_on_initial_connect()
        .no_echo()
        .connection_timeout(CONNECT_MAX)
        .ping_interval(PING)
        .client_capacity(COMMANDS_MAX)
        .reconnect_delay_callback(|tries| {
            let delay = Duration::from_millis(20 << tries.min(6));
            if tries <= 1 { Duration::ZERO } else { delay.min(RETRY_MAX) }
        });
    let node = Arc::clone(node);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        // The client's writes do not ask for silence.
        signal::keep_out_broken_pipes();
        // A server that does not keep to its protocol may be the end of a client.
        loop {
            node.subscribe_anew();
            let one = run(client.clone(), servers.clone(), &node);
            let Err(error) = runtime.block_on(unconstrained(one)) else { break };
            node.on_away(&error.to_string());
            runtime.block_on(async { tokio::time::sleep(RETRY_MAX).await });
        }
        node.finish();
    };
    std::thread::Builder::new().name("cluster".to_owned()).spawn(work).map(drop)
}

/// A subject for bytes that may be anything: what a subject cannot have is written as `%` and two
/// digits, word by word.
fn subject(prefix: &str, topic: &[u8]) -> String {
    use std::fmt::Write;
    let mut subject = format!("{prefix}.");
    for &byte in topic {
        match byte {
            b'%' | 0..=b' ' | 0x7f.. => drop(write!(subject, "%{byte:02x}")),
            _ => subject.push(byte.into()),
        }
    }
    subject
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn run(
    options: ConnectOptions,
    servers: Vec<ServerAddr>,
    node: &Arc<Node>,
) -> Result<(), Failed> {
    let (happened, mut happens) = mpsc::unbounded_channel();
    // Attempts since the last connection.
    let tries = Arc::new(AtomicUsize::new(0));
    let tried = Arc::clone(&tries);
    // Asked before each try which server is to be next, and told how the last tries have failed.
    let trying = Arc::clone(node);
    let options = options.reconnect_to_server_callback(move |servers, _| {
        let failures = servers.iter().filter_map(|server| {
            let why = server.last_error.as_ref()?;
            // A server without TLS greets in plain text, which is no TLS.
            let is_plain = why.contains("corrupt message");
            let more = if is_plain { " (it does not answer with TLS)" } else { "" };
            Some(format!("{}:{}: {why}{more}", server.addr.host(), server.addr.port()))
        });
        let mut failures: Vec<String> = failures.collect();
        // Relaxed: a count.
        if tried.fetch_add(1, Ordering::Relaxed) > 0 && failures.is_empty() {
            // That is not noted of a server.
            let hosts: Vec<&str> = servers.iter().map(|server| server.addr.host()).collect();
            failures.push(format!("no address is known of {}", hosts.join(", ")));
        }
        if !failures.is_empty() {
            trying.on_away(&failures.join("; "));
        }
        std::future::ready(None)
    });
    let options = options.event_callback(move |event| {
        if matches!(event, Event::Connected) {
            tries.store(0, Ordering::Relaxed);
        }
        // At the end of the process nobody listens.
        let _ = happened.send(event);
        std::future::ready(())
    });
    let client = options.name(node.name()).connect(servers).await?;
    let own = format!("{NODE}.{:016x}", node.id());
    let all = client.subscribe(ALL).await?;
    let inbox = client.subscribe(own.clone()).await?;
    let nobody = client.subscribe(format!("{own}.*")).await?;
    let (interests, interested) = mpsc::unbounded_channel();
    let received = receive(&client, node, &mut happens, [all, inbox, nobody], interested);
    let sent = send(&client, node, &own, interests);
    let (mut received, mut sent) = (pin!(received), pin!(sent));
    poll_fn(|cx| {
        if let Poll::Ready(result) = sent.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        received.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// Sends everything in the outbox, until the process ends.
async fn send(
    client: &Client,
    node: &Node,
    own: &str,
    interests: mpsc::UnboundedSender<(Box<[u8]>, Option<Subscriber>)>,
) -> Result<(), Failed> {
    // What counts does so until the client has all of it.
    while let Some((parcels, _held)) = poll_fn(|cx| node.poll_parcels(cx)).await {
        for parcel in parcels {
            let sent = match parcel {
                Parcel::All(bytes, false) => client.publish(ALL, bytes.into()).await,
                Parcel::All(bytes, true) => {
                    let reply = format!("{own}.all");
                    client.publish_with_reply(ALL, reply, bytes.into()).await
                }
                Parcel::Node(to, bytes) => {
                    let (subject, reply) =
                        (format!("{NODE}.{to:016x}"), format!("{own}.{to:016x}"));
                    client.publish_with_reply(subject, reply, bytes.into()).await
                }
                Parcel::Topic(topic, bytes) => {
                    client.publish(subject(TOPIC, &topic), bytes.into()).await
                }
                Parcel::Interest(pattern, begins) => {
                    let subscriber = match begins {
                        true => Some(client.subscribe(subject(TOPIC, &pattern)).await?),
                        false => None,
                    };
                    interests.send((pattern, subscriber))?;
                    Ok(())
                }
            };
            match sent {
                // It was put together for a server that took more: it is lost with that one.
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    log::debug!("cluster: {error}");
                }
                sent => sent?,
            }
        }
    }
    client.flush().await?;
    Ok(())
}

/// What a subscription to topics brings.
struct Topic {
    pattern: Arc<[u8]>,
    messages: ReadyChunks<Subscriber>,
}

impl futures::Stream for Topic {
    type Item = (Arc<[u8]>, Vec<Message>);

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        let next = self.messages.poll_next_unpin(cx);
        next.map(|chunk| chunk.map(|messages| (Arc::clone(&self.pattern), messages)))
    }
}

/// Hands on what comes: who has a name, then what was published, to all topics in the order in
/// which it was, then who has one no longer, then what this process is told. A process sends in
/// this order what somebody may rely on. It takes all that is there of each before the next, so
/// nobody may tell it that others want their turn.
async fn receive(
    client: &Client,
    node: &Node,
    happens: &mut mpsc::UnboundedReceiver<Event>,
    [all, inbox, nobody]: [Subscriber; 3],
    mut interested: mpsc::UnboundedReceiver<(Box<[u8]>, Option<Subscriber>)>,
) {
    let mut all = all.ready_chunks(CHUNK);
    let mut inbox = inbox.ready_chunks(CHUNK);
    let mut nobody = nobody.ready_chunks(CHUNK);
    let mut topics: SelectAll<Abortable<Topic>> = SelectAll::new();
    let mut ends: HashMap<Box<[u8]>, AbortHandle> = HashMap::new();
    let mut published = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_nanos(TICK));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    poll_fn(|cx| {
        loop {
            while let Poll::Ready(Some(event)) = happens.poll_recv(cx) {
                on_event(client, node, event);
            }
            while let Poll::Ready(Some((pattern, subscriber))) = interested.poll_recv(cx) {
                if let Some(before) = ends.remove(&pattern) {
                    before.abort();
                }
                if let Some(messages) = subscriber {
                    let messages = messages.ready_chunks(CHUNK);
                    let topic = Topic { pattern: (*pattern).into(), messages };
                    let (end, registration) = AbortHandle::new_pair();
                    topics.push(Abortable::new(topic, registration));
                    ends.insert(pattern, end);
                }
            }
            while let Poll::Ready(Some((pattern, messages))) = topics.poll_next_unpin(cx) {
                published.extend(messages.into_iter().map(|it| (Arc::clone(&pattern), it.payload)));
            }
            // Names that were taken before that are here by now.
            let told = match all.poll_next_unpin(cx) {
                Poll::Ready(Some(messages)) => messages,
                _ => Vec::new(),
            };
            if !told.is_empty() || !published.is_empty() {
                let ends = told.iter().position(|message| ends_a_name(&message.payload));
                let (first, last) = told.split_at(ends.unwrap_or(told.len()));
                first.iter().for_each(|message| node.on_all(&message.payload));
                if topics.len() > 1 {
                    published.sort_by_key(|(_, bytes)| order(bytes));
                }
                let topics = published.drain(..);
                topics.for_each(|(pattern, bytes)| node.on_topic(&pattern, &bytes));
                published.shrink_to(CHUNK);
                last.iter().for_each(|message| node.on_all(&message.payload));
                continue;
            }
            if let Poll::Ready(Some(messages)) = inbox.poll_next_unpin(cx) {
                messages.iter().for_each(|message| node.on_node(&message.payload));
                continue;
            }
            if let Poll::Ready(Some(messages)) = nobody.poll_next_unpin(cx) {
                messages.iter().for_each(|message| on_nobody(node, message));
                continue;
            }
            if ticks.poll_tick(cx).is_ready() {
                node.on_tick();
                continue;
            }
            return Poll::<()>::Pending;
        }
    })
    .await;
}

/// Something has happened to the connection.
fn on_event(client: &Client, node: &Node, event: Event) {
    static LOST: Seldom = Seldom::new();
    match event {
        Event::Connected => node.on_connected(client.server_info().max_payload),
        Event::Disconnected => node.on_away("the connection has ended"),
        Event::ClientError(error) => log::debug!("cluster: {error}"),
        Event::ServerError(error) => on_complaint(node, &error.to_string()),
        // There is one for each message.
        Event::SlowConsumer(_) if LOST.is_due() => {
            log::warn!("cluster: more came than could be taken: some of it is lost");
        }
        _ => {}
    }
}

/// The server is not content. Who may not speak to the others, or hear them, is not among them.
fn on_complaint(node: &Node, text: &str) {
    static COMPLAINTS: Seldom = Seldom::new();
    let is_about = |subject: &str| text.contains(&format!("\"{subject}"));
    if text.contains("Permissions Violation") && (is_about(ALL) || is_about(NODE)) {
        node.on_away(&format!("nats-server says: {text}"));
    } else if COMPLAINTS.is_due() {
        log::warn!("cluster: nats-server says: {text}");
    }
}

/// The server says that nobody has got what was sent with this reply subject.
fn on_nobody(node: &Node, message: &Message) {
    if message.status != Some(StatusCode::NO_RESPONDERS) {
        return;
    }
    match message.subject.rsplit('.').next() {
        Some("all") => node.on_nobody(None),
        Some(id) => node.on_nobody(u64::from_str_radix(id, 16).ok()),
        None => {}
    }
}
