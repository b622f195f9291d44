//! What may begin when, to the nanosecond.

use proptest::prelude::*;

use super::*;

const A: Asker = (1, 0);
const B: Asker = (2, 0);

fn limits(values: &[(&str, i64)]) -> Limits {
    let mut limits = Limits::default();
    values.iter().for_each(|(name, value)| limits.set(name, *value).unwrap());
    limits
}

fn throttle(values: &[(&str, i64)]) -> Throttle {
    let limits = limits(values);
    limits.check().unwrap();
    Throttle::new(limits)
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A request: whether it begins, or else when to ask again.
fn ask(throttle: &mut Throttle, now: Duration, asker: Asker, write: bool, bytes: u64) -> Option<Duration> {
    let due = throttle.check(now, asker, write);
    if due.is_none() {
        throttle.charge(asker, write, bytes);
    }
    due
}

#[test]
fn a_tenth_of_a_second_may_be_done_at_once_and_the_rest_leaks_out() {
    let mut throttle = throttle(&[("bps-total", 1000)]);
    assert_eq!(ask(&mut throttle, ms(0), A, true, 100), None);
    assert_eq!(ask(&mut throttle, ms(0), A, false, 1000), None, "it is at the brim, not above");
    assert_eq!(ask(&mut throttle, ms(0), A, true, 1), Some(ms(1000)));
    assert_eq!(ask(&mut throttle, ms(999), A, true, 1), Some(ms(1000)));
    assert_eq!(ask(&mut throttle, ms(1000), A, true, 1), None);
    assert_eq!(ask(&mut throttle, ms(1000), A, true, 1), Some(ms(1001)));
    // What leaked is not saved up.
    assert_eq!(ask(&mut throttle, ms(100_000), A, true, 101), None);
    assert_eq!(ask(&mut throttle, ms(100_000), A, true, 1), Some(ms(100_001)));
}

#[test]
fn a_burst_of_a_second_is_done_at_once_and_a_longer_one_at_its_rate() {
    let mut short = throttle(&[("iops-total", 10), ("iops-total-max", 50)]);
    let begun = (0..100).take_while(|_| ask(&mut short, ms(0), A, true, 4096).is_none()).count();
    assert_eq!(begun, 51);
    assert_eq!(ask(&mut short, ms(0), A, true, 4096), Some(ms(100)));
    let mut long = throttle(&[("iops-total", 10), ("iops-total-max", 50), ("iops-total-max-length", 3)]);
    let (mut now, mut at_rate) = (ms(0), 0);
    while now < ms(3000) {
        match ask(&mut long, now, A, true, 1) {
            None => at_rate += 1,
            Some(due) => now = due,
        }
    }
    assert!((150..=157).contains(&at_rate), "{at_rate} in three seconds");
}

#[test]
fn reads_and_writes_have_limits_of_their_own_and_large_requests_count_more() {
    let mut throttle = throttle(&[("iops-read", 10), ("bps-write", 1000), ("iops-size", 100)]);
    assert_eq!(ask(&mut throttle, ms(0), A, false, 250), None);
    assert_eq!(ask(&mut throttle, ms(0), A, false, 1), Some(ms(150)), "2.5 operations, one of which is free");
    assert_eq!(ask(&mut throttle, ms(0), B, true, 1100), None);
    assert_eq!(ask(&mut throttle, ms(0), B, true, 1), Some(ms(1000)));
}

#[test]
fn those_who_wait_come_in_order_and_nobody_waits_long_for_someone_who_does_not_come() {
    let mut throttle = throttle(&[("bps-total", 1000)]);
    assert_eq!(ask(&mut throttle, ms(0), A, true, 1100), None);
    assert_eq!(ask(&mut throttle, ms(0), B, true, 1000), Some(ms(1000)));
    assert_eq!(ask(&mut throttle, ms(0), A, true, 1000), Some(ms(1000)));
    assert_eq!(ask(&mut throttle, ms(1000), A, true, 1000), Some(ms(1001)), "after the other");
    assert_eq!(ask(&mut throttle, ms(1000), B, true, 1000), None);
    assert_eq!(ask(&mut throttle, ms(1001), B, true, 1000), Some(ms(2000) - ms(100) + ms(100)));
    assert_eq!(ask(&mut throttle, ms(2000), B, true, 1000), None, "the other's turn has passed");
}

#[test]
fn a_changed_limit_begins_anew_and_others_go_on() {
    let mut throttle = throttle(&[("bps-total", 10), ("iops-total", 1)]);
    assert_eq!(ask(&mut throttle, ms(0), A, true, 1000), None);
    assert!(ask(&mut throttle, ms(0), A, true, 1).unwrap() > ms(90_000));
    throttle.set_limits(limits(&[("bps-total", 100), ("iops-total", 1)]), ms(0));
    assert_eq!(ask(&mut throttle, ms(0), A, true, 1), Some(ms(900)));
    throttle.set_limits(Limits::default(), ms(0));
    assert_eq!(ask(&mut throttle, ms(0), A, true, u64::MAX), None);
}

#[test]
fn what_limits_cannot_be_is_said() {
    use LimitError::{LengthAlone, MaxAlone, MaxBelow, NoLength, OperationAlone, TooLong, TotalAndPart};
    for (values, error) in [
        (&[("iops-total", 5), ("iops-write", 5)][..], TotalAndPart),
        (&[("bps-total", 5), ("bps-read", 5)], TotalAndPart),
        (&[("iops-size", 5), ("bps-read", 5)], OperationAlone),
        (&[("bps-read", 5), ("bps-read-max", 6), ("bps-read-max-length", 0)], NoLength),
        (&[("bps-read", 5), ("bps-read-max-length", 2)], LengthAlone),
        (&[("bps-write-max", 5)], MaxAlone),
        (&[("bps-write", 6), ("bps-write-max", 5)], MaxBelow),
        (&[("iops-read", 6), ("iops-read-max", 1_000_000_000_000), ("iops-read-max-length", 1001)], TooLong),
    ] {
        assert_eq!(limits(values).check(), Err(error));
    }
    let mut limits = limits(&[("bps-total", 5), ("iops-read", 5)]);
    assert_eq!(limits.check(), Ok(()));
    assert_eq!(limits.set("bps-read", -1), Err(LimitError::Range));
    assert_eq!(limits.set("bps-read", i64::MAX), Err(LimitError::Range));
    let name = "bps-read-max-length".to_owned();
    assert_eq!(limits.set("bps-read-max-length", 1 << 32), Err(LimitError::LengthRange(name)));
    assert_eq!(limits.set("wings", 1), Err(LimitError::Unknown("wings".into())));
    for (value, name) in (2..).zip(LIMIT_NAMES) {
        limits.set(name, value).unwrap();
        assert_eq!(limits.get(name), u64::try_from(value).ok());
    }
}

proptest! {
    /// However requests come, no more is done in a time than the limits say, but for one request that is under way; and
    /// whoever comes when he was told to finds that he may go on.
    #[test]
    fn no_more_is_done_than_is_allowed(
        average in 1..1_000_000_u64, factor in 0..20_u64, length in 1..20_u64,
        requests in prop::collection::vec((1..100_000_u64, 0..200_u64, any::<bool>()), 1..200),
    ) {
        let max = average * factor;
        let length = if max == 0 { 1 } else { length };
        let values = [("bps-total", average), ("bps-total-max", max), ("bps-total-max-length", length)];
        let mut throttle = throttle(&values.map(|(name, value)| (name, value as i64)));
        let (mut now, mut done, mut largest) = (ms(0), 0_u128, 0_u128);
        for (bytes, pause, write) in requests {
            now += ms(pause);
            if let Some(due) = throttle.check(now, A, write) {
                prop_assert!(due > now);
                now = due;
                prop_assert_eq!(throttle.check(now, A, write), None);
            }
            throttle.charge(A, write, bytes);
            done += u128::from(bytes);
            largest = largest.max(bytes.into());
            let [average, max, length] = [average, max, length].map(u128::from);
            let brim = if max == 0 { average / 10 } else { max * length };
            let leaked = average * now.as_nanos() / BILLION;
            prop_assert!(done <= leaked + brim + largest + 2);
            if length > 1 {
                prop_assert!(done <= max * now.as_nanos() / BILLION + max / 10 + largest + 2);
            }
        }
    }

    /// Several who share limits get the same share of them.
    #[test]
    fn nobody_starves(rate in 10..10_000_u64, size in 1..50_000_u64, disks in 2..6_usize) {
        let mut throttle = throttle(&[("bps-total", rate as i64)]);
        let mut times = vec![ms(0); disks];
        let mut counts = vec![0_u32; disks];
        for _ in 0..20_000 {
            // The first of those whose time has come, as on one thread.
            let first = (0..disks).min_by_key(|disk| times[*disk]).unwrap();
            match ask(&mut throttle, times[first], (first, 0), true, size) {
                None => counts[first] += 1,
                Some(due) => times[first] = due,
            }
            if counts.iter().sum::<u32>() > 100 {
                break;
            }
        }
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        // The first may begin as much as is at once.
        let at_once = (rate / 10 / size) as u32 + 2;
        prop_assert!(most - least <= at_once, "{counts:?}");
    }
}
