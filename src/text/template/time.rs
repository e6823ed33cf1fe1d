//! `strftime` for templates that print the date.

use std::fmt::Write;
use std::time::SystemTime;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// `time` in UTC by a C format, in the C locale. A directive that C does not know stays as it is.
pub(super) fn format(time: SystemTime, format: &str) -> String {
    let date = Date::of(time);
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let directive = rest.next();
        let unpadded = directive == Some('-');
        let directive = if unpadded { rest.next() } else { directive };
        let Some(directive) = directive else {
            out.push_str(if unpadded { "%-" } else { "%" });
            continue;
        };
        match date.part(directive) {
            Some(part) if unpadded => {
                let trimmed = part.trim_start_matches(['0', ' ']);
                out.push_str(if trimmed.is_empty() { "0" } else { trimmed });
            }
            Some(part) => out.push_str(&part),
            None => {
                let minus = if unpadded { "-" } else { "" };
                let _ = write!(out, "%{minus}{directive}");
            }
        }
    }
    out
}

/// The civil date and time of a moment.
struct Date {
    year: i64,
    /// 0 is January.
    month: usize,
    /// From 1.
    day: u32,
    /// From 1.
    day_of_year: u32,
    /// 0 is Monday.
    weekday: usize,
    hour: u32,
    minute: u32,
    second: u32,
    /// Since 1970.
    seconds: u64,
}

impl Date {
    /// Moments before 1970 count as its start.
    fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (days, in_day) = (seconds / 86_400, (seconds % 86_400) as u32);
        let mut year = 1970;
        let mut rest = days;
        // 400 years always have 146,097 days.
        year += 400 * (rest / 146_097) as i64;
        rest %= 146_097;
        while rest >= year_length(year) {
            rest -= year_length(year);
            year += 1;
        }
        let day_of_year = rest as u32 + 1;
        let mut month = 0;
        while rest >= month_length(year, month) {
            rest -= month_length(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: rest as u32 + 1,
            day_of_year,
            // 1970 began on a Thursday.
            weekday: ((days + 3) % 7) as usize,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
            seconds,
        }
    }

    fn part(&self, directive: char) -> Option<String> {
        let (month, weekday) = (MONTHS[self.month], DAYS[self.weekday]);
        let hour12 = (self.hour + 11) % 12 + 1;
        Some(match directive {
            'Y' => self.year.to_string(),
            'y' => format!("{:02}", self.year % 100),
            'm' => format!("{:02}", self.month + 1),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'A' => weekday.to_owned(),
            'a' => weekday[..3].to_owned(),
            'u' => (self.weekday + 1).to_string(),
            'w' => ((self.weekday + 1) % 7).to_string(),
            'j' => format!("{:03}", self.day_of_year),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{hour12:02}"),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            's' => self.seconds.to_string(),
            'f' => "000000".to_owned(),
            'z' => "+0000".to_owned(),
            'Z' => "UTC".to_owned(),
            'F' => format!("{}-{:02}-{:02}", self.year, self.month + 1, self.day),
            'T' | 'X' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            'R' => format!("{:02}:{:02}", self.hour, self.minute),
            'D' | 'x' => format!("{:02}/{:02}/{:02}", self.month + 1, self.day, self.year % 100),
            'c' => format!(
                "{} {} {:2} {:02}:{:02}:{:02} {}",
                &weekday[..3],
                &month[..3],
                self.day,
                self.hour,
                self.minute,
                self.second,
                self.year
            ),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            _ => return None,
        })
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn year_length(year: i64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_length(year: i64, month: usize) -> u64 {
    match month {
        1 if is_leap(year) => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, how: &str) -> String {
        format(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds), how)
    }

    #[test]
    fn dates_of_the_calendar() {
        let iso = "%Y-%m-%d %H:%M:%S %a %j";
        assert_eq!(at(0, iso), "1970-01-01 00:00:00 Thu 001");
        assert_eq!(at(951_827_696, iso), "2000-02-29 12:34:56 Tue 060");
        assert_eq!(at(1_783_166_400, iso), "2026-07-04 12:00:00 Sat 185");
        assert_eq!(at(4_107_542_399, iso), "2100-02-28 23:59:59 Sun 059");
        assert_eq!(at(4_107_542_400, iso), "2100-03-01 00:00:00 Mon 060");
        assert_eq!(at(253_402_300_799, "%F %T"), "9999-12-31 23:59:59");
    }

    #[test]
    fn directives() {
        assert_eq!(
            at(1_783_166_400, "%d %b %Y, %B %-d, %e|%A|%y|%I %p"),
            "04 Jul 2026, July 4,  4|Saturday|26|12 PM"
        );
        assert_eq!(at(0, "%-H:%-M 100%% %Q %-Q %"), "0:0 100% %Q %-Q %");
        assert_eq!(at(0, "%c"), "Thu Jan  1 00:00:00 1970");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(5);
        assert_eq!(format(before, "%F"), "1970-01-01");
    }
}
