//! `status` and `down` for a running tunnel: JSON lines over a unix socket (0600). One thread
//! answers; the worker is asked through a bounded channel and woken.

use crate::report::Report;
use postern_io::poll::Waker;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Questions that wait for the worker; the next one is told to come again.
const WAITING: usize = 8;
/// The longest question, in bytes.
const MAX_QUESTION: u64 = 4096;
/// Somebody who connects and says nothing is sent away.
const PATIENCE: Duration = Duration::from_secs(2);

/// A question to a running tunnel, and the whole protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// How it stands.
    Status,
    /// To stop. The connection ends when it has.
    Down,
}

/// Its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    /// How it stands.
    Status(Box<Report>),
    /// It is stopping.
    Stopping,
    /// It cannot answer.
    Error {
        /// Why.
        message: String,
    },
}

/// A question on its way to the worker.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub answer: SyncSender<Answer>,
}

/// Listens at `path` from a thread of its own; the questions come out of the channel.
///
/// # Errors
/// The socket or the thread cannot be made.
pub fn serve(path: &Path, waker: Waker) -> io::Result<Receiver<Question>> {
    let _ = fs::remove_file(path); // A dead predecessor's: we hold the lock.
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    let (questions, receiver) = sync_channel(WAITING);
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            // Kept open until the process ends: that is what `down` waits for.
            let mut stopping = Vec::new();
            for stream in listener.incoming().flatten() {
                if let Ok(Request::Down) = answer(&stream, &questions, &waker)
                    && stopping.len() < WAITING
                {
                    stopping.push(stream);
                }
            }
        })?;
    Ok(receiver)
}

/// Asks the tunnel that listens at `path`.
///
/// # Errors
/// Nobody listens, or what it says is no answer.
pub fn ask(path: &Path, request: Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(3 * PATIENCE))?;
    let mut line = serde_json::to_vec(&request)?;
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
    waker: &Waker,
) -> io::Result<Request> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(MAX_QUESTION)).read_line(&mut line)?;
    let request = serde_json::from_str::<Request>(&line);
    let answer = match &request {
        Ok(request) => put(*request, questions, waker),
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

fn put(request: Request, questions: &SyncSender<Question>, waker: &Waker) -> Answer {
    let (sender, receiver) = sync_channel(1);
    let busy = || Answer::Error {
        message: "the tunnel is too busy to answer".to_owned(),
    };
    match questions.try_send(Question {
        request,
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
        let questions = serve(&path, Waker::new().expect("an eventfd")).expect("listening");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let worker = std::thread::spawn(move || {
            let question = questions.recv().expect("a question");
            assert_eq!(question.request, Request::Status);
            let answer = Answer::Error {
                message: "not today".to_owned(),
            };
            question.answer.send(answer).expect("somebody waits");
        });
        let answer = ask(&path, Request::Status).expect("an answer");
        assert_eq!(
            answer,
            Answer::Error {
                message: "not today".to_owned()
            }
        );
        worker.join().expect("it answered");

        let mut stream = UnixStream::connect(&path).expect("listening");
        stream
            .write_all(b"{\"request\":\"reboot\"}\n")
            .expect("sent");
        let mut text = String::new();
        BufReader::new(stream)
            .read_line(&mut text)
            .expect("an answer");
        assert!(text.contains("not a request"), "{text}");
        fs::remove_file(&path).expect("removed");
    }
}
