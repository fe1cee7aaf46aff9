//! Migrations: each is applied once, never changes, and upgrades every older schema to the fresh one.

use nixfleet_harness::Database;
use nixfleet_store::Store;
use refinery::Target;

use super::sample_rollouts::{connect, raw, store};

mod embedded {
    refinery::embed_migrations!("../../libs/store/migrations");
}

/// Name and checksum of each migration, as the database records them.
const CHECKSUMS: &str = include_str!("checksums.txt");
/// Everything that makes up the schema, one line per fact.
const DESCRIPTION: &str = include_str!("description.sql");

/// A store on an empty database.
async fn unmigrated(name: &str) -> (Store, Database) {
    let server = nixfleet_harness::shared_postgres().unwrap();
    let database = server.create_database(name).await.unwrap();
    (connect(&database), database)
}

async fn lines(database: &Database, query: &str) -> Vec<String> {
    let rows = raw(database).await.query(query, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn migrating_again_applies_nothing() {
    let (store, _database) = store("store_migrate").await;
    assert_eq!(store.migrate().await.unwrap().applied, Vec::<String>::new());
    store.schema_ready().await.unwrap();
}

#[tokio::test]
async fn concurrent_migrations_wait_for_each_other() {
    let database = nixfleet_harness::shared_postgres()
        .unwrap()
        .create_database("store_migrate_race")
        .await
        .unwrap();
    let stores: Vec<_> = (0..4).map(|_| connect(&database)).collect();
    let reports = futures::future::join_all(stores.iter().map(|store| store.migrate())).await;
    let applied: Vec<usize> = reports
        .into_iter()
        .map(|report| report.unwrap().applied.len())
        .collect();
    assert_eq!(
        applied.iter().filter(|count| **count > 0).count(),
        1,
        "{applied:?}"
    );
}

#[tokio::test]
async fn a_migration_never_changes() {
    let (_store, database) = store("store_checksums").await;
    let history = "SELECT format('V%s__%s %s', version, name, checksum)
                   FROM refinery_schema_history ORDER BY version";
    let found = lines(&database, history).await;
    assert_eq!(
        found,
        CHECKSUMS.lines().collect::<Vec<_>>(),
        "migrations differ from checksums.txt. Put back a file that was released and add another \
         migration for the change; add a line for a new file. Databases that hold the old checksum \
         refuse this program."
    );
}

#[tokio::test]
async fn a_schema_of_any_version_migrates_to_the_fresh_schema() {
    let (_store, fresh) = store("store_fresh").await;
    let fresh = lines(&fresh, DESCRIPTION).await;
    assert!(fresh.len() > 200, "{fresh:?}");
    let runner = embedded::migrations::runner();
    let names: Vec<_> = runner
        .get_migrations()
        .iter()
        .map(ToString::to_string)
        .collect();
    for (applied, migration) in runner.get_migrations().iter().enumerate() {
        let (store, database) = unmigrated("store_upgrade").await;
        let mut client = raw(&database).await;
        let schema = "CREATE SCHEMA nixfleet";
        client.batch_execute(schema).await.unwrap();
        let runner = embedded::migrations::runner();
        let runner = runner.set_target(Target::Version(migration.version()));
        runner.run_async(&mut client).await.unwrap();
        let report = store.migrate().await.unwrap();
        assert_eq!(report.applied, names[applied + 1..]);
        assert_eq!(lines(&database, DESCRIPTION).await, fresh, "{migration}");
    }
}

#[tokio::test]
async fn a_schema_of_other_migrations_is_refused_with_a_remedy() {
    for (name, history) in [
        // The chain before the baseline.
        (
            "store_older",
            "(1, 'domain_tables'), (4, 'read_views'), (11, 'archive_bases')",
        ),
        ("store_edited", "(1, 'fleet'), (4, 'admission')"),
    ] {
        let (store, database) = unmigrated(name).await;
        let schema = format!(
            "CREATE SCHEMA nixfleet;
             CREATE TABLE refinery_schema_history (
                 version int4 PRIMARY KEY, name varchar,
                 applied_on varchar DEFAULT '2026-01-01T00:00:00Z', checksum varchar DEFAULT '1');
             INSERT INTO refinery_schema_history (version, name) VALUES {history}"
        );
        raw(&database).await.batch_execute(&schema).await.unwrap();

        let refused = store.schema_ready().await.unwrap_err();
        assert!(!refused.retryable(), "{refused:?}");
        let text = refused.to_string();
        assert!(text.contains("differ at V4__admission: "), "{text}");
        assert!(text.contains("recovery-postgres-gone.md"), "{text}");

        let refused = store.migrate().await.unwrap_err();
        assert!(!refused.retryable(), "{refused:?}");
        assert_eq!(refused.to_string(), text);
        let tables = "SELECT relname::text FROM pg_class
                      WHERE relnamespace = 'nixfleet'::regnamespace AND relkind = 'r'";
        assert_eq!(lines(&database, tables).await, ["refinery_schema_history"]);
    }
}

#[tokio::test]
async fn a_newer_schema_is_accepted_and_not_migrated() {
    let (store, database) = store("store_newer").await;
    let newer = "INSERT INTO refinery_schema_history
                 VALUES (1000, 'later', '2026-01-01T00:00:00Z', '1')";
    raw(&database).await.batch_execute(newer).await.unwrap();
    store.schema_ready().await.unwrap();
    let refused = store.migrate().await.unwrap_err();
    assert!(
        refused.to_string().contains("differ at V1000__later"),
        "{refused}"
    );
}
