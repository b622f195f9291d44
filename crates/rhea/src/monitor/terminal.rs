//! The terminal that a serial port and a monitor share: Ctrl-a is the way to say which is meant.

use rhea_api::run_state::ShutdownCause;
use rhea_backends::char::Port;
use rhea_machine::GuestRequest;
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

use super::SharedTerminal;
use crate::{commands::Context, human};

/// What the end of the terminal's input does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndOfInput {
    /// The machine goes on, and so does its output.
    GoesOn,
    /// The program ends.
    Ends,
}

const HELP: &str = "\r\nC-a h    print this help\r\nC-a x    exit\r\nC-a c    switch between console and monitor\r\n\
                    C-a C-a  send C-a\r\n";
const ESCAPE: u8 = 0x01;

#[derive(Default)]
struct Switch {
    escaped: bool,
    monitor: bool,
    greeted: bool,
}

/// What a piece of input means.
enum Meaning {
    /// Bytes for the side that is chosen.
    Bytes(Vec<u8>),
    Print(&'static str),
    Switched,
    Exit,
}

impl Switch {
    fn take(&mut self, input: &[u8]) -> Vec<Meaning> {
        let mut meanings = Vec::new();
        let mut plain = Vec::new();
        for &byte in input {
            if !std::mem::take(&mut self.escaped) {
                if byte == ESCAPE {
                    self.escaped = true;
                } else {
                    plain.push(byte);
                }
                continue;
            }
            if byte == ESCAPE {
                plain.push(byte);
                continue;
            }
            if !plain.is_empty() {
                meanings.push(Meaning::Bytes(std::mem::take(&mut plain)));
            }
            match byte {
                b'h' | b'?' => meanings.push(Meaning::Print(HELP)),
                b'x' => meanings.push(Meaning::Exit),
                b'c' => {
                    self.monitor = !self.monitor;
                    meanings.push(Meaning::Switched);
                }
                _ => {}
            }
        }
        if !plain.is_empty() {
            meanings.push(Meaning::Bytes(plain));
        }
        meanings
    }
}

/// Serves the terminal until its output ends.
pub(super) async fn serve(mut terminal: SharedTerminal, context: Context) {
    let room = Arc::new(Notify::new());
    let waker = Arc::clone(&room);
    terminal.port.on_room(Box::new(move || waker.notify_one()));
    let Ok((Some(connection), _)) = terminal.backend.connections() else { return };
    let (mut reader, mut writer) = tokio::io::split(connection);
    let mut switch = Switch::default();
    let mut session = human::Session::default();
    let mut bytes = [0; 4096];
    let mut ended = false;
    loop {
        let mut print = Vec::new();
        tokio::select! {
            output = terminal.output.take() => print = output,
            count = reader.read(&mut bytes), if !ended => match count {
                Ok(count) if count > 0 => {
                    for meaning in switch.take(&bytes[..count]) {
                        match meaning {
                            Meaning::Bytes(input) if switch.monitor => {
                                print.extend(session.take(&context, &input).0.into_bytes());
                            }
                            Meaning::Bytes(input) => {
                                deliver(&input, &*terminal.port, &room, &terminal, &mut writer).await;
                            }
                            Meaning::Print(text) => print.extend_from_slice(text.as_bytes()),
                            Meaning::Switched if switch.monitor && !switch.greeted => {
                                switch.greeted = true;
                                print.extend_from_slice(b"\r\n");
                                print.extend(session.greeting().into_bytes());
                            }
                            Meaning::Switched => print.extend_from_slice(b"\r\n"),
                            Meaning::Exit => context.machine.request(GuestRequest::Shutdown(ShutdownCause::HostUi)),
                        }
                    }
                }
                _ => {
                    ended = true;
                    if terminal.end_of_input == EndOfInput::Ends {
                        context.machine.request(GuestRequest::Shutdown(ShutdownCause::HostUi));
                    }
                }
            },
        }
        if !print.is_empty() && writer.write_all(&print).await.is_err() {
            return;
        }
    }
}

/// Gives input to the serial port; while that is full, its output goes on, for the guest may wait for that.
async fn deliver(
    mut input: &[u8],
    port: &dyn Port,
    room: &Notify,
    terminal: &SharedTerminal,
    writer: &mut (impl AsyncWriteExt + Unpin),
) {
    while !input.is_empty() {
        let taken = port.receive(input);
        input = &input[taken..];
        if taken == 0 {
            tokio::select! {
                () = room.notified() => {}
                output = terminal.output.take() => {
                    if writer.write_all(&output).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_a_switches_and_twice_is_itself() {
        let mut switch = Switch::default();
        let plain = |meanings: Vec<Meaning>| {
            meanings
                .into_iter()
                .map(|meaning| match meaning {
                    Meaning::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
                    Meaning::Print(_) => "help".into(),
                    Meaning::Switched => "switch".into(),
                    Meaning::Exit => "exit".into(),
                })
                .collect::<Vec<String>>()
        };
        assert_eq!(plain(switch.take(b"a\x01")), ["a"]);
        assert_eq!(plain(switch.take(b"cb\x01\x01\x01hd\x01x")), ["switch", "b\x01", "help", "d", "exit"]);
        assert!(switch.monitor);
    }
}
