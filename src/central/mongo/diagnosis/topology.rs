//! Floor 2. Servers that the driver drops although they answer, because the address asks for something else.
//!
//! The driver compares each greeting with what the address asks for, and forgets a server that does not fit, without a
//! word. These are its rules (mongodb 3.9, `sdam/description/topology.rs` and `cmap/establish.rs`), with the words.

use std::collections::BTreeSet;

use mongodb::options::ClientOptions;

use super::hello::Hello;
use super::probe::at;
use crate::central::survey::{Stage, Trouble};

/// Code of a server behind a load balancer whose driver does not know of the balancer.
pub(super) const BALANCER_MISMATCH: i32 = 354;

const NO_SET: &str = "take replicaSet out of the address";
const OTHER_SET: &str = "correct replicaSet in the address";
const SET_OF_DNS: &str = "correct replicaSet in the TXT record of the centre's name, or name the servers in the address: \
                          mongodb:// instead of mongodb+srv://";
const STRAY: &str = "at the centre: start it with the replica set's name (replication.replSetName), or take it out of the \
                     set with rs.reconfig()";
const SEVERAL: &str =
    "name that server alone in the address; or, at the centre, make one replica set of all of them";
const NO_BALANCER: &str = "take loadBalanced out of the address";
const NO_BALANCER_OF_DNS: &str = "take loadBalanced out of the TXT record of the centre's name, or name the servers in the \
                                  address: mongodb:// instead of mongodb+srv://";

/// What the address asks of the servers that it names.
pub(super) struct Asked {
    set: Option<String>,
    is_direct: bool,
    is_balanced: bool,
    /// `replicaSet` and `loadBalanced` come from the DNS and do not stand in the address.
    is_of_dns: bool,
    /// Different servers that it names.
    seeds: usize,
}

impl Asked {
    pub(super) fn new(options: &ClientOptions, uri: &str) -> Self {
        let uri = uri.to_ascii_lowercase();
        let is_written = ["replicaset=", "loadbalanced="].iter().any(|option| uri.contains(option));
        Self {
            set: options.repl_set_name.clone(),
            is_direct: options.direct_connection == Some(true),
            is_balanced: options.load_balanced == Some(true),
            is_of_dns: uri.starts_with("mongodb+srv://") && !is_written,
            seeds: options.hosts.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(),
        }
    }

    /// Why the driver drops this server, which the address names; nothing if it keeps it.
    pub(super) fn drops(&self, member: &str, hello: &Hello) -> Option<Trouble> {
        let address = |reason: String, remedy| Some(at(Stage::Address, member, reason, remedy));
        if self.is_balanced {
            let remedy = if self.is_of_dns { NO_BALANCER_OF_DNS } else { NO_BALANCER };
            let reason = format!(
                "{member} is behind no load balancer, and the address asks for one (loadBalanced=true)"
            );
            return if hello.names_service() { None } else { address(reason, remedy) };
        }
        let Some(wanted) = &self.set else {
            // Of several servers it expects that they belong together, as routers or as a replica set.
            let is_stray = !self.is_direct && self.seeds > 1 && hello.is_alone();
            let reason =
                format!("{member} belongs to no replica set, and the address names {} servers", self.seeds);
            return if is_stray { address(reason, SEVERAL) } else { None };
        };
        let remedy = |remedy| if self.is_of_dns { SET_OF_DNS } else { remedy };
        match hello.set_name() {
            Some(name) if name == wanted => None,
            Some(name) => {
                let reason = format!("{member} belongs to the replica set {name:?} and not to {wanted:?}");
                address(reason, remedy(OTHER_SET))
            }
            // Has a name once it is initiated.
            None if hello.is_uninitiated() => None,
            None => {
                let reason = format!("{member} names no replica set, and the address asks for {wanted:?}");
                address(reason, remedy(NO_SET))
            }
        }
    }
}

/// Why the driver drops this server, which the members of a replica set name as one of theirs.
pub(super) fn drops_member(set: &str, member: &str, hello: &Hello) -> Option<Trouble> {
    let of = match hello.set_name() {
        Some(name) if name == set => return None,
        None if hello.is_uninitiated() => return None,
        Some(name) => format!("belongs to the replica set {name:?}"),
        None => "names no replica set".to_owned(),
    };
    let reason = format!("{member} {of}, and {set:?} calls it a member");
    Some(at(Stage::Primary, member, reason, STRAY))
}

#[cfg(test)]
mod tests {
    use bson::{Document, doc, oid::ObjectId};

    use super::*;

    fn asked(uri: &str) -> Asked {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Asked::new(&runtime.block_on(async { ClientOptions::parse(uri).await.unwrap() }), uri)
    }

    fn standalone() -> Document {
        doc! {"isWritablePrimary": true}
    }

    fn router() -> Document {
        doc! {"isWritablePrimary": true, "msg": "isdbgrid"}
    }

    fn member(set: &str) -> Document {
        doc! {"isWritablePrimary": true, "setName": set, "hosts": ["a:1"]}
    }

    #[test]
    fn a_server_is_dropped_for_what_the_address_asks_for() {
        let none = Some(("a:1 names no replica set, and the address asks for \"rs0\"", NO_SET));
        let other = Some(("a:1 belongs to the replica set \"rs1\" and not to \"rs0\"", OTHER_SET));
        let balanced = Some((
            "a:1 is behind no load balancer, and the address asks for one (loadBalanced=true)",
            NO_BALANCER,
        ));
        let several = Some(("a:1 belongs to no replica set, and the address names 2 servers", SEVERAL));
        let service = doc! {"isWritablePrimary": true, "msg": "isdbgrid", "serviceId": ObjectId::new()};
        let fresh = doc! {"isreplicaset": true};
        for (uri, hello, expected) in [
            ("mongodb://a:1/?replicaSet=rs0", standalone(), none),
            ("mongodb://a:1/?replicaSet=rs0&directConnection=true", standalone(), none),
            ("mongodb://a:1,b:1/?replicaSet=rs0", standalone(), none),
            ("mongodb://a:1/?replicaSet=rs0", router(), none),
            ("mongodb://a:1/?replicaSet=rs0&directConnection=true", router(), none),
            ("mongodb://a:1/?replicaSet=rs0", member("rs1"), other),
            ("mongodb://a:1/?replicaSet=rs0&directConnection=true", member("rs1"), other),
            ("mongodb://a:1/?replicaSet=rs0", member("rs0"), None),
            ("mongodb://a:1/?replicaSet=rs0&directConnection=true", member("rs0"), None),
            ("mongodb://a:1/?replicaSet=rs0", fresh.clone(), None),
            ("mongodb://a:1/?replicaSet=rs0&directConnection=true", fresh, None),
            ("mongodb://a:1/", standalone(), None),
            ("mongodb://a:1/", router(), None),
            ("mongodb://a:1/", member("rs1"), None),
            ("mongodb://a:1/?directConnection=true", standalone(), None),
            ("mongodb://a:1,b:1/", standalone(), several),
            ("mongodb://a:1,a:1/", standalone(), None),
            ("mongodb://a:1,b:1/", router(), None),
            ("mongodb://a:1,b:1/", member("rs1"), None),
            ("mongodb://a:1/?loadBalanced=true", service.clone(), None),
            ("mongodb://a:1/?loadBalanced=true", router(), balanced),
            ("mongodb://a:1/?loadBalanced=true", standalone(), balanced),
            ("mongodb://a:1/?loadBalanced=true", member("rs0"), balanced),
            ("mongodb://a:1/?loadBalanced=false", service, None),
        ] {
            let found = asked(uri).drops("a:1", &Hello(hello.clone()));
            let told = found.as_ref().map(|trouble| (trouble.reason.as_str(), trouble.remedy));
            assert_eq!(told, expected, "{uri}: {hello}");
            assert!(found.is_none_or(|trouble| trouble.stage == Stage::Address && trouble.member.is_some()));
        }
    }

    #[test]
    fn a_set_that_the_dns_names_is_mended_there() {
        let mut options = ClientOptions::default();
        options.repl_set_name = Some("rs0".to_owned());
        for (uri, expected) in [
            ("mongodb+srv://centre.example.org/", SET_OF_DNS),
            ("mongodb+srv://centre.example.org/?replicaset=rs0", NO_SET),
            ("mongodb://a:1/?replicaSet=rs0", NO_SET),
        ] {
            let found = Asked::new(&options, uri).drops("a:1", &Hello(standalone())).unwrap();
            assert_eq!(found.remedy, expected, "{uri}");
        }
    }

    #[test]
    fn a_member_that_left_its_set_is_dropped() {
        let told = |hello| drops_member("rs0", "a:1", &Hello(hello)).map(|trouble| trouble.reason);
        assert_eq!(told(member("rs0")), None);
        assert_eq!(told(doc! {"isreplicaset": true}), None);
        let none = told(standalone()).unwrap();
        assert_eq!(none, "a:1 names no replica set, and \"rs0\" calls it a member");
        let other = told(member("rs1")).unwrap();
        assert_eq!(other, "a:1 belongs to the replica set \"rs1\", and \"rs0\" calls it a member");
    }
}
