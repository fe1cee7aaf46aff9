-- A row of a host is written anew with every turn that changed it. The record is kept as it is written
-- and read, as text that is checked but not taken apart; what nobody searches by is in the record only.

DROP VIEW host_views;

ALTER TABLE host_rollout_records
    DROP COLUMN probes,
    DROP COLUMN declared_probes,
    DROP COLUMN convergence_claim,
    ALTER COLUMN record TYPE json USING record::json;

-- Rows above 2 KB are compressed. A server that was built without LZ4 takes more time for it.
DO $$
BEGIN
    ALTER TABLE host_rollout_records ALTER COLUMN record SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

CREATE VIEW host_views AS
SELECT h.rollout_id,
       h.hostname,
       h.record,
       h.wave,
       h.staged,
       d.record AS dispatch,
       h.recovery_candidate,
       h.input_seq,
       h.input_index,
       h.traceparent,
       s.last_seen_at,
       s.current_closure AS running_closure,
       EXISTS (SELECT FROM quarantined_closures AS q
               WHERE q.channel = h.channel AND q.closure_hash = h.target_closure) AS quarantined,
       (SELECT count(*) FROM probe_failures AS f
        WHERE f.rollout_id = h.rollout_id AND f.hostname = h.hostname
          AND f.control_id IS NOT NULL) AS compliance_failures,
       (SELECT count(*) FROM probe_failures AS f
        WHERE f.rollout_id = h.rollout_id AND f.hostname = h.hostname
          AND f.control_id IS NULL) AS health_failures,
       coalesce(h.record -> 'probes', '{}'::json) AS probes,
       h.record -> 'declaredProbes' AS declared_probes,
       h.record -> 'convergenceClaim' AS convergence_claim
FROM host_rollout_records AS h
LEFT JOIN dispatch_queue AS d ON d.rollout_id = h.rollout_id AND d.hostname = h.hostname
LEFT JOIN hosts AS s ON s.hostname = h.hostname;
COMMENT ON VIEW host_views IS 'One row per host and rollout with all that is known about it.';
COMMENT ON COLUMN host_views.rollout_id IS 'The rollout.';
COMMENT ON COLUMN host_views.hostname IS 'The host.';
COMMENT ON COLUMN host_views.record IS 'The exact record.';
COMMENT ON COLUMN host_views.wave IS 'Pinned wave, from 0.';
COMMENT ON COLUMN host_views.staged IS 'False for a host that is never dispatched.';
COMMENT ON COLUMN host_views.dispatch IS 'The dispatch that waits for it.';
COMMENT ON COLUMN host_views.recovery_candidate IS 'The closure a Pending host was seen running when that is its target.';
COMMENT ON COLUMN host_views.input_seq IS 'Sequence of the entry that last changed the record.';
COMMENT ON COLUMN host_views.input_index IS 'Place of that entry in its frame.';
COMMENT ON COLUMN host_views.traceparent IS 'Trace context of that entry.';
COMMENT ON COLUMN host_views.last_seen_at IS 'Time of the last heartbeat.';
COMMENT ON COLUMN host_views.running_closure IS 'The closure the last heartbeat named.';
COMMENT ON COLUMN host_views.quarantined IS 'True when its target is quarantined on the channel.';
COMMENT ON COLUMN host_views.compliance_failures IS 'Outstanding failures of controls.';
COMMENT ON COLUMN host_views.health_failures IS 'Outstanding failures of probes without controls.';
COMMENT ON COLUMN host_views.probes IS 'Results since the last activation, by probe.';
COMMENT ON COLUMN host_views.declared_probes IS 'Declared topology; null when not declared since activation.';
COMMENT ON COLUMN host_views.convergence_claim IS 'A Converged report that could not complete yet.';
