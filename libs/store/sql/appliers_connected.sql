SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND (usename = current_schema() || '_applier' OR application_name = 'nixfleet-applier')
