//! Trace events, for people.

use rhea_api::trace::{Handler, TraceEventState};

use super::table::{Call, Failure, Printed};

/// `trace-event NAME on|off`.
pub(super) fn switch(call: &Call<'_>) -> Printed {
    let (name, enable) = match call.arguments.split_whitespace().collect::<Vec<_>>()[..] {
        [name, "on"] => (name, true),
        [name, "off"] => (name, false),
        _ => return Err(Failure::new("trace-event needs a name or a pattern, and on or off")),
    };
    Handler::trace_event_set_state(&mut call.commands(), name.to_owned(), enable, None, None)?;
    Ok(String::new())
}

/// `info trace-events [NAME]`.
pub(super) fn show(call: &Call<'_>) -> Printed {
    let name = if call.arguments.is_empty() { "*" } else { call.arguments };
    let events = Handler::trace_event_get_state(&mut call.commands(), name.to_owned(), None)?;
    let line = |event: &rhea_api::trace::TraceEventInfo| {
        format!("{} : state {}\r\n", event.name, u8::from(event.state == TraceEventState::Enabled))
    };
    Ok(events.iter().map(line).collect())
}
