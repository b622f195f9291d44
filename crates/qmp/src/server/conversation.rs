//! One client served: reads, runs commands in order, writes what is queued, and gives way to the other clients.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::handle::SessionHandle;
use super::{Dispatcher, Execution, Job};
use crate::after::AfterAnswer;
use crate::error::Error;
use crate::events::EventSender;
use crate::message::{append_answer, append_greeting};
use crate::outbox::{Finished, Outbox};
use crate::session::{Answer, Request, Session, Step};

/// How much is read at a time.
const CHUNK: usize = 64 << 10;
/// Most commands of one client before the others get their turn.
const COMMANDS_A_TURN: usize = 64;
/// No more commands are run while more than this waits to be written.
const ENOUGH_QUEUED: usize = 1 << 20;
/// Most commands that wait for one that takes long, so that out-of-band commands behind them are seen.
const MOST_WAITING: usize = 256;
/// Most chunks of a client's last words that are thrown away.
const LAST_CHUNKS: usize = 16;

/// A client whose messages follow one another this closely waits for each answer before it goes on.
const BRISK: Duration = Duration::from_micros(200);
/// How long the next message of such a client is looked out for before the thread goes to sleep: being woken up takes
/// longer than anything else in a round trip.
const LOOKOUT: Duration = Duration::from_micros(60);

enum Turn {
    /// There is more to do, after the other clients.
    Yield,
    /// Nothing to do, but there may be in a moment.
    Lookout,
    /// The session has ended.
    Over,
}

/// A client and its session.
pub(super) struct Conversation<S> {
    stream: S,
    session: Session,
    dispatcher: Rc<dyn Dispatcher>,
    handle: SessionHandle,
    outbox: Arc<Outbox>,
    chunk: Box<[u8]>,
    /// What of `chunk` is read and not yet understood.
    unread: std::ops::Range<usize>,
    end_of_input: bool,
    /// What waits for the command that takes long, each with its length as the client sent it.
    waiting: VecDeque<(Step, usize)>,
    /// The sum of those lengths.
    waiting_bytes: usize,
    /// How much was read since the last whole message.
    message_bytes: usize,
    /// A command of this session's row is running elsewhere.
    row_is_busy: bool,
    /// Out-of-band commands that are running elsewhere.
    busy_out_of_band: usize,
    /// What is being written, and how much of it has been.
    writing: Vec<u8>,
    written: usize,
    unflushed: bool,
    /// When the client was last heard.
    heard: Option<Instant>,
    /// Its messages come briskly.
    brisk: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    pub(super) fn new(stream: S, dispatcher: Rc<dyn Dispatcher>, events: &EventSender, handle: SessionHandle) -> Self {
        let outbox = Arc::new(Outbox::default());
        outbox.append(false, |out| append_greeting(out, &dispatcher.version()));
        events.attach(&outbox);
        Self {
            stream,
            session: Session::new(),
            dispatcher,
            handle,
            outbox,
            chunk: vec![0; CHUNK].into_boxed_slice(),
            unread: 0..0,
            end_of_input: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            message_bytes: 0,
            row_is_busy: false,
            busy_out_of_band: 0,
            writing: Vec::new(),
            written: 0,
            unflushed: false,
            heard: None,
            brisk: false,
        }
    }

    /// Serves the client to the end.
    pub(super) async fn run(mut self) {
        loop {
            match poll_fn(|cx| self.poll_turn(cx)).await {
                Ok(Turn::Yield) => tokio::task::yield_now().await,
                Ok(Turn::Lookout) => {
                    // The client may be waiting for this very processor.
                    std::thread::yield_now();
                    tokio::task::yield_now().await;
                }
                Ok(Turn::Over) => break,
                Err(error) => {
                    tracing::debug!(session = self.handle.number(), %error, "connection lost");
                    return;
                }
            }
        }
        if let Err(error) = self.stream.shutdown().await {
            tracing::debug!(session = self.handle.number(), %error, "connection lost at its end");
            return;
        }
        // A socket closed with input unread may drop output that the client has not read yet.
        poll_fn(|cx| {
            for _ in 0..LAST_CHUNKS {
                match self.poll_read(cx) {
                    Poll::Ready(Ok(())) if !self.end_of_input => {}
                    _ => break,
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        let found = self.outbox.watch(cx.waker());
        if found.overflowed {
            tracing::warn!(session = self.handle.number(), "a client that does not read its events was cut off");
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        for finished in found.finished {
            self.finish(finished);
        }
        let mut closing = found.closing;
        let mut commands_left = COMMANDS_A_TURN;
        loop {
            let starved = !closing && self.run_commands(&mut commands_left);
            closing = self.outbox.closing();
            let all_written = self.poll_write(cx)?.is_ready();
            if closing {
                return if all_written { Poll::Ready(Ok(Turn::Over)) } else { Poll::Pending };
            }
            if commands_left == 0 {
                return Poll::Ready(Ok(Turn::Yield));
            }
            if !starved {
                // Held up by its own backlog or by a command that runs elsewhere.
                if all_written && self.may_go_on() {
                    continue;
                }
                return Poll::Pending;
            }
            if self.end_of_input {
                let busy = self.row_is_busy || self.busy_out_of_band > 0;
                return if all_written && !busy { Poll::Ready(Ok(Turn::Over)) } else { Poll::Pending };
            }
            if self.poll_read(cx)?.is_pending() {
                let expected = self.brisk && all_written && !self.row_is_busy;
                if expected && self.heard.is_some_and(|heard| heard.elapsed() < LOOKOUT) {
                    return Poll::Ready(Ok(Turn::Lookout));
                }
                return Poll::Pending;
            }
            let now = Instant::now();
            self.brisk = self.heard.is_some_and(|heard| now.duration_since(heard) < BRISK);
            self.heard = Some(now);
        }
    }

    /// Whether the next step may be looked at.
    fn may_go_on(&self) -> bool {
        if self.outbox.len() + self.writing.len() > ENOUGH_QUEUED {
            return false;
        }
        let room = self.waiting.len() < MOST_WAITING && self.waiting_bytes < ENOUGH_QUEUED;
        !self.row_is_busy || (self.session.out_of_band() && room)
    }

    /// Runs what can be run. True if that was everything in the chunk, so that more is wanted.
    fn run_commands(&mut self, commands_left: &mut usize) -> bool {
        while *commands_left > 0 && self.may_go_on() {
            if !self.row_is_busy
                && let Some((step, length)) = self.waiting.pop_front()
            {
                self.waiting_bytes -= length;
                *commands_left -= 1;
                self.take(step);
                if self.outbox.closing() {
                    return false;
                }
                continue;
            }
            let mut input = &self.chunk[self.unread.clone()];
            let step = self.session.next(&mut input);
            let start = self.unread.end - input.len();
            self.message_bytes += start - self.unread.start;
            self.unread.start = start;
            let Some(step) = step else { return true };
            let length = std::mem::take(&mut self.message_bytes);
            if self.row_is_busy && !step.out_of_band() {
                self.waiting_bytes += length;
                self.waiting.push_back((step, length));
                continue;
            }
            *commands_left -= 1;
            self.take(step);
            if self.outbox.closing() {
                return false;
            }
        }
        false
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Answer(Answer { result, id, .. }) => self.answer(&result, id.as_ref()),
            Step::Execute(request) => self.execute(request),
        }
    }

    fn answer(&self, result: &Result<serde_json::Value, Error>, id: Option<&serde_json::Value>) {
        self.outbox.append(self.session.negotiated(), |out| append_answer(out, result, id));
    }

    fn execute(&mut self, request: Request) {
        let checked = request.check(self.dispatcher.allows_oob(&request.command));
        let Request { command, arguments, id, out_of_band } = request;
        if let Err(error) = checked {
            return self.answer(&Err(error), id.as_ref());
        }
        tracing::trace!(session = self.handle.number(), command, "command");
        let execution = catch_unwind(AssertUnwindSafe(|| self.dispatcher.execute(&self.handle, &command, arguments)));
        match execution {
            Ok(Execution::Done(result)) => self.answer(&result, id.as_ref()),
            Ok(Execution::DoneThen(result, after)) => {
                self.answer(&result, id.as_ref());
                conclude(Some(after));
            }
            Ok(Execution::Later(job)) => self.start(&command, job, id, out_of_band, None),
            Ok(Execution::LaterThen(job, after)) => self.start(&command, job, id, out_of_band, Some(after)),
            Err(_) => self.answer(&Err(internal_failure(&command)), id.as_ref()),
        }
    }

    fn start(
        &mut self,
        command: &str,
        job: Job,
        id: Option<serde_json::Value>,
        out_of_band: bool,
        after: Option<AfterAnswer>,
    ) {
        let outbox = self.outbox.clone();
        let failure = internal_failure(command);
        let kept_id = id.clone();
        let started = std::thread::Builder::new().name("job".to_owned()).spawn(move || {
            let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or(Err(failure));
            outbox.finish(Finished { result, id, out_of_band, after });
        });
        match started {
            Ok(_) if out_of_band => self.busy_out_of_band += 1,
            Ok(_) => self.row_is_busy = true,
            Err(error) => {
                let error = Error::generic(format_args!("Could not start a thread for '{command}': {error}"));
                self.answer(&Err(error), kept_id.as_ref());
            }
        }
    }

    fn finish(&mut self, finished: Finished) {
        let Finished { result, id, out_of_band, after } = finished;
        if out_of_band {
            self.busy_out_of_band = self.busy_out_of_band.saturating_sub(1);
        } else {
            self.row_is_busy = false;
        }
        self.answer(&result, id.as_ref());
        conclude(after);
    }

    /// Ready when nothing waits to be written.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.writing.shrink_to(ENOUGH_QUEUED);
                self.written = 0;
                self.outbox.take(&mut self.writing);
                if self.writing.is_empty() {
                    break;
                }
            }
            let rest = &self.writing[self.written..];
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads a chunk; the one before must have been understood.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.handle.descriptors().keep_earlier(!self.waiting.is_empty());
        let mut buffer = ReadBuf::new(&mut self.chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        self.unread = 0..count;
        self.end_of_input = count == 0;
        Poll::Ready(Ok(()))
    }
}

/// Does what was left for after an answer.
fn conclude(after: Option<AfterAnswer>) {
    if catch_unwind(AssertUnwindSafe(|| drop(after))).is_err() {
        tracing::error!("a command failed after its answer");
    }
}

fn internal_failure(command: &str) -> Error {
    Error::generic(format_args!("The command '{command}' failed inside Rhea: this is a defect, please report it"))
}
