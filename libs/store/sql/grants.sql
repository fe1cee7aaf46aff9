-- Grants each existing user of a service the rights of this list and revokes all others. Rights that are
-- already correct are not touched. The schema comes last: a user without access to it finds no tables, and
-- every service waits for tables.
DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        WITH granted (service, object, rights) AS (VALUES
            ('applier', 'partition_cursors', 'INSERT SELECT UPDATE'),
            ('applier', 'rollouts', 'INSERT SELECT UPDATE'),
            ('applier', 'host_rollout_records', 'INSERT SELECT UPDATE'),
            ('applier', 'hosts', 'INSERT SELECT UPDATE'),
            ('applier', 'quarantined_closures', 'DELETE INSERT SELECT'),
            ('applier', 'probe_failures', 'DELETE INSERT SELECT'),
            ('applier', 'dispatch_queue', 'DELETE INSERT SELECT UPDATE'),
            ('applier', 'gate_blocks', 'DELETE INSERT SELECT UPDATE'),
            ('applier', 'archive_cursors', 'SELECT'),
            ('applier', 'refinery_schema_history', 'SELECT'),
            ('eventlog', 'event_log', 'INSERT'),
            ('eventlog', 'archive_cursors', 'INSERT SELECT UPDATE'),
            ('eventlog', 'archive_generations', 'INSERT SELECT'),
            ('eventlog', 'archive_artifacts', 'INSERT SELECT'),
            ('eventlog', 'archive_bases', 'INSERT SELECT'),
            ('eventlog', 'partition_cursors', 'SELECT'),
            ('eventlog', 'refinery_schema_history', 'SELECT'),
            ('reducer', 'partition_cursors', 'SELECT'),
            ('reducer', 'rollouts', 'SELECT'),
            ('reducer', 'host_rollout_records', 'SELECT'),
            ('reducer', 'quarantined_closures', 'SELECT'),
            ('reducer', 'probe_failures', 'SELECT'),
            ('reducer', 'dispatch_queue', 'SELECT'),
            ('reducer', 'gate_blocks', 'SELECT'),
            ('reducer', 'archive_cursors', 'SELECT'),
            ('reducer', 'refinery_schema_history', 'SELECT'),
            ('planner', 'partition_cursors', 'SELECT'),
            ('planner', 'rollouts', 'SELECT'),
            ('planner', 'host_rollout_records', 'SELECT'),
            ('planner', 'quarantined_closures', 'SELECT'),
            ('planner', 'probe_failures', 'SELECT'),
            ('planner', 'dispatch_queue', 'SELECT'),
            ('planner', 'gate_blocks', 'SELECT'),
            ('planner', 'archive_artifacts', 'SELECT'),
            ('planner', 'event_log', 'SELECT'),
            ('planner', 'archive_cursors', 'SELECT'),
            ('planner', 'refinery_schema_history', 'SELECT'),
            ('console', 'partition_cursors', 'SELECT'),
            ('console', 'rollouts', 'SELECT'),
            ('console', 'host_rollout_records', 'SELECT'),
            ('console', 'hosts', 'SELECT'),
            ('console', 'dispatch_queue', 'SELECT'),
            ('console', 'gate_blocks', 'SELECT'),
            ('console', 'host_views', 'SELECT'),
            ('console', 'known_rollouts', 'SELECT'),
            ('console', 'event_log', 'SELECT'),
            ('console', 'archive_cursors', 'SELECT'),
            ('console', 'refinery_schema_history', 'SELECT'),
            ('ingest', 'partition_cursors', 'SELECT'),
            ('ingest', 'dispatch_queue', 'SELECT'),
            ('ingest', 'known_rollouts', 'SELECT'),
            ('ingest', 'rollout_members', 'SELECT'),
            ('ingest', 'archive_cursors', 'SELECT'),
            ('ingest', 'refinery_schema_history', 'SELECT')
        )
        SELECT c.relname, r.rolname, coalesce(g.rights, '') AS rights,
               coalesce((SELECT string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type)
                         FROM aclexplode(c.relacl) AS a WHERE a.grantee = r.oid), '') AS has
        FROM pg_class AS c
        CROSS JOIN (VALUES ('applier'), ('console'), ('eventlog'), ('ingest'), ('planner'), ('reducer'))
            AS s (service)
        JOIN pg_roles AS r ON r.rolname = current_schema() || '_' || s.service
        LEFT JOIN granted AS g ON g.service = s.service AND g.object = c.relname
        WHERE c.relnamespace = current_schema()::regnamespace
          AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
    LOOP
        CONTINUE WHEN wanted.rights = wanted.has;
        EXECUTE format('REVOKE ALL ON TABLE %I FROM %I', wanted.relname, wanted.rolname);
        CONTINUE WHEN wanted.rights = '';
        EXECUTE format('GRANT %s ON TABLE %I TO %I', replace(wanted.rights, ' ', ', '),
                       wanted.relname, wanted.rolname);
    END LOOP;

    FOR wanted IN
        SELECT r.rolname, r.rolname = current_schema() || '_eventlog' AS archives
        FROM pg_roles AS r
        JOIN (VALUES ('applier'), ('console'), ('eventlog'), ('ingest'), ('planner'), ('reducer'))
            AS s (service) ON r.rolname = current_schema() || '_' || s.service
    LOOP
        IF wanted.archives
           AND NOT has_function_privilege(wanted.rolname, 'ensure_event_log_day(date)', 'EXECUTE') THEN
            EXECUTE format('GRANT EXECUTE ON FUNCTION ensure_event_log_day(date) TO %I',
                           wanted.rolname);
        END IF;
        IF NOT has_schema_privilege(wanted.rolname, current_schema(), 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), wanted.rolname);
        END IF;
    END LOOP;
END
$$
