-- Planning: the queue of dispatches, and everything that holds a host back. The applier is the only
-- writer.

CREATE TABLE quarantined_closures (
    channel        text COLLATE "C" NOT NULL,
    closure_hash   text COLLATE "C" NOT NULL,
    partition      integer NOT NULL CHECK (partition >= 0),
    quarantined_at timestamptz NOT NULL,
    input_seq      bigint NOT NULL,
    input_index    bigint NOT NULL,
    PRIMARY KEY (channel, closure_hash)
);
COMMENT ON TABLE quarantined_closures IS 'Closures that a host reverted from; not dispatched on the channel until an operator clears them.';
COMMENT ON COLUMN quarantined_closures.channel IS 'The channel.';
COMMENT ON COLUMN quarantined_closures.closure_hash IS 'The closure.';
COMMENT ON COLUMN quarantined_closures.partition IS 'Partition of the channel.';
COMMENT ON COLUMN quarantined_closures.quarantined_at IS 'Fold time of the entry that caused the quarantine.';
COMMENT ON COLUMN quarantined_closures.input_seq IS 'Sequence of the entry that caused it.';
COMMENT ON COLUMN quarantined_closures.input_index IS 'Index of that entry in its frame.';

CREATE TABLE probe_failures (
    rollout_id  text COLLATE "C" NOT NULL,
    hostname    text COLLATE "C" NOT NULL,
    probe_name  text COLLATE "C" NOT NULL,
    ordinal     integer NOT NULL CHECK (ordinal >= 0),
    control_id  text,
    framework   text,
    observed_at timestamptz NOT NULL,
    input_seq   bigint NOT NULL,
    input_index bigint NOT NULL
);
-- The host chooses the name of a probe, which may exceed the size of an index entry: no index holds it.
CREATE INDEX probe_failures_host_idx ON probe_failures (rollout_id, hostname);
COMMENT ON TABLE probe_failures IS 'Outstanding failures of enforce probes; each result replaces all rows of its probe.';
COMMENT ON COLUMN probe_failures.rollout_id IS 'The rollout.';
COMMENT ON COLUMN probe_failures.hostname IS 'The host.';
COMMENT ON COLUMN probe_failures.probe_name IS 'The probe.';
COMMENT ON COLUMN probe_failures.ordinal IS 'Index among the failures of the probe, from 0.';
COMMENT ON COLUMN probe_failures.control_id IS 'The control; null for a probe without controls.';
COMMENT ON COLUMN probe_failures.framework IS 'Framework of the control; null for a probe without controls.';
COMMENT ON COLUMN probe_failures.observed_at IS 'Time of the observation, by the clock of the host; infinite outside the years 1 to 9999.';
COMMENT ON COLUMN probe_failures.input_seq IS 'Sequence of the entry that caused it.';
COMMENT ON COLUMN probe_failures.input_index IS 'Index of that entry in its frame.';

CREATE TABLE dispatch_queue (
    rollout_id     text COLLATE "C" NOT NULL,
    hostname       text COLLATE "C" NOT NULL,
    record         jsonb NOT NULL,
    input_seq      bigint NOT NULL,
    input_index    bigint NOT NULL,
    traceparent    text,
    target_closure text NOT NULL,
    soak_minutes   double precision NOT NULL,
    enqueued_at    timestamptz NOT NULL,
    PRIMARY KEY (rollout_id, hostname)
);
CREATE INDEX dispatch_queue_hostname_idx ON dispatch_queue (hostname);
COMMENT ON TABLE dispatch_queue IS 'Queued dispatches; a row is deleted when the host leaves Pending or the rollout ends.';
COMMENT ON COLUMN dispatch_queue.rollout_id IS 'The rollout.';
COMMENT ON COLUMN dispatch_queue.hostname IS 'The host.';
COMMENT ON COLUMN dispatch_queue.record IS 'The exact dispatch, the authority for restoring; the typed columns are written from it.';
COMMENT ON COLUMN dispatch_queue.input_seq IS 'Sequence of the entry that queued the dispatch.';
COMMENT ON COLUMN dispatch_queue.input_index IS 'Index of that entry in its frame.';
COMMENT ON COLUMN dispatch_queue.traceparent IS 'Trace context of that entry.';
COMMENT ON COLUMN dispatch_queue.target_closure IS 'Closure to activate.';
COMMENT ON COLUMN dispatch_queue.soak_minutes IS 'Soak time after the activation, in minutes; delivery computes the due time.';
COMMENT ON COLUMN dispatch_queue.enqueued_at IS 'Fold time of the entry that queued the dispatch.';

CREATE TABLE gate_blocks (
    rollout_id  text COLLATE "C" NOT NULL,
    wave        bigint NOT NULL CHECK (wave >= 0),
    gate        text COLLATE "C" NOT NULL CONSTRAINT gate_blocks_gate_check CHECK (gate IN
        ('quarantine', 'halt', 'freshness', 'channel-edges', 'wave-promotion',
         'wave-promotion-host-unstaged', 'host-edge', 'disruption-budget', 'compliance-wave')),
    holds       jsonb NOT NULL,
    observed_at timestamptz NOT NULL,
    input_seq   bigint NOT NULL,
    input_index bigint NOT NULL,
    PRIMARY KEY (rollout_id, wave, gate)
);
COMMENT ON TABLE gate_blocks IS 'Current blocks: the hosts that a gate holds, and the reason.';
COMMENT ON COLUMN gate_blocks.rollout_id IS 'The rollout.';
COMMENT ON COLUMN gate_blocks.wave IS 'The wave, from 0.';
COMMENT ON COLUMN gate_blocks.gate IS 'The gate.';
COMMENT ON COLUMN gate_blocks.holds IS 'List of {reason, hosts, cause}; an item without hosts holds every Pending host of the wave.';
COMMENT ON COLUMN gate_blocks.observed_at IS 'Fold time of the entry that reported the block.';
COMMENT ON COLUMN gate_blocks.input_seq IS 'Sequence of the entry that reported the block.';
COMMENT ON COLUMN gate_blocks.input_index IS 'Index of that entry in its frame.';

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
COMMENT ON VIEW host_views IS 'One row per host and rollout: record, dispatch, heartbeat, quarantine and failure counts.';
COMMENT ON COLUMN host_views.rollout_id IS 'The rollout.';
COMMENT ON COLUMN host_views.hostname IS 'The host.';
COMMENT ON COLUMN host_views.record IS 'The exact record.';
COMMENT ON COLUMN host_views.wave IS 'Pinned wave, from 0.';
COMMENT ON COLUMN host_views.staged IS 'False for a host in no wave of a channel that declares waves; it is never dispatched.';
COMMENT ON COLUMN host_views.dispatch IS 'Queued dispatch; null without one.';
COMMENT ON COLUMN host_views.recovery_candidate IS 'Target closure of a Pending host whose heartbeat already names it; null otherwise.';
COMMENT ON COLUMN host_views.input_seq IS 'Sequence of the entry that last changed the record.';
COMMENT ON COLUMN host_views.input_index IS 'Index of that entry in its frame.';
COMMENT ON COLUMN host_views.traceparent IS 'Trace context of that entry.';
COMMENT ON COLUMN host_views.last_seen_at IS 'Time of the last heartbeat.';
COMMENT ON COLUMN host_views.running_closure IS 'Closure that the last heartbeat named.';
COMMENT ON COLUMN host_views.quarantined IS 'True when the target closure is quarantined on the channel.';
COMMENT ON COLUMN host_views.compliance_failures IS 'Number of outstanding failures of controls.';
COMMENT ON COLUMN host_views.health_failures IS 'Number of outstanding failures of probes without controls.';
COMMENT ON COLUMN host_views.probes IS 'Probe results since the last activation, by probe.';
COMMENT ON COLUMN host_views.declared_probes IS 'Probe topology; null when the host has declared none since the activation.';
COMMENT ON COLUMN host_views.convergence_claim IS 'Claim: a Converged report kept until the soak ends; null without one.';
