#!/bin/sh
# Run once by the Postgres image on an empty cluster: makes the owner of the schema and one user per service,
# with the passwords that are in their own database URLs. What each may do is granted by the migrations.
set -eu

for user in owner applier eventlog reducer planner ingest console; do
    url=$(cat "/run/secrets/database_$user")
    login=${url#*://}
    login=${login%%@*}
    psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
        --set=user="${login%%:*}" --set=password="${login#*:}" <<'SQL'
CREATE ROLE :"user" LOGIN PASSWORD :'password';
SQL
done
psql --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" \
    --command "ALTER DATABASE \"$POSTGRES_DB\" OWNER TO nixfleet_owner"
