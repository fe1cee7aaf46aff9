//! The users as accounts in the configuration of NATS.

use std::fmt::Write as _;

use super::rights::BusUser;
use super::subjects::{Fleet, Subjects};

const WRITTEN: &str = "writing to a string never fails";
/// Longest silence of a pull request: it expires after ten seconds, and says every five that it is alive.
const PULL_THRESHOLD: &str = "15s";

/// Account of the streams.
const STREAMS: &str = "FLEET";

pub(super) fn write(fleet: &Fleet, administrator: &str) -> String {
    let mut text = format!(
        "# Accounts and users of the bus. Written by `nixfleet bus users --prefix {} --partitions {}`: do not\n\
         # change it by hand. docs/security.md explains it; nats.conf includes it and identifies users by their\n\
         # certificates (`tls {{ verify_and_map: true }}`).\n\naccounts {{\n",
        fleet.names.prefix(),
        fleet.partitions,
    );
    write_streams_account(&mut text, fleet, administrator);
    for user in BusUser::ALL {
        write_user_account(&mut text, fleet, user);
    }
    text.push_str("}\n");
    text
}

fn write_streams_account(text: &mut String, fleet: &Fleet, administrator: &str) {
    let names = &fleet.names;
    let prefix = names.prefix();
    writeln!(
        text,
        "  {STREAMS}: {{\n    jetstream: enabled\n    users: [ {{ user: \"CN={administrator}\" }} ]\n    exports: ["
    )
    .expect(WRITTEN);
    let exported = [
        "$JS.API.INFO".to_owned(),
        "$JS.API.STREAM.>".to_owned(),
        "$JS.API.DIRECT.>".to_owned(),
        "$JS.API.CONSUMER.CREATE.>".to_owned(),
        "$JS.API.CONSUMER.DELETE.>".to_owned(),
        "$JS.API.CONSUMER.INFO.>".to_owned(),
        "$JS.FC.>".to_owned(),
        format!("{prefix}.in.>"),
        format!("{prefix}.out.>"),
        names.manifest_wildcard(),
        names.dead_wildcard(),
        format!("$KV.{}.>", names.meta_bucket()),
        format!("$KV.{}.>", names.lease_bucket()),
        format!("$O.{}.>", names.manifest_bucket()),
        format!("$O.{}.>", names.checkpoint_bucket()),
    ];
    for subject in exported {
        writeln!(text, "      {{ service: \"{subject}\" }}").expect(WRITTEN);
    }
    // Each of these requests has many answers.
    for subject in [
        "$JS.API.CONSUMER.MSG.NEXT.>".to_owned(),
        fleet.lease_listing(),
    ] {
        writeln!(
            text,
            "      {{ service: \"{subject}\", response_type: stream, threshold: \"{PULL_THRESHOLD}\" }}"
        )
        .expect(WRITTEN);
    }
    for user in BusUser::ALL {
        if Subjects::of(fleet, user).is_pushed_to {
            let (inbox, account) = (user.inbox_prefix(), account(user));
            writeln!(
                text,
                "      {{ stream: \"{inbox}.>\", accounts: [{account}] }}"
            )
            .expect(WRITTEN);
        }
    }
    text.push_str("    ]\n  }\n");
}

fn write_user_account(text: &mut String, fleet: &Fleet, user: BusUser) {
    let subjects = Subjects::of(fleet, user);
    writeln!(
        text,
        "  {}: {{\n    users: [ {{ user: \"CN={}\" }} ]",
        account(user),
        user.name()
    )
    .expect(WRITTEN);
    if !subjects.serves.is_empty() {
        text.push_str("    exports: [\n");
        for (asker, subject) in &subjects.serves {
            let asker = account(*asker);
            writeln!(
                text,
                "      {{ service: \"{subject}\", accounts: [{asker}] }}"
            )
            .expect(WRITTEN);
        }
        text.push_str("    ]\n");
    }
    text.push_str("    imports: [\n");
    for subject in &subjects.requests {
        let imported = fleet.as_imported(subject);
        let to = match imported == *subject {
            true => String::new(),
            false => format!(", to: \"{imported}\""),
        };
        writeln!(
            text,
            "      {{ service: {{ account: {STREAMS}, subject: \"{subject}\" }}{to} }}"
        )
        .expect(WRITTEN);
    }
    for (server, subject) in &subjects.calls {
        let server = account(*server);
        writeln!(
            text,
            "      {{ service: {{ account: {server}, subject: \"{subject}\" }} }}"
        )
        .expect(WRITTEN);
    }
    if subjects.is_pushed_to {
        let inbox = user.inbox_prefix();
        writeln!(
            text,
            "      {{ stream: {{ account: {STREAMS}, subject: \"{inbox}.>\" }} }}"
        )
        .expect(WRITTEN);
    }
    text.push_str("    ]\n  }\n");
}

/// Name of the user's account.
fn account(user: BusUser) -> String {
    user.name().to_ascii_uppercase().replace('-', "_")
}
