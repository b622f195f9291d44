//! Options of the clock of date and time: `-rtc`.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use rhea_core::object::PropertyKind as _;
use rhea_devices::{
    lost_ticks::LostTickPolicy,
    misc::rtc::{Base, Follows, RtcOptions},
};
use rhea_machine::Global;

use super::keyval::{KeyValues, OptionError};

/// Takes `-rtc`. What is not given stays as it is. Gives what it says of all such clocks.
pub(super) fn rtc(parameters: &KeyValues, rtc: &mut RtcOptions) -> Result<Option<Global>, OptionError> {
    match parameters.get("base") {
        None => {}
        Some("utc") => rtc.base = Base::Utc,
        Some("localtime") => rtc.base = Base::LocalTime,
        Some(text) => {
            let reason = || {
                parameters.error(format!(
                    "invalid datetime format '{text}'; valid formats: '2006-06-17T16:01:21' or '2006-06-17'"
                ))
            };
            rtc.base = Base::Date(date(text).ok_or_else(reason)?);
        }
    }
    match parameters.get("clock") {
        None => {}
        Some("host") => rtc.follows = Follows::Host,
        Some("rt") => rtc.follows = Follows::Steady,
        Some("vm") => rtc.follows = Follows::Machine,
        Some(other) => return Err(parameters.error(format!("invalid option value '{other}' for clock"))),
    }
    let policy = match parameters.get("driftfix") {
        None => return Ok(None),
        Some("none") => LostTickPolicy::Discard,
        Some("slew") => LostTickPolicy::Slew,
        Some(other) => return Err(parameters.error(format!("invalid option value '{other}' for driftfix"))),
    };
    let (driver, property) = ("mc146818rtc".to_owned(), "lost_tick_policy".to_owned());
    Ok(Some(Global { driver, property, value: policy.to_value().as_str().unwrap_or_default().to_owned() }))
}

/// A date, with the time of day or without, in seconds since 1970.
fn date(text: &str) -> Option<i64> {
    // Four digits first: other years are no dates of the clock.
    text.get(..5).filter(|year| year.ends_with('-') && year[..4].bytes().all(|byte| byte.is_ascii_digit()))?;
    let time = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S");
    let time = time.or_else(|_| {
        let day = NaiveDate::parse_from_str(text, "%Y-%m-%d");
        day.map(|day| day.and_time(NaiveTime::default()))
    });
    Some(time.ok()?.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    use super::super::{Settings, parse};
    use super::*;

    fn settings(line: &str) -> Result<Settings, OptionError> {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn a_base_is_a_word_or_a_date() {
        let base = |text: &str| parse(&["-rtc".to_owned(), format!("base={text}")]).map(|settings| settings.rtc.base);
        assert_eq!(base("utc"), Ok(Base::Utc));
        assert_eq!(base("localtime"), Ok(Base::LocalTime));
        assert_eq!(base("2009-02-13T23:31:30"), Ok(Base::Date(1_234_567_890)));
        assert_eq!(base("2009-02-13"), Ok(Base::Date(1_234_483_200)));
        assert_eq!(base("1969-12-31T23:59:59"), Ok(Base::Date(-1)));
        for bad in [
            "",
            "now",
            "2009",
            "2009-02-30",
            "2009-02-13T",
            "2009-02-13T25:00:00",
            "2009-02-13 23:31:30",
            "2009-02-13T23:31:30Z",
            "+12009-02-13",
            "\u{e9}009-02-13",
        ] {
            let error = base(bad).unwrap_err().to_string();
            assert!(error.starts_with("-rtc: invalid datetime format"), "{error}");
        }
    }

    #[test]
    fn what_is_not_given_stays_as_it_is() {
        let rtc = settings("-rtc base=localtime -rtc clock=vm,driftfix=slew").unwrap().rtc;
        let expected = RtcOptions { base: Base::LocalTime, follows: Follows::Machine, ..RtcOptions::default() };
        assert_eq!(rtc, expected);
        assert_eq!(settings("-rtc clock=rt").unwrap().rtc.follows, Follows::Steady);
        assert_eq!(settings("-m 64").unwrap().rtc, RtcOptions::default());
        for bad in ["clock=tsc", "driftfix=merge", "td=1"] {
            assert!(settings(&format!("-rtc {bad}")).is_err(), "{bad}");
        }
    }
}
