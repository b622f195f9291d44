//! The periodic interrupt of the CMOS clock, and what becomes of ticks that the guest did not take in time.
//!
//! Source: Motorola MC146818A data sheet, table 5. A tick is taken when register C is read. A tick that comes while
//! another one waits there is lost on hardware; here the policy decides.

use rhea_core::Instant;

use super::chip::{CRYSTAL, Moment, RegisterC, Rtc};
use crate::lost_ticks::LostTickPolicy;

/// The longest period, in ticks of the crystal; it is a multiple of all others.
pub(super) const LONGEST: u64 = 1 << 14;
/// A tick that is caught up comes this fraction of a period after the one before was taken.
const CATCH_UP: u64 = 4;

impl Rtc {
    /// Ticks of the crystal between two periodic interrupts, if the divider runs and a rate is chosen.
    pub(super) fn period(&self) -> Option<u64> {
        match self.a & 0xf {
            _ if !self.divider_runs() => None,
            0 => None,
            1 => Some(128),
            2 => Some(256),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Periods that have begun up to `at`.
    fn begun(&self, at: Instant, period: u64) -> u64 {
        (at.ticks(CRYSTAL) + period - self.phase % period) / period
    }

    /// Lets ticks come from when they were last looked at up to `now`.
    pub(super) fn pass_ticks(&mut self, now: Moment) {
        let Some(period) = self.period() else { return };
        let on_beat = self.begun(now.machine, period) - self.begun(self.seen.machine, period);
        let caught_up = self.due.take_if(|due| *due <= now.machine.ticks(CRYSTAL)).is_some();
        let mut owed = u64::from(self.owed) + on_beat;
        let flags = RegisterC::from(self.c);
        if !flags.periodic() && (on_beat > 0 || caught_up) {
            self.c = flags.with_periodic(true).into();
            owed = owed.saturating_sub(1);
        }
        if self.b().periodic_enable() && self.policy != LostTickPolicy::Discard {
            self.owed = u32::try_from(owed).unwrap_or(u32::MAX);
        }
    }

    /// The guest has taken a tick: says when the next of those that are owed comes.
    pub(super) fn take_tick(&mut self, now: Moment) {
        let Some(period) = self.period().filter(|_| self.owed > 0) else { return };
        let now = now.machine.ticks(CRYSTAL);
        match self.policy {
            LostTickPolicy::Discard => {}
            LostTickPolicy::Delay => {
                self.phase = now % LONGEST;
                self.owed = 0;
            }
            LostTickPolicy::Merge => {
                self.owed = 1;
                // Not at once: between two interrupts the line falls.
                self.due = Some(now + 1);
            }
            LostTickPolicy::Slew => self.due = Some(now + (period / CATCH_UP).max(1)),
        }
    }

    /// After registers A or B changed: what is owed is a length of time, in ticks of the new period.
    pub(super) fn change_period(&mut self, before: Option<u64>) {
        match (before, self.period()) {
            (Some(before), Some(now)) if self.b().periodic_enable() => {
                let owed = u64::from(self.owed) * before / now;
                self.owed = u32::try_from(owed).unwrap_or(u32::MAX);
                self.due = self.due.filter(|_| self.owed > 0);
            }
            _ => self.forget_owed(),
        }
    }

    /// Nothing is owed any more.
    pub fn forget_owed(&mut self) {
        (self.owed, self.due) = (0, None);
    }

    /// When the next tick comes.
    pub(super) fn next_tick(&self, now: Moment) -> Option<Instant> {
        let period = self.period().filter(|_| self.b().periodic_enable())?;
        let on_beat = self.phase % period + self.begun(now.machine, period) * period;
        let next = self.due.map_or(on_beat, |due| due.min(on_beat));
        Some(Instant::of_ticks(next, CRYSTAL))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 16 periods of the crystal: 2048 Hz.
    const RATE: u8 = 5;
    const PERIOD: u64 = 16;

    fn at(ticks: u64) -> Moment {
        Instant::of_ticks(ticks, CRYSTAL).into()
    }

    fn chip(policy: LostTickPolicy) -> Rtc {
        let mut rtc = Rtc::new(0);
        rtc.set_policy(policy);
        for (index, value) in [(0xa, 0x20 | RATE), (0xb, 0x42)] {
            rtc.select(index);
            rtc.write(value, at(0));
        }
        rtc.select(0xc);
        rtc
    }

    /// The guest takes ticks at once, but for the time from `from` to `to`, after which it takes one: when ticks came,
    /// up to `end`, all in periods of the crystal.
    fn ticks(policy: LostTickPolicy, from: u64, to: u64, end: u64) -> Vec<u64> {
        let mut rtc = chip(policy);
        let mut seen = Vec::new();
        for now in 0..=end {
            rtc.advance(at(now));
            if (from..to).contains(&now) {
                continue;
            }
            if rtc.interrupt() {
                seen.push(now);
                assert_eq!(rtc.read(at(now)) & 0xc0, 0xc0);
            }
            assert_eq!(rtc.next_event(at(now)).is_some(), !rtc.interrupt());
        }
        seen
    }

    // In each, ticks 2 to 5 come while the guest is away from 20 to 83: the one at 32 waits, those at 48, 64 and 80 are
    // lost.

    #[test]
    fn discard_forgets_lost_ticks_and_keeps_the_beat() {
        assert_eq!(ticks(LostTickPolicy::Discard, 20, 83, 130), [16, 83, 96, 112, 128]);
    }

    #[test]
    fn delay_goes_on_at_the_normal_rate_from_when_the_guest_is_back() {
        assert_eq!(ticks(LostTickPolicy::Delay, 20, 83, 150), [16, 83, 99, 115, 131, 147]);
    }

    #[test]
    fn merge_delivers_one_for_all_lost_ticks() {
        assert_eq!(ticks(LostTickPolicy::Merge, 20, 83, 130), [16, 83, 84, 96, 112, 128]);
    }

    #[test]
    fn slew_delivers_all_lost_ticks_at_four_times_the_rate() {
        assert_eq!(ticks(LostTickPolicy::Slew, 20, 83, 130), [16, 83, 87, 91, 95, 96, 112, 128]);
    }

    #[test]
    fn slew_catches_up_with_the_ticks_of_a_long_time() {
        let seen = ticks(LostTickPolicy::Slew, 20, 20 + 100 * PERIOD, 200 * PERIOD);
        assert_eq!(seen.len(), 200);
        assert_eq!(seen[190..], (191..=200).map(|tick| tick * PERIOD).collect::<Vec<_>>());
    }

    #[test]
    fn ticks_are_owed_also_where_the_timer_itself_came_too_late() {
        let mut rtc = chip(LostTickPolicy::Slew);
        rtc.advance(at(5 * PERIOD));
        assert_eq!(rtc.read(at(5 * PERIOD)), 0xc0);
        let mut next = || {
            let event = rtc.next_event(rtc.seen).unwrap();
            rtc.advance(event.into());
            rtc.read(event.into());
            event.ticks(CRYSTAL)
        };
        assert_eq!([next(), next(), next(), next(), next(), next()], [84, 88, 92, 96, 100, 112]);
    }

    #[test]
    fn what_is_owed_is_a_length_of_time() {
        let mut rtc = chip(LostTickPolicy::Slew);
        rtc.advance(at(9 * PERIOD));
        assert_eq!(rtc.owed, 8);
        rtc.select(0xa);
        rtc.write(0x20 | (RATE + 2), at(9 * PERIOD));
        assert_eq!(rtc.owed, 2);
        rtc.write(0x20 | (RATE - 1), at(9 * PERIOD));
        assert_eq!(rtc.owed, 16);
    }

    #[test]
    fn a_guest_that_switches_the_interrupt_off_is_owed_nothing() {
        for (index, value) in [(0xb, 0x02), (0xa, 0x20), (0xa, 0x70 | RATE)] {
            let mut rtc = chip(LostTickPolicy::Slew);
            rtc.advance(at(9 * PERIOD));
            rtc.select(index);
            rtc.write(value, at(9 * PERIOD));
            assert_eq!((rtc.owed, rtc.due), (0, None));
        }
    }

    #[test]
    fn a_backlog_that_is_forgotten_is_never_delivered() {
        let mut rtc = chip(LostTickPolicy::Slew);
        rtc.advance(at(9 * PERIOD));
        rtc.forget_owed();
        rtc.read(at(9 * PERIOD));
        assert_eq!(rtc.next_event(at(9 * PERIOD)), Some(at(10 * PERIOD).machine));
    }

    proptest! {
        #[test]
        fn slew_loses_no_tick_and_makes_none_up(away in prop::collection::vec((1u64..40, 1u64..200), 0..10)) {
            let mut rtc = chip(LostTickPolicy::Slew);
            let (mut now, mut count) = (0, 0);
            let mut present = away.iter().flat_map(|&(present, absent)| [(present, true), (absent, false)]).collect::<Vec<_>>();
            // At the end the guest takes everything, long enough to catch up with all.
            present.push((4000, true));
            for (length, present) in present {
                for _ in 0..length {
                    now += 1;
                    rtc.advance(at(now));
                    if present && rtc.interrupt() {
                        rtc.read(at(now));
                        count += 1;
                    }
                }
            }
            prop_assert_eq!(count, now / PERIOD);
        }
    }
}
