//! Rights of each service's database user.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_harness::{Service, shared_postgres};
use nixfleet_store::{DatabaseConfig, ExistingUser, Role, Store};
use tokio_postgres::error::SqlState;

use super::sample_rollouts::{raw, raw_at, store};

const RIGHTS: [&str; 7] = [
    "INSERT",
    "SELECT",
    "UPDATE",
    "DELETE",
    "TRUNCATE",
    "REFERENCES",
    "TRIGGER",
];

/// Tables by the rights of a service, abbreviated: i, s, u, d.
fn expected(service: Service) -> BTreeMap<&'static str, &'static str> {
    let state = [
        "partition_cursors",
        "rollouts",
        "host_rollout_records",
        "quarantined_closures",
        "probe_failures",
        "dispatch_queue",
        "gate_blocks",
    ];
    // First sequence of a recreated stream.
    let both = ["refinery_schema_history", "archive_cursors"];
    let mut rights: BTreeMap<_, _> = both.map(|table| (table, "s")).into();
    match service {
        Service::Applier => rights.extend([
            ("partition_cursors", "isu"),
            ("rollouts", "isu"),
            ("host_rollout_records", "isu"),
            ("hosts", "isu"),
            ("quarantined_closures", "isd"),
            ("probe_failures", "isd"),
            ("dispatch_queue", "isud"),
            ("gate_blocks", "isud"),
        ]),
        Service::Eventlog => rights.extend([
            ("event_log", "i"),
            ("archive_cursors", "isu"),
            ("archive_generations", "is"),
            ("archive_artifacts", "is"),
            ("archive_bases", "is"),
            ("partition_cursors", "s"),
        ]),
        Service::Reducer | Service::Planner => {
            rights.extend(state.map(|table| (table, "s")));
            if service == Service::Planner {
                rights.extend([("event_log", "s"), ("archive_artifacts", "s")]);
            }
        }
        Service::Ingest => rights.extend(
            [
                "partition_cursors",
                "dispatch_queue",
                "known_rollouts",
                "rollout_members",
                "archive_cursors",
            ]
            .map(|table| (table, "s")),
        ),
        Service::Console => rights.extend(
            [
                "partition_cursors",
                "rollouts",
                "host_rollout_records",
                "hosts",
                "dispatch_queue",
                "gate_blocks",
                "host_views",
                "known_rollouts",
                "event_log",
                "archive_cursors",
            ]
            .map(|table| (table, "s")),
        ),
    }
    rights
}

#[tokio::test]
async fn each_user_has_the_rights_of_its_service_and_no_others() {
    let (_store, database) = store("roles_matrix").await;
    let client = raw(&database).await;
    let sql = "SELECT c.relname, has_table_privilege($1, c.oid, $2) FROM pg_class c
               WHERE c.relnamespace = 'nixfleet'::regnamespace AND c.relkind IN ('r', 'p', 'v')";
    for service in Service::ALL {
        let expected = expected(service);
        let user = format!("nixfleet_{service}");
        let mut seen = BTreeSet::new();
        for right in RIGHTS {
            for row in client.query(sql, &[&user, &right]).await.unwrap() {
                let (table, has): (String, bool) = (row.get(0), row.get(1));
                let letter = right.to_ascii_lowercase().chars().next().unwrap();
                let listed = expected.get(table.as_str()).copied().unwrap_or_default();
                let wanted = listed.contains(letter) && RIGHTS[..4].contains(&right);
                assert_eq!(has, wanted, "{user} {right} {table}");
                seen.insert(table);
            }
        }
        for table in expected.keys() {
            assert!(seen.contains(*table), "there is no {table}");
        }
    }
}

#[tokio::test]
async fn a_user_without_the_right_is_refused_by_the_server() {
    let (_store, database) = store("roles_refused").await;
    let host = "INSERT INTO hosts VALUES ('h', 'stable', now())";
    let archive = "INSERT INTO archive_cursors VALUES ('s', 1, 't')";
    let row = "INSERT INTO event_log (stream, sequence, index, subject, ts, kind, payload)
               VALUES ('s', 1, 0, 's', now(), 'k', '{}')";
    let day = "SELECT ensure_event_log_day('2026-01-01')";
    let cases = [
        (Service::Reducer, host),
        (Service::Reducer, "UPDATE partition_cursors SET out_seq = 9"),
        (Service::Reducer, "DELETE FROM dispatch_queue"),
        (Service::Reducer, "SELECT * FROM event_log"),
        (Service::Planner, host),
        (Service::Planner, "DELETE FROM gate_blocks"),
        (Service::Planner, day),
        (Service::Ingest, host),
        (Service::Ingest, "DELETE FROM event_log"),
        (Service::Ingest, "SELECT * FROM rollouts"),
        (Service::Ingest, "SELECT * FROM host_rollout_records"),
        (Service::Ingest, "SELECT * FROM hosts"),
        (Service::Console, host),
        (Service::Console, "DELETE FROM event_log"),
        (Service::Console, "UPDATE rollouts SET host_count = 0"),
        (Service::Eventlog, host),
        (Service::Eventlog, "SELECT * FROM rollouts"),
        (Service::Eventlog, "DELETE FROM event_log"),
        (Service::Eventlog, "UPDATE event_log SET payload = '{}'"),
        (Service::Applier, archive),
        (Service::Applier, row),
        (Service::Applier, day),
        (Service::Applier, "TRUNCATE rollouts"),
        (Service::Applier, "DELETE FROM rollouts"),
    ];
    let everybody = [
        "CREATE TABLE mine (a int)",
        "DROP TABLE hosts",
        "ALTER TABLE hosts ADD COLUMN a int",
        "DROP SCHEMA nixfleet CASCADE",
        "UPDATE refinery_schema_history SET version = 0",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
    ];
    let everybody = Service::ALL.map(|service| everybody.map(|statement| (service, statement)));
    for (service, statement) in cases.into_iter().chain(everybody.into_iter().flatten()) {
        let client = raw_at(&database.url_of(service)).await;
        let refused = client.batch_execute(statement).await.expect_err(statement);
        let code = refused.code();
        assert_eq!(
            code,
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{service}: {statement}: {refused}"
        );
    }
    // The refused statements are allowed to the services that need them.
    let applier = raw_at(&database.url_of(Service::Applier)).await;
    applier.batch_execute(host).await.unwrap();
    let eventlog = raw_at(&database.url_of(Service::Eventlog)).await;
    for statement in [archive, "SELECT ensure_event_log_day(now()::date)", row] {
        eventlog.batch_execute(statement).await.unwrap();
    }
}

#[tokio::test]
async fn a_service_neither_changes_nor_creates_the_schema() {
    let (_store, database) = store("roles_migrate").await;
    let config = DatabaseConfig {
        url: database.url_of(Service::Applier),
        pool_size: 2,
        ..DatabaseConfig::default()
    };
    let applier = Store::connect(&config).unwrap();
    assert_eq!(applier.migrate().await.unwrap().applied, [""; 0]);

    raw(&database)
        .await
        .batch_execute("DROP SCHEMA nixfleet CASCADE")
        .await
        .unwrap();
    let refused = applier.migrate().await.unwrap_err();
    assert!(refused.retryable(), "{refused:?}");
    assert!(
        refused.to_string().contains("nixfleet db migrate"),
        "{refused}"
    );

    let config = DatabaseConfig {
        owner_url: Some(database.url.clone()),
        ..config
    };
    let with_owner = Store::connect(&config).unwrap();
    assert!(!with_owner.migrate().await.unwrap().applied.is_empty());
    // Its other connections keep their own user, which finds its tables again.
    with_owner.cursors().await.unwrap();
    applier.cursors().await.unwrap();
}

#[tokio::test]
async fn users_are_created_for_a_schema_and_keep_their_password_until_changed() {
    let postgres = shared_postgres().unwrap();
    let database = postgres.create_database("roles_made").await.unwrap();
    let config = |url: String| DatabaseConfig {
        url,
        schema: "made".to_owned(),
        pool_size: 2,
        ..DatabaseConfig::default()
    };
    let maker = Store::connect(&config(postgres.superuser_url(&database.name))).unwrap();
    for role in Role::ALL {
        assert!(
            maker
                .create_role(role, "o'ne", ExistingUser::Keep)
                .await
                .unwrap()
        );
    }
    let owner = Store::connect(&config(database.url.clone())).unwrap();
    owner.migrate().await.unwrap();

    let login = async |password: &str| {
        let url = database.url_of(Service::Reducer);
        let (_, rest) = url.split_once('@').unwrap();
        let url = format!("postgres://made_reducer:{password}@{rest}");
        let store = Store::connect(&config(url)).unwrap();
        store.cursors().await.map_err(|error| format!("{error:?}"))
    };
    login("o%27ne").await.unwrap();
    assert!(
        !maker
            .create_role(Role::Reducer, "two", ExistingUser::Keep)
            .await
            .unwrap()
    );
    login("two").await.unwrap_err();
    let change = ExistingUser::ChangePassword;
    assert!(
        maker
            .create_role(Role::Reducer, "two", change)
            .await
            .unwrap()
    );
    login("two").await.unwrap();
    login("o%27ne").await.unwrap_err();
}
