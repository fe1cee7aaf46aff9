//! `nixfleet db roles`.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use nixfleet_store::{ExistingUser, Role};
use rand::TryRngCore;
use rand::rngs::OsRng;
use serde::Serialize;

use super::database_options::{Connection, Database, unreachable};
use crate::atomic_files::{self, Access};
use crate::command_error::{CommandError, InputContext};
use crate::stdout;

/// Bytes of a password, before they are written as digits: beyond guessing.
const PASSWORD_BYTES: usize = 24;

/// Makes the users of the services, each with the rights of its work
#[derive(Debug, Args)]
#[command(after_help = "\
The user of --database-url must be allowed to make others (CREATEROLE); the schema should belong to\n\
it or be migrated afterwards by its owner. A user that is there keeps its password unless\n\
--change-passwords is given. Each URL goes into a file of its own, readable by you alone:\n\
database.url_file of the service.")]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    /// Directory for the URLs: DIR/applier, DIR/console, DIR/eventlog, DIR/ingest, DIR/planner, DIR/reducer
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Host, port and database from the view of the services
    #[arg(
        long,
        value_name = "HOST:PORT/DATABASE",
        default_value = "127.0.0.1:5432/nixfleet"
    )]
    server: String,
    /// Give users that are there new passwords
    #[arg(long)]
    change_passwords: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Made {
    user: String,
    /// Absent when the user existed and keeps its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    url_file: Option<PathBuf>,
}

pub async fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let store = arguments.connection.open()?;
    let existing = if arguments.change_passwords {
        ExistingUser::ChangePassword
    } else {
        ExistingUser::Keep
    };
    let mut made = Vec::new();
    for role in Role::ALL {
        let user = role.user(arguments.connection.schema());
        let password = password()?;
        let is_new = store.create_role(role, &password, existing).await;
        let url_file = if is_new.or_database()? {
            let path = arguments.out.join(role.name());
            let url = format!("postgres://{user}:{password}@{}", arguments.server);
            atomic_files::write(
                &path,
                url.as_bytes(),
                Access::Secret,
                atomic_files::Existing::Replace,
            )?;
            Some(path)
        } else {
            None
        };
        made.push(Made { user, url_file });
    }
    store.migrate().await.map_err(unreachable)?;
    if arguments.json {
        return stdout::json(&made);
    }
    for Made { user, url_file } in made {
        match url_file {
            Some(path) => stdout::line(&format!("{user}: {}", path.display()))?,
            None => stdout::line(&format!("{user}: is there and keeps its password"))?,
        }
    }
    Ok(())
}

fn password() -> Result<String, CommandError> {
    let mut bytes = [0; PASSWORD_BYTES];
    OsRng
        .try_fill_bytes(&mut bytes)
        .context("the system gives no random bytes")
        .or_input_error(|| "making a password".to_owned())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
