-- Each service has its own user, which can do its own work and no more. Which user may do what is
-- in sql/grants.sql and is made so after each migration; this is what does not depend on the users.

-- The archive's user owns no table, so the function that adds one runs as the owner of the schema.
-- Temporary tables are looked at last: the caller could have made one with the same name.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION ensure_event_log_day(date) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
REVOKE EXECUTE ON FUNCTION ensure_event_log_day(date) FROM PUBLIC;
