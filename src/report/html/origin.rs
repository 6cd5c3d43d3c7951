//! The command that made a report, and its date. Only the page has them, so that the data of a
//! repeated conversion are the same.
//!
//! Knows a command and the clock; does not know a report.

#![allow(clippy::arithmetic_side_effects, reason = "days and seconds of a clock in 128 bits")]

use std::time::{SystemTime, UNIX_EPOCH};

use crate::report::html::markup::sentence;

/// The command that made a report, and its date.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Origin {
    /// The command, as it can be given again.
    pub command: String,
    /// The time at which the report was made.
    pub date: SystemTime,
}

impl Origin {
    /// Creates the origin of a report that `command` makes now.
    pub fn now(command: String) -> Self {
        Origin { command, date: SystemTime::now() }
    }

    /// Returns the command and the date as they stand on the page.
    pub(super) fn shown(&self) -> String {
        format!(
            "<p><code>{}</code></p>\n<p class=\"soft\">{}</p>\n",
            sentence(&self.command),
            date(self.date)
        )
    }
}

/// Formats a time: `2026-11-28 00:49 UTC`.
fn date(of: SystemTime) -> String {
    let seconds = match of.duration_since(UNIX_EPOCH) {
        Ok(after) => i128::from(after.as_secs()),
        Err(before) => -i128::from(before.duration().as_secs()),
    };
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// Returns year, month and day of the Gregorian calendar, `days` days after 1970-01-01. Years
/// are taken to begin in March, so that the leap day is the last day of a year.
fn civil(days: i128) -> (i128, i128, i128) {
    const DAYS_OF_400_YEARS: i128 = 146_097;
    /// Number of days from 0000-03-01 to 1970-01-01.
    const BEFORE_1970: i128 = 719_468;
    let days = days + BEFORE_1970;
    let (era, day) = (days.div_euclid(DAYS_OF_400_YEARS), days.rem_euclid(DAYS_OF_400_YEARS));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Five consecutive months from March on have 153 days.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i128::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        }
    }
}
