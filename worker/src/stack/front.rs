//! The addresses by which a lane's tests know its services, whichever of the lane's stands answers to them.
//!
//! ```text
//!   unit's sandbox   /etc/hosts: db 198.19.0.1      route 198.19.0.1 via 10.213.1.2 (stand 0)
//!                                                   route 198.19.0.1 via 10.213.2.2 (stand 1)   <- one of them at a time
//!   db's sandboxes   198.19.0.1 on the loopback of each, beside their own addresses
//!   app's sandboxes  as the unit's, but always to the db of their own stand
//! ```
//!
//! So a lane changes over from one stand to the next by one route a service: no proxy, no translation of addresses, nothing
//! that costs a connection or a byte, and every port and protocol goes along.
//!
//! Pure. Must not know lanes or who sets the routes.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::plan::StackPlan;

/// 198.18.0.0/15 is for tests of networks (RFC 2544) and never routed between them.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// As many services as addresses are set aside for.
pub(super) const FRONTS_MAX: usize = 65_000;

/// The address of the service at this place of the plan; the same in every lane. `None` where there are too many.
#[must_use]
pub(super) fn front_of(place: usize) -> Option<Ipv4Addr> {
    let place = u32::try_from(place).ok().filter(|_| place < FRONTS_MAX)?;
    Some(Ipv4Addr::from(u32::from(FIRST) + place))
}

/// Names and the address of each service that stays up: its own name and its aliases.
#[must_use]
pub fn fronts(plan: &StackPlan) -> BTreeMap<Ipv4Addr, Vec<String>> {
    let named = plan.services.iter().enumerate().filter(|(_, service)| !service.completes);
    named
        .filter_map(|(place, service)| {
            let mut names = vec![service.name.clone()];
            let more = service.service.aliases.iter().chain(Some(&service.service.hostname));
            names.extend(more.filter(|name| !name.is_empty()).cloned());
            names.dedup();
            Some((front_of(place)?, names))
        })
        .collect()
}

/// Lines for /etc/hosts, which resolvers ask before they ask a name server (hosts(5)).
#[must_use]
pub fn hosts_lines(fronts: &BTreeMap<Ipv4Addr, Vec<String>>) -> String {
    fronts.iter().map(|(address, names)| format!("{address}\t{}\n", names.join(" "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_an_address_of_its_own_within_the_range() {
        assert_eq!(front_of(0), Some(Ipv4Addr::new(198, 19, 0, 1)));
        assert_eq!(front_of(255), Some(Ipv4Addr::new(198, 19, 1, 0)));
        assert_eq!(front_of(FRONTS_MAX - 1).map(|address| address.octets()[..2] == [198, 19]), Some(true));
        assert_eq!(front_of(FRONTS_MAX), None);
    }

    #[test]
    fn hosts_lines_carry_all_names() {
        let fronts = BTreeMap::from([
            (Ipv4Addr::new(198, 19, 0, 1), vec!["db".to_owned(), "mysql".to_owned()]),
            (Ipv4Addr::new(198, 19, 0, 2), vec!["cache".to_owned()]),
        ]);
        assert_eq!(hosts_lines(&fronts), "198.19.0.1\tdb mysql\n198.19.0.2\tcache\n");
    }
}
