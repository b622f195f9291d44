//! Keys and mouse: `sendkey`, `mouse_move`, `mouse_button`, `info mice`.

use std::time::Duration;

use rhea_devices::input::{Buttons, keys};

use super::table::{Call, Failure, Printed};

/// How long keys are held unless it is said.
const HOLD: u64 = 100;
/// The longest that they can be held.
const LONGEST: u64 = 600_000;
/// The most keys at once.
const MOST: usize = 16;

/// `sendkey KEY[-KEY]... [MILLISECONDS]`: presses the keys together.
pub(super) fn send_key(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let names = line.need("string")?;
    let hold = call.number_if_any(&mut line)?.unwrap_or(HOLD);
    line.end()?;
    if hold > LONGEST {
        return Err(Failure::new(format_args!("keys are held for {LONGEST} ms at most")));
    }
    let mut pressed = Vec::new();
    for name in names.split('-') {
        pressed.push(keys::key(name).ok_or_else(|| Failure::new(format_args!("invalid parameter: {name}")))?);
    }
    if pressed.len() > MOST {
        return Err(Failure::new(format_args!("{MOST} keys are pressed together at most")));
    }
    call.context.machine.type_keys(&pressed, Duration::from_millis(hold)).map_err(Failure::new)?;
    Ok(String::new())
}

/// A distance.
fn distance(call: &Call<'_>, line: &mut rhea_hmp::Line<'_>) -> Result<i32, Failure> {
    let value = call.number(line)? as i64;
    i32::try_from(value).map_err(|_| Failure::new(format_args!("{value} is too far")))
}

/// `mouse_move RIGHT DOWN [WHEEL]`.
pub(super) fn move_mouse(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    // Words, not expressions: 1 -2 is two numbers.
    let mut next = |needed: bool| -> Result<i32, Failure> {
        match line.word()? {
            None if needed => Err(rhea_hmp::LineError::Missing("number").into()),
            None => Ok(0),
            Some(word) => distance(call, &mut rhea_hmp::Line::new(&word)),
        }
    };
    let (right, down, wheel) = (next(true)?, next(true)?, next(false)?);
    line.end()?;
    call.context.machine.move_mouse(right, down, wheel).map_err(Failure::new)?;
    Ok(String::new())
}

/// `mouse_button STATE`: 1 is the left one, 2 the middle one, 4 the right one.
pub(super) fn press_buttons(call: &Call<'_>) -> Printed {
    let mut line = call.line();
    let state = call.number(&mut line)?;
    line.end()?;
    let down = |bit: u64| state & bit != 0;
    let buttons = Buttons::new().with_left(down(1)).with_middle(down(2)).with_right(down(4));
    call.context.machine.set_mouse_buttons(buttons).map_err(Failure::new)?;
    Ok(String::new())
}

/// `info mice`.
pub(super) fn mice(call: &Call<'_>) -> Printed {
    let there = call.context.machine.has_input();
    Ok(if there { "* Mouse #0: PS/2 Mouse\r\n" } else { "No mouse devices connected\r\n" }.to_owned())
}
