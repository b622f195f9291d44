//! Options of the clock of date and time: `-rtc`, and what `-global` sets of it.

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use rhea_core::object::PropertyKind;
use rhea_devices::{
    lost_ticks::LostTickPolicy,
    misc::rtc::{Base, Follows, RtcOptions},
};

use super::keyval::{KeyValues, OptionError};

/// Takes `-rtc`. What is not given stays as it is.
pub(super) fn rtc(parameters: &KeyValues, rtc: &mut RtcOptions) -> Result<(), OptionError> {
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
    match parameters.get("driftfix") {
        None => {}
        Some("none") => rtc.lost_tick_policy = LostTickPolicy::Discard,
        Some("slew") => rtc.lost_tick_policy = LostTickPolicy::Slew,
        Some(other) => return Err(parameters.error(format!("invalid option value '{other}' for driftfix"))),
    }
    Ok(())
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

/// Takes `-global`, of which there are the clock's properties only.
pub(super) fn global(parameters: &KeyValues, rtc: &mut RtcOptions) -> Result<(), OptionError> {
    let [driver, property, value] = ["driver", "property", "value"].map(|key| parameters.require(key));
    match (driver?, property?, value?) {
        ("mc146818rtc", "lost_tick_policy", value) => {
            let policy = LostTickPolicy::from_text(value);
            rtc.lost_tick_policy = policy.ok_or_else(|| {
                parameters.error(format!("Property 'mc146818rtc.lost_tick_policy' does not accept value '{value}'"))
            })?;
            Ok(())
        }
        ("mc146818rtc", property, _) => Err(parameters.error(format!("Property 'mc146818rtc.{property}' not found"))),
        (driver, property, _) => {
            Err(parameters.error(format!("'{driver}.{property}' cannot be set for all devices of a kind")))
        }
    }
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
        let expected =
            RtcOptions { base: Base::LocalTime, follows: Follows::Machine, lost_tick_policy: LostTickPolicy::Slew };
        assert_eq!(rtc, expected);
        assert_eq!(settings("-rtc clock=rt").unwrap().rtc.follows, Follows::Steady);
        assert_eq!(settings("-m 64").unwrap().rtc, RtcOptions::default());
        for bad in ["clock=tsc", "driftfix=merge", "td=1"] {
            assert!(settings(&format!("-rtc {bad}")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_property_can_be_set_for_all_clocks_in_both_spellings() {
        let policy = |text: &str| settings(&format!("-global {text}")).map(|settings| settings.rtc.lost_tick_policy);
        assert_eq!(policy("mc146818rtc.lost_tick_policy=merge"), Ok(LostTickPolicy::Merge));
        assert_eq!(
            policy("driver=mc146818rtc,property=lost_tick_policy,value=delay").map_err(|error| error.to_string()),
            Ok(LostTickPolicy::Delay)
        );
        for bad in
            ["mc146818rtc.lost_tick_policy=never", "mc146818rtc.date=1", "isa-fdc.driveA=x", "mc146818rtc", "a.b"]
        {
            assert!(policy(bad).is_err(), "{bad}");
        }
    }
}
