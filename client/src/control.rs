//! The verbs of a running tunnel: JSON lines over a unix socket (0600, of the user who brought it
//! up). One thread accepts and a few answer; the worker is asked through a bounded channel and
//! woken, the control API through its [`Line`].

use crate::agent::Rotations;
use crate::api::{Call, CallError};
use crate::line::Line;
use crate::owner::Owner;
use crate::report::Report;
use postern_io::poll::Waker;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Questions that wait for the worker; the next one is told to come again.
const WAITING: usize = 8;
/// Connections that are answered at once: each is a thread. The next one waits.
const CONNECTIONS: usize = 16;
/// The longest question, in bytes: the code of an identity provider may be long.
const MAX_QUESTION: u64 = 64 << 10;
/// Somebody who connects and says nothing is sent away.
const PATIENCE: Duration = Duration::from_secs(2);

/// A question to a running tunnel, and the whole protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it stands.
    Status,
    /// To stop. The connection ends when it has.
    Down,
    /// To make a call of the control API.
    Api {
        /// Which.
        call: Box<Call>,
    },
    /// To renew the key. Answered when the new one is in use.
    RotateKey,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// How it stands.
    Status(Box<Report>),
    /// It is stopping.
    Stopping,
    /// It is done.
    Done,
    /// What the control API answered.
    Api {
        /// Its answer.
        value: serde_json::Value,
    },
    /// The call brought nothing.
    Refused {
        /// Why.
        why: CallError,
    },
    /// It cannot answer.
    Error {
        /// Why.
        message: String,
    },
}

/// A question on its way to the worker.
#[derive(Debug)]
pub struct Question {
    /// What is asked: how it stands, or to stop.
    pub what: Worker,
    /// Where the answer goes.
    pub answer: SyncSender<Answer>,
}

/// What only the worker can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    /// [`Request::Status`].
    Status,
    /// [`Request::Down`].
    Down,
}

/// Who answers what.
#[derive(Clone, Debug)]
pub struct Answerers {
    /// Wakes the worker.
    pub waker: Waker,
    /// Makes calls of the control API.
    pub line: Line,
    /// Renews the key.
    pub rotations: Rotations,
}

/// The socket, before anybody answers. The file goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Listens at `path`, which `owner` may use and nobody else. To be called before privileges
    /// are dropped.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn bind(path: &Path, owner: &Owner) -> io::Result<Socket> {
        let _ = fs::remove_file(path); // A dead predecessor's: we hold the lock.
        let socket = Socket {
            listener: UnixListener::bind(path)?,
            path: path.to_owned(),
        };
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        if owner.is_another() {
            std::os::unix::fs::chown(path, Some(owner.uid), Some(owner.gid))?;
        }
        Ok(socket)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers from threads of its own; the questions for the worker come out of the channel.
///
/// # Errors
/// The thread cannot be made.
pub fn serve(socket: &Socket, answerers: Answerers) -> io::Result<Receiver<Question>> {
    let listener = socket.listener.try_clone()?;
    let (questions, receiver) = sync_channel(WAITING);
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            let busy = Arc::new(AtomicUsize::new(0));
            for stream in listener.incoming().flatten() {
                if busy.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS {
                    busy.fetch_sub(1, Ordering::AcqRel);
                    continue; // Closed at once: come again.
                }
                let (questions, answerers) = (questions.clone(), answerers.clone());
                let done = Arc::clone(&busy);
                let thread = std::thread::Builder::new()
                    .name("control".to_owned())
                    .spawn(move || {
                        if let Ok(Request::Down) = answer(&stream, &questions, &answerers) {
                            // Kept open until the process ends: that is what `down` waits for.
                            std::mem::forget(stream);
                        }
                        done.fetch_sub(1, Ordering::AcqRel);
                    });
                if thread.is_err() {
                    busy.fetch_sub(1, Ordering::AcqRel);
                }
            }
        })?;
    Ok(receiver)
}

/// Asks the tunnel that listens at `path`.
///
/// # Errors
/// Nobody listens, or what it says is no answer.
pub fn ask(path: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    let patience = match request {
        Request::Status | Request::Down => 3 * PATIENCE,
        Request::Api { .. } => Duration::from_secs(30),
        Request::RotateKey => Duration::from_secs(200),
    };
    stream.set_read_timeout(Some(patience))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reader = BufReader::new(stream);
    let mut text = String::new();
    reader.read_line(&mut text)?;
    let answer = serde_json::from_str(&text)?;
    if answer == Answer::Stopping {
        // Until the process has put everything back and ended.
        reader
            .get_ref()
            .set_read_timeout(Some(Duration::from_secs(30)))?;
        reader.read_to_string(&mut text)?;
    }
    Ok(answer)
}

fn answer(
    stream: &UnixStream,
    questions: &SyncSender<Question>,
    answerers: &Answerers,
) -> io::Result<Request> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_QUESTION)).read_line(&mut line)?;
    let request = serde_json::from_str::<Request>(&line);
    let answer = match &request {
        Ok(Request::Status) => put(Worker::Status, questions, &answerers.waker),
        Ok(Request::Down) => put(Worker::Down, questions, &answerers.waker),
        Ok(Request::Api { call }) => match answerers.line.ask(Call::clone(call)) {
            Ok(value) => Answer::Api { value },
            Err(why) => Answer::Refused { why },
        },
        Ok(Request::RotateKey) => match answerers.rotations.rotate() {
            Ok(()) => Answer::Done,
            Err(message) => Answer::Error { message },
        },
        Err(error) => Answer::Error {
            message: format!("not a request: {error}"),
        },
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    let mut stream = stream;
    stream.write_all(&text)?;
    Ok(request?)
}

fn put(what: Worker, questions: &SyncSender<Question>, waker: &Waker) -> Answer {
    let (sender, receiver) = sync_channel(1);
    let busy = || Answer::Error {
        message: "the tunnel is too busy to answer".to_owned(),
    };
    match questions.try_send(Question {
        what,
        answer: sender,
    }) {
        Ok(()) => {
            waker.wake();
            receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| busy())
        }
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => busy(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_answered_and_nonsense_is_refused() {
        let path = std::env::temp_dir().join(format!("postern-control-{}", std::process::id()));
        let socket = Socket::bind(&path, &Owner::invoking()).expect("listening");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (line, _calls) = Line::new();
        let answerers = Answerers {
            waker: Waker::new().expect("an eventfd"),
            line,
            rotations: Rotations::nowhere(),
        };
        let questions = serve(&socket, answerers).expect("serving");

        let worker = std::thread::spawn(move || {
            let question = questions.recv().expect("a question");
            assert_eq!(question.what, Worker::Status);
            let answer = Answer::Error {
                message: "not today".to_owned(),
            };
            question.answer.send(answer).expect("somebody waits");
        });
        let answer = ask(&path, &Request::Status).expect("an answer");
        assert_eq!(
            answer,
            Answer::Error {
                message: "not today".to_owned()
            }
        );
        worker.join().expect("answered");
        let answer = ask(&path, &Request::RotateKey).expect("an answer");
        assert!(matches!(answer, Answer::Error { .. }), "{answer:?}");

        let mut stream = UnixStream::connect(&path).expect("listening");
        stream.write_all(b"{\"request\":\"root\"}\n").expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        assert!(text.contains("not a request"), "{text}");
        drop(socket);
        assert!(!path.exists());
    }
}
