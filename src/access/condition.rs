//! What must be so for a grant to count: encryption context, time, network, method of authentication, second factor.

use std::{fmt, net::IpAddr, str::FromStr};

use fieldkeep_crypto::context::{EncodedContext, MAX_CONTEXT_PAIRS};

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
        self.context.is_empty()
            && self.not_before.is_none()
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
        if !self.networks.is_empty() && !self.networks.iter().any(|known| known.has(call.network)) {
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
    type Err = ConditionError;

    fn from_str(text: &str) -> Result<Daily, ConditionError> {
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
            .ok_or(ConditionError::Daily)
    }
}

/// A network: an address and how many of its first bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` is in it. An IPv4 address that came as IPv6 is the IPv4 address.
    #[must_use]
    pub fn has(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                first_bits(own.to_bits().into(), 32, self.bits)
                    == first_bits(other.to_bits().into(), 32, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                first_bits(own.to_bits(), 128, self.bits)
                    == first_bits(other.to_bits(), 128, self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

fn first_bits(value: u128, width: u32, bits: u8) -> u128 {
    value
        .checked_shr(width.saturating_sub(bits.into()))
        .unwrap_or(0)
}

/// `ADDRESS/BITS`.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = ConditionError;

    /// `ADDRESS/BITS`, or one address. Bits behind the first `BITS` must be zero, so that a network has one text.
    fn from_str(text: &str) -> Result<Network, ConditionError> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| ConditionError::Network)?;
        if address.to_canonical() != address {
            return Err(ConditionError::Network);
        }
        let (value, width) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let bits = match bits {
            None => width,
            Some(bits) => bits.parse().map_err(|_| ConditionError::Network)?,
        };
        let spare = u32::from(width).checked_sub(u32::from(bits));
        let spare = spare.ok_or(ConditionError::Network)?;
        if spare > 0 && value.trailing_zeros() < spare && value != 0 {
            return Err(ConditionError::HostBits);
        }
        Ok(Network { address, bits })
    }
}

/// Why a text is no condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// Not hours of a day.
    #[error("not hours of a day: write them in UTC as `08:00-18:00`")]
    Daily,
    /// Not a network.
    #[error("not a network: write it as `10.0.0.0/8`, `2001:db8::/32` or one address")]
    Network,
    /// The address of the network has bits behind its length.
    #[error(
        "the network's address has bits behind its length: write its first address, as in `10.0.0.0/8`"
    )]
    HostBits,
}

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

    #[test]
    fn networks_hold_their_addresses() {
        let has = |network: &str, address: &str| {
            network
                .parse::<Network>()
                .unwrap()
                .has(address.parse().unwrap())
        };
        assert!(has("10.0.0.0/8", "10.255.0.1") && !has("10.0.0.0/8", "11.0.0.1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(has("127.0.0.1", "127.0.0.1") && !has("127.0.0.1", "127.0.0.2"));
        assert!(has("0.0.0.0/0", "1.2.3.4") && !has("0.0.0.0/0", "::1"));
        assert!(has("2001:db8::/32", "2001:db8:1::1") && !has("2001:db8::/32", "2001:db9::"));
        assert!(has("::/0", "2001:db8::1"));
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/-1",
            "10.0.0/8",
            "::ffff:10.0.0.0/104",
            "a/8",
            "10.0.0.0/",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text:?}");
        }
        assert_eq!(
            "10.0.0.0/8".parse::<Network>().unwrap().to_string(),
            "10.0.0.0/8"
        );
    }
}
