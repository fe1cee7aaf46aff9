//! Users of the bus and their rights: the one table behind the configuration of NATS, the documentation and
//! the test that tries every user on every subject.
//!
//! Every user has a NATS account of its own and reaches the account of the streams through imports.
//!
//! Source: docs/adr/0020-every-user-of-the-bus-has-its-own-account.md.

mod nats_accounts;
mod rights;
mod subjects;

use nixfleet_proto::subject::Names;

use self::subjects::{Fleet, Subjects};

pub use self::rights::{BusUser, ObjectBucket, Right, StreamGroup};

/// The users of one fleet on its servers.
#[derive(Debug, Clone)]
pub struct BusAccess(Fleet);

impl BusAccess {
    /// Name of the user of the streams' own account, who may do everything. Issue its certificate only for a
    /// repair.
    pub const ADMINISTRATOR: &str = "administrator";

    /// The users of the fleet with this prefix and number of partitions.
    pub fn new(prefix: &str, partitions: u16) -> Self {
        Self(Fleet {
            names: Names::new(prefix),
            partitions,
        })
    }

    /// Prefix of JetStream's API for all users but the administrator: `bus.api_prefix`.
    pub fn api_prefix(&self) -> String {
        self.0.api_prefix()
    }

    /// Section `accounts` of the configuration of NATS.
    pub fn nats_accounts(&self) -> String {
        nats_accounts::write(&self.0, Self::ADMINISTRATOR)
    }

    /// Subjects that a client of this user may publish on, as the client names them.
    pub fn publishes(&self, user: BusUser) -> Vec<String> {
        let subjects = Subjects::of(&self.0, user);
        let requests = subjects.requests.iter();
        let mut all: Vec<_> = requests
            .map(|subject| self.0.as_imported(subject))
            .collect();
        all.extend(subjects.calls.into_iter().map(|(_, subject)| subject));
        all
    }

    /// The table in Markdown: users, and what they may do.
    pub fn markdown() -> String {
        let mut text = "| user | may |\n|---|---|\n".to_owned();
        for user in BusUser::ALL {
            let rights: Vec<_> = user.rights().iter().map(|right| right.text()).collect();
            text.push_str(&format!("| `{}` | {} |\n", user.name(), rights.join("; ")));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_planner_manages_streams_and_only_eventlog_trims() {
        let holders = |right: Right| {
            let users = BusUser::ALL.into_iter();
            let users = users.filter(|user| user.rights().contains(&right));
            users.collect::<Vec<_>>()
        };
        assert_eq!(holders(Right::ManageStreams), [BusUser::Planner]);
        assert_eq!(holders(Right::TrimLogs), [BusUser::Eventlog]);
        assert_eq!(holders(Right::PublishFrames), [BusUser::Reducer]);
        for (class, user) in [
            ("event", BusUser::Ingest),
            ("operator", BusUser::Console),
            ("recovery", BusUser::Reducer),
            ("plan", BusUser::Planner),
        ] {
            assert_eq!(holders(Right::Append(class)), [user]);
        }
    }

    #[test]
    fn client_names_begin_with_their_user() {
        for name in ["reducer-web-1", "eventlog/a", "operator-tools/chaos"] {
            let user = BusUser::of_client(name).unwrap();
            assert!(name.starts_with(user.name()), "{name}");
        }
        assert_eq!(BusUser::of_client("test/one"), None);
    }

    #[test]
    fn subjects_of_other_users_are_not_imported() {
        let access = BusAccess::new("fleet", 2);
        let of = |user| access.publishes(user);
        assert!(of(BusUser::Ingest).contains(&"fleet.in.*.event.>".to_owned()));
        assert!(of(BusUser::Planner).contains(&"JS.fleet.STREAM.CREATE.*".to_owned()));
        let trim = "JS.fleet.STREAM.PURGE.FLEET_OUT_01".to_owned();
        assert!(of(BusUser::Eventlog).contains(&trim) && !of(BusUser::Reducer).contains(&trim));
    }
}
