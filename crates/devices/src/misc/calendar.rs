//! The Gregorian calendar: seconds since 1970 to date and time of day, and back.

/// A day in seconds.
pub(super) const DAY: i64 = 86_400;

/// Days in 400 years, after which the calendar repeats.
const ERA: i64 = 146_097;

/// A moment by calendar and clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DateTime {
    pub(super) year: i64,
    /// 1 to 12.
    pub(super) month: i64,
    /// 1 to 31.
    pub(super) day: i64,
    pub(super) hour: i64,
    pub(super) minute: i64,
    pub(super) second: i64,
}

/// Days before each month of a year that begins in March, so that the leap day comes last.
const fn days_before(month_from_march: i64) -> i64 {
    // 153 days in each five months from March and from August.
    (153 * month_from_march + 2) / 5
}

impl DateTime {
    pub(super) const fn from_seconds(seconds: i64) -> Self {
        let (days, time) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        // From 1 March of year 0 on.
        let days = days + 719_468;
        let (era, day_of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self {
            year: era * 400 + year_of_era + (month <= 2) as i64,
            month,
            day: day_of_year - days_before(from_march) + 1,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
        }
    }

    pub(super) const fn seconds(&self) -> i64 {
        let year = self.year - (self.month <= 2) as i64;
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let from_march = (self.month + 9) % 12;
        let day_of_era =
            365 * year_of_era + year_of_era / 4 - year_of_era / 100 + days_before(from_march) + self.day - 1;
        (era * ERA + day_of_era - 719_468) * DAY + self.hour * 3600 + self.minute * 60 + self.second
    }

    /// 1 for Sunday to 7.
    pub(super) const fn weekday(&self) -> i64 {
        // 1 January 1970 was a Thursday.
        (self.seconds().div_euclid(DAY) + 4).rem_euclid(7) + 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_moments() {
        let at = |seconds| {
            let t = DateTime::from_seconds(seconds);
            (t.year, t.month, t.day, t.hour, t.minute, t.second, t.weekday())
        };
        assert_eq!(at(0), (1970, 1, 1, 0, 0, 0, 5));
        assert_eq!(at(951_782_400), (2000, 2, 29, 0, 0, 0, 3));
        assert_eq!(at(1_234_567_890), (2009, 2, 13, 23, 31, 30, 6));
        assert_eq!(at(-1), (1969, 12, 31, 23, 59, 59, 4));
    }

    proptest! {
        #[test]
        fn there_and_back(seconds in -62_000_000_000i64..253_000_000_000) {
            prop_assert_eq!(DateTime::from_seconds(seconds).seconds(), seconds);
        }
    }
}
