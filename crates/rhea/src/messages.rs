//! What the program says on its standard error about its own end, and what stands before it.

use std::fmt;

use chrono::{SecondsFormat, Utc};
use parking_lot::Mutex;

use crate::options::Messages;

/// What stands before messages.
struct Prefix {
    timestamp: bool,
    guest: Option<String>,
}

static PREFIX: Mutex<Prefix> = Mutex::new(Prefix { timestamp: false, guest: None });

/// From here on messages have before them what `messages` says; `guest` is the guest's name.
pub fn configure(messages: Messages, guest: Option<&str>) {
    let Messages { timestamp, guest_name } = messages;
    let guest = guest.filter(|_| guest_name).map(str::to_owned);
    *PREFIX.lock() = Prefix { timestamp, guest };
}

/// Says why the program cannot go on.
pub fn error(reason: &anyhow::Error) {
    let prefix = PREFIX.lock();
    eprintln!("{prefix}rhea: {reason:#}");
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timestamp, guest } = self;
        if *timestamp {
            write!(f, "{} ", Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true))?;
        }
        guest.iter().try_for_each(|guest| write!(f, "{guest} "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_name_stand_before_the_program() {
        let shown = |timestamp, guest: Option<&str>| Prefix { timestamp, guest: guest.map(str::to_owned) }.to_string();
        assert_eq!(shown(false, None), "");
        assert_eq!(shown(false, Some("web")), "web ");
        let both = shown(true, Some("web"));
        let [time, name, ""] = both.split(' ').collect::<Vec<_>>()[..] else { panic!("{both}") };
        assert!(
            chrono::DateTime::parse_from_rfc3339(time).is_ok() && time.ends_with('Z') && time.len() == 27,
            "{time}"
        );
        assert_eq!(name, "web");
    }
}
