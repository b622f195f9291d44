//! Character backends for people.

use std::{fmt::Write as _, sync::Arc};

use rhea_api::char::Handler;
use rhea_qmp::Error;

use super::table::{Call, Failure, Printed, Work};
use crate::options;

/// `info chardev`.
pub(super) fn info(call: &Call<'_>) -> Printed {
    let mut text = String::new();
    for info in Handler::query_chardev(&mut call.commands())? {
        // Writing to a string does not fail.
        let _ = write!(text, "{}: filename={}\r\n", info.label, info.filename);
    }
    Ok(text)
}

/// `chardev-add BACKEND,id=ID,...`: as the option.
pub(super) fn add(call: &Call<'_>) -> Result<Work, Failure> {
    let (id, definition) = options::chardev(call.arguments).map_err(Failure::new)?;
    let chars = Arc::clone(&call.context.chars);
    // To connect, and to wait for a client, may take long.
    let job = Box::new(move || chars.add(&id, &definition, None).map_err(Error::generic));
    Ok(Work::new(call.commands(), job, |device| match device.pty() {
        Some(path) => format!("char device redirected to {path}\r\n"),
        None => String::new(),
    }))
}

/// `ringbuf_read ID SIZE`.
pub(super) fn read_ring(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let id = line.need("string")?;
    let size = call.number(&mut line)?;
    line.end()?;
    let text = Handler::ringbuf_read(&mut call.commands(), id, i64::try_from(size).unwrap_or(i64::MAX), None)?;
    Ok(text.replace('\n', "\r\n") + "\r\n")
}

/// `ringbuf_write ID TEXT`.
pub(super) fn write_ring(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let id = line.need("string")?;
    let text = if call.arguments.contains('"') { line.need("string")? } else { line.rest().to_owned() };
    line.end()?;
    Handler::ringbuf_write(&mut call.commands(), id, text, None)?;
    Ok(String::new())
}
