//! What must be so for a grant to count: encryption context, time, network, method of authentication, second factor.

use std::{fmt, net::IpAddr, str::FromStr};

use fieldkeep_crypto::context::{EncodedContext, MAX_CONTEXT_PAIRS};

use super::network::Network;
use super::principal::{Method, Principal};

/// The most networks of one grant.
pub const MAX_NETWORKS: usize = 16;

const MINUTES_A_DAY: u16 = 24 * 60;

/// The conditions of a grant; all of them must hold. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Pairs that the encryption context must have, byte for byte.
    pub context: Vec<(String, String)>,
    /// From when on, Unix seconds.
    pub not_before: Option<u64>,
    /// When on each day.
    pub daily: Option<Daily>,
    /// Where the caller's address must be; empty: anywhere.
    pub networks: Vec<Network>,
    /// How the caller must have been authenticated; empty: in any way.
    pub methods: Vec<Method>,
    /// Whether a second factor is needed.
    pub second_factor: bool,
}

/// A condition that does not hold, by its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The encryption context has not the pairs that it must have.
    Context,
    /// It is too early, or outside the hours.
    Time,
    /// The caller's address is in none of the networks.
    Network,
    /// The caller was authenticated in another way.
    Method,
    /// There was no second factor.
    SecondFactor,
}

/// What a call is like, as far as conditions ask.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The encryption context; `None`: there is none, or it is not known yet.
    pub context: Option<&'a EncodedContext>,
    /// The caller's address.
    pub network: IpAddr,
    /// The present time, Unix seconds.
    pub now: i64,
}

impl Conditions {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.context.is_empty() && self.is_of_context_alone()
    }

    /// Whether there are none but on the encryption context.
    pub(super) fn is_of_context_alone(&self) -> bool {
        self.not_before.is_none()
            && self.daily.is_none()
            && self.networks.is_empty()
            && self.methods.is_empty()
            && !self.second_factor
    }

    /// The first condition that does not hold; that of the context comes last, so that it is named only if it is the only
    /// kind that is missing.
    ///
    /// # Errors
    /// The condition.
    pub fn check(&self, principal: &Principal, call: &Circumstances<'_>) -> Result<(), Unmet> {
        self.check_but_context(principal, call)?;
        let has = |(name, value): &(String, String)| {
            call.context
                .is_some_and(|context| context.has_pair(name, value))
        };
        if self.context.iter().all(has) {
            Ok(())
        } else {
            Err(Unmet::Context)
        }
    }

    /// The same without the context, for when it was checked before.
    ///
    /// # Errors
    /// The condition.
    pub fn check_but_context(
        &self,
        principal: &Principal,
        call: &Circumstances<'_>,
    ) -> Result<(), Unmet> {
        let begun = self
            .not_before
            .is_none_or(|begin| i64::try_from(begin).is_ok_and(|begin| call.now >= begin));
        if !begun || self.daily.is_some_and(|daily| !daily.has(call.now)) {
            return Err(Unmet::Time);
        }
        if !self.networks.is_empty()
            && !self
                .networks
                .iter()
                .any(|known| known.contains(call.network))
        {
            return Err(Unmet::Network);
        }
        if !self.methods.is_empty() && !self.methods.contains(&principal.method) {
            return Err(Unmet::Method);
        }
        if self.second_factor && !principal.second_factor {
            return Err(Unmet::SecondFactor);
        }
        Ok(())
    }

    /// Whether there are no more than a grant may have.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.context.len() <= MAX_CONTEXT_PAIRS
            && self.networks.len() <= MAX_NETWORKS
            && self.methods.len() <= Method::ALL.len()
    }
}

/// Hours of each day, in UTC: from one minute of the day up to another, which may be after midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daily {
    from: u16,
    to: u16,
}

impl Daily {
    /// From minute `from` of the day up to, and without, minute `to`; `None` if they are the same, or no minutes of a day.
    #[must_use]
    pub fn new(from: u16, to: u16) -> Option<Daily> {
        (from != to && from < MINUTES_A_DAY && to < MINUTES_A_DAY).then_some(Daily { from, to })
    }

    /// The first minute and the first minute after it.
    #[must_use]
    pub fn minutes(self) -> (u16, u16) {
        (self.from, self.to)
    }

    fn has(self, now: i64) -> bool {
        let minute = now.rem_euclid(86_400) / 60;
        let (from, to) = (i64::from(self.from), i64::from(self.to));
        if from < to {
            (from..to).contains(&minute)
        } else {
            minute >= from || minute < to
        }
    }
}

/// `HH:MM-HH:MM`.
impl fmt::Display for Daily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.from, self.to);
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

impl FromStr for Daily {
    type Err = DailyError;

    fn from_str(text: &str) -> Result<Daily, DailyError> {
        let minute = |part: &str| {
            let (hours, minutes) = part.split_once(':')?;
            let number = |digits: &str, below: u16| {
                let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
                let number: u16 = digits.parse().ok().filter(|_| plain)?;
                (number < below).then_some(number)
            };
            Some(number(hours, 24)? * 60 + number(minutes, 60)?)
        };
        text.split_once('-')
            .and_then(|(from, to)| Daily::new(minute(from)?, minute(to)?))
            .ok_or(DailyError)
    }
}

/// A text is not hours of a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not hours of a day: write them in UTC as `08:00-18:00`")]
pub struct DailyError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_over_midnight() {
        let at = |hours: i64, minutes: i64| {
            1_800_000_000 / 86_400 * 86_400 + hours * 3600 + minutes * 60
        };
        let day: Daily = "08:00-18:00".parse().unwrap();
        assert!(day.has(at(8, 0)) && day.has(at(17, 59)));
        assert!(!day.has(at(7, 59)) && !day.has(at(18, 0)));
        let night: Daily = "22:30-06:00".parse().unwrap();
        assert!(night.has(at(22, 30)) && night.has(at(0, 0)) && night.has(at(5, 59)));
        assert!(!night.has(at(6, 0)) && !night.has(at(22, 29)));
        assert_eq!(night.to_string(), "22:30-06:00");
        for text in [
            "",
            "8:00-18:00",
            "08:00",
            "08:00-24:00",
            "08:60-09:00",
            "08:00-08:00",
            "-1:00-02:00",
            "+8:00-18:00",
        ] {
            assert!(text.parse::<Daily>().is_err(), "{text:?}");
        }
    }
}
