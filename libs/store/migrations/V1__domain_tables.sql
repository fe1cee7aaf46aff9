-- The state of the partitions, written by the applier only.
--
-- Every table the fold restores from has a `record jsonb` column with the exact record; typed
-- columns are generated from it, so that the two cannot disagree. timestamptz counts microseconds,
-- records count nanoseconds: restoring from the typed columns would change state hashes.

-- Written so that Postgres can put the body in place of the call, which is many times faster: not
-- STRICT, and of immutable parts only (the cast from text to timestamptz is not).
CREATE FUNCTION record_time(text) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN $1 LIKE '-%' OR $1 LIKE '0000-%' THEN '-infinity'::timestamptz
        WHEN $1 LIKE '+%' THEN 'infinity'::timestamptz
        ELSE make_timestamp(
                 substr($1, 1, 4)::integer, substr($1, 6, 2)::integer, substr($1, 9, 2)::integer,
                 substr($1, 12, 2)::integer, substr($1, 15, 2)::integer,
                 least(rtrim(substr($1, 18), 'Z')::double precision, 59.999999)
             ) AT TIME ZONE 'UTC'
    END;
COMMENT ON FUNCTION record_time(text) IS
    'An RFC 3339 time of a record, always in UTC and ending in Z; years outside 1 to 9999 become infinities and leap seconds the second before, because a host may report any.';

CREATE TABLE partition_cursors (
    partition      integer PRIMARY KEY CHECK (partition >= 0),
    out_seq        bigint NOT NULL CHECK (out_seq > 0),
    record         jsonb NOT NULL,
    in_seq         bigint GENERATED ALWAYS AS ((record -> 'input' ->> 'seq')::bigint) STORED,
    in_index       bigint GENERATED ALWAYS AS ((record -> 'input' ->> 'index')::bigint) STORED,
    in_of          bigint GENERATED ALWAYS AS ((record -> 'input' ->> 'of')::bigint) STORED,
    in_msg_id      text GENERATED ALWAYS AS (record ->> 'inputMsgId') STORED,
    stream_created timestamptz NOT NULL GENERATED ALWAYS AS (record_time(record ->> 'streamCreated')) STORED,
    epoch          numeric NOT NULL GENERATED ALWAYS AS ((record ->> 'epoch')::numeric) STORED,
    leader_epoch   numeric NOT NULL GENERATED ALWAYS AS ((record ->> 'leaderEpoch')::numeric) STORED,
    clock          timestamptz GENERATED ALWAYS AS (record_time(record ->> 'clock')) STORED
) WITH (fillfactor = 70);
COMMENT ON TABLE partition_cursors IS 'Where the rows of each partition stand in both logs; moved by compare-and-swap in the transaction that writes the rows.';
COMMENT ON COLUMN partition_cursors.partition IS 'Number of the partition, from 0.';
COMMENT ON COLUMN partition_cursors.out_seq IS 'Last applied sequence of the output stream; the value compared before it is moved.';
COMMENT ON COLUMN partition_cursors.record IS 'The exact cursor, the authority for restoring; the columns below are derived from it.';
COMMENT ON COLUMN partition_cursors.in_seq IS 'Sequence of the last input message the rows cover; null before the first entry.';
COMMENT ON COLUMN partition_cursors.in_index IS 'Place of the last covered entry in that message.';
COMMENT ON COLUMN partition_cursors.in_of IS 'Entries in that message.';
COMMENT ON COLUMN partition_cursors.in_msg_id IS 'Message id at in_seq; differs when the log was replaced.';
COMMENT ON COLUMN partition_cursors.stream_created IS 'When the input stream was created; differs when the log was replaced.';
COMMENT ON COLUMN partition_cursors.epoch IS 'Epoch of the owner that wrote the last applied frame.';
COMMENT ON COLUMN partition_cursors.leader_epoch IS 'Highest planner epoch seen.';
COMMENT ON COLUMN partition_cursors.clock IS 'Fold time after the last covered entry.';

CREATE TABLE rollouts (
    rollout_id        text COLLATE "C" PRIMARY KEY,
    partition         integer NOT NULL CHECK (partition >= 0),
    record            jsonb NOT NULL,
    manifest_hash     text NOT NULL,
    host_count        bigint NOT NULL CHECK (host_count >= 0),
    wave_count        bigint NOT NULL CHECK (wave_count >= 0),
    on_health_failure text NOT NULL CHECK (on_health_failure IN ('halt', 'rollback-and-halt')),
    input_seq         bigint NOT NULL,
    input_index       bigint NOT NULL,
    traceparent       text,
    channel           text NOT NULL GENERATED ALWAYS AS (record ->> 'channel') STORED,
    target_ref        text NOT NULL GENERATED ALWAYS AS (record ->> 'targetRef') STORED,
    state             text NOT NULL GENERATED ALWAYS AS (record ->> 'state') STORED
        CONSTRAINT rollouts_state_check CHECK (state IN
        ('Opening', 'Active', 'Converging', 'Terminal', 'Reverted', 'Failed', 'Superseded', 'Pruned')),
    current_wave      bigint NOT NULL GENERATED ALWAYS AS ((record ->> 'currentWave')::bigint) STORED,
    opened_at         timestamptz NOT NULL GENERATED ALWAYS AS (record_time(record ->> 'openedAt')) STORED,
    terminal_at       timestamptz GENERATED ALWAYS AS (record_time(record ->> 'terminalAt')) STORED,
    superseded_at     timestamptz GENERATED ALWAYS AS (record_time(record ->> 'supersededAt')) STORED,
    superseded_by     text GENERATED ALWAYS AS (record ->> 'supersededBy') STORED
) WITH (fillfactor = 70);
CREATE INDEX rollouts_partition_idx ON rollouts (partition);
COMMENT ON TABLE rollouts IS 'One row per rollout, in any state.';
COMMENT ON COLUMN rollouts.rollout_id IS '{channel}@{ref}.';
COMMENT ON COLUMN rollouts.partition IS 'Partition of the channel.';
COMMENT ON COLUMN rollouts.record IS 'The exact record, the authority for restoring.';
COMMENT ON COLUMN rollouts.manifest_hash IS 'SHA-256 of the manifest it was opened with; the name of the bytes in the object store.';
COMMENT ON COLUMN rollouts.host_count IS 'Hosts of the pinned set.';
COMMENT ON COLUMN rollouts.wave_count IS 'Waves pinned when it opened.';
COMMENT ON COLUMN rollouts.on_health_failure IS 'Pinned policy of a failing host.';
COMMENT ON COLUMN rollouts.input_seq IS 'Sequence of the entry that last changed it.';
COMMENT ON COLUMN rollouts.input_index IS 'Place of that entry in its frame.';
COMMENT ON COLUMN rollouts.traceparent IS 'Trace context of that entry.';
COMMENT ON COLUMN rollouts.channel IS 'Channel it rolls out on.';
COMMENT ON COLUMN rollouts.target_ref IS 'Commit it rolls out.';
COMMENT ON COLUMN rollouts.state IS 'Where it stands.';
COMMENT ON COLUMN rollouts.current_wave IS 'Wave being worked on, from 0.';
COMMENT ON COLUMN rollouts.opened_at IS 'When it opened.';
COMMENT ON COLUMN rollouts.terminal_at IS 'When every host had converged.';
COMMENT ON COLUMN rollouts.superseded_at IS 'When its successor opened.';
COMMENT ON COLUMN rollouts.superseded_by IS 'Its successor.';

CREATE TABLE host_rollout_records (
    rollout_id                  text COLLATE "C" NOT NULL,
    hostname                    text COLLATE "C" NOT NULL,
    partition                   integer NOT NULL CHECK (partition >= 0),
    wave                        bigint NOT NULL CHECK (wave >= 0),
    staged                      boolean NOT NULL,
    record                      jsonb NOT NULL,
    recovery_candidate          text,
    input_seq                   bigint NOT NULL,
    input_index                 bigint NOT NULL,
    traceparent                 text,
    channel                     text NOT NULL GENERATED ALWAYS AS (record ->> 'channel') STORED,
    state                       text NOT NULL GENERATED ALWAYS AS (record ->> 'state') STORED
        CONSTRAINT host_rollout_records_state_check CHECK (state IN
        ('Pending', 'Activating', 'Deferred', 'Soaking', 'Converged', 'Failed', 'Reverted')),
    target_closure              text NOT NULL GENERATED ALWAYS AS (record ->> 'targetClosure') STORED,
    soak_minutes                numeric NOT NULL GENERATED ALWAYS AS ((record ->> 'soakMinutes')::numeric) STORED,
    dispatched_at               timestamptz NOT NULL GENERATED ALWAYS AS (record_time(record ->> 'dispatchedAt')) STORED,
    current_closure_at_dispatch text GENERATED ALWAYS AS (record ->> 'currentClosureAtDispatch') STORED,
    current_closure             text GENERATED ALWAYS AS (record ->> 'currentClosure') STORED,
    reverted_to                 text GENERATED ALWAYS AS (record ->> 'revertedTo') STORED,
    dispatch_acked_at           timestamptz GENERATED ALWAYS AS (record_time(record ->> 'dispatchAckedAt')) STORED,
    activation_started_at       timestamptz GENERATED ALWAYS AS (record_time(record ->> 'activationStartedAt')) STORED,
    activation_completed_at     timestamptz GENERATED ALWAYS AS (record_time(record ->> 'activationCompletedAt')) STORED,
    activation_failed_at        timestamptz GENERATED ALWAYS AS (record_time(record ->> 'activationFailedAt')) STORED,
    probe_observed_first_at     timestamptz GENERATED ALWAYS AS (record_time(record ->> 'probeObservedFirstAt')) STORED,
    probe_failure_first_at      timestamptz GENERATED ALWAYS AS (record_time(record ->> 'probeFailureFirstAt')) STORED,
    soak_due_at                 timestamptz GENERATED ALWAYS AS (record_time(record ->> 'soakDueAt')) STORED,
    converged_at                timestamptz GENERATED ALWAYS AS (record_time(record ->> 'convergedAt')) STORED,
    failed_at                   timestamptz GENERATED ALWAYS AS (record_time(record ->> 'failedAt')) STORED,
    policy_applied              text GENERATED ALWAYS AS (record ->> 'policyApplied') STORED
        CONSTRAINT host_rollout_records_policy_applied_check CHECK (policy_applied IN
        ('halt', 'rollback-and-halt')),
    reverted_at                 timestamptz GENERATED ALWAYS AS (record_time(record ->> 'revertedAt')) STORED,
    probes                      jsonb NOT NULL GENERATED ALWAYS AS (coalesce(record -> 'probes', '{}'::jsonb)) STORED,
    declared_probes             jsonb GENERATED ALWAYS AS (record -> 'declaredProbes') STORED,
    convergence_claim           jsonb GENERATED ALWAYS AS (record -> 'convergenceClaim') STORED,
    unchanged                   boolean NOT NULL GENERATED ALWAYS AS (coalesce((record ->> 'unchanged')::boolean, false)) STORED,
    last_event_seq              numeric NOT NULL GENERATED ALWAYS AS (coalesce((record ->> 'lastEventSeq')::numeric, 0)) STORED,
    recovery_seq                numeric NOT NULL GENERATED ALWAYS AS (coalesce((record ->> 'recoverySeq')::numeric, 0)) STORED,
    PRIMARY KEY (rollout_id, hostname)
) WITH (fillfactor = 70);
CREATE INDEX host_rollout_records_hostname_idx ON host_rollout_records (hostname, rollout_id);
COMMENT ON TABLE host_rollout_records IS 'One row per host and rollout, in any state.';
COMMENT ON COLUMN host_rollout_records.rollout_id IS 'The rollout.';
COMMENT ON COLUMN host_rollout_records.hostname IS 'The host.';
COMMENT ON COLUMN host_rollout_records.partition IS 'Partition of the channel.';
COMMENT ON COLUMN host_rollout_records.wave IS 'Pinned wave of the host, from 0.';
COMMENT ON COLUMN host_rollout_records.staged IS 'False for a host in no wave of a channel that declares waves; it is never dispatched.';
COMMENT ON COLUMN host_rollout_records.record IS 'The exact record, the authority for restoring.';
COMMENT ON COLUMN host_rollout_records.recovery_candidate IS 'The closure a Pending host was seen running when that is its target.';
COMMENT ON COLUMN host_rollout_records.input_seq IS 'Sequence of the entry that last changed the row.';
COMMENT ON COLUMN host_rollout_records.input_index IS 'Place of that entry in its frame.';
COMMENT ON COLUMN host_rollout_records.traceparent IS 'Trace context of that entry.';
COMMENT ON COLUMN host_rollout_records.channel IS 'Channel of the rollout.';
COMMENT ON COLUMN host_rollout_records.state IS 'Where the host stands.';
COMMENT ON COLUMN host_rollout_records.target_closure IS 'What it shall run, from the rollout manifest.';
COMMENT ON COLUMN host_rollout_records.soak_minutes IS 'Minutes of soak of its wave.';
COMMENT ON COLUMN host_rollout_records.dispatched_at IS 'When the rollout opened.';
COMMENT ON COLUMN host_rollout_records.current_closure_at_dispatch IS 'The closure a rollback goes back to.';
COMMENT ON COLUMN host_rollout_records.current_closure IS 'The closure it last reported to run.';
COMMENT ON COLUMN host_rollout_records.reverted_to IS 'The closure it went back to.';
COMMENT ON COLUMN host_rollout_records.dispatch_acked_at IS 'When the agent acknowledged the dispatch.';
COMMENT ON COLUMN host_rollout_records.activation_started_at IS 'When the switch began.';
COMMENT ON COLUMN host_rollout_records.activation_completed_at IS 'When the switch was confirmed.';
COMMENT ON COLUMN host_rollout_records.activation_failed_at IS 'When the switch failed.';
COMMENT ON COLUMN host_rollout_records.probe_observed_first_at IS 'First probe result since activation.';
COMMENT ON COLUMN host_rollout_records.probe_failure_first_at IS 'First probe failure since activation.';
COMMENT ON COLUMN host_rollout_records.soak_due_at IS 'When the soak ends.';
COMMENT ON COLUMN host_rollout_records.converged_at IS 'When it converged.';
COMMENT ON COLUMN host_rollout_records.failed_at IS 'When it failed.';
COMMENT ON COLUMN host_rollout_records.policy_applied IS 'Policy the host applied on failure.';
COMMENT ON COLUMN host_rollout_records.reverted_at IS 'When it went back.';
COMMENT ON COLUMN host_rollout_records.probes IS 'Results since the last activation, by probe.';
COMMENT ON COLUMN host_rollout_records.declared_probes IS 'Declared topology; null when not declared since activation.';
COMMENT ON COLUMN host_rollout_records.convergence_claim IS 'A Converged report that could not complete yet.';
COMMENT ON COLUMN host_rollout_records.unchanged IS 'True when it converged without a switch.';
COMMENT ON COLUMN host_rollout_records.last_event_seq IS 'Sequence of the last accepted agent event; an unsigned 64-bit number.';
COMMENT ON COLUMN host_rollout_records.recovery_seq IS 'Sequence of the last accepted recovery event; an unsigned 64-bit number.';

CREATE TABLE hosts (
    hostname        text COLLATE "C" PRIMARY KEY,
    channel         text NOT NULL,
    last_seen_at    timestamptz NOT NULL,
    current_closure text
) WITH (fillfactor = 70);
COMMENT ON TABLE hosts IS 'When each host was last seen; from heartbeats, not from the log.';
COMMENT ON COLUMN hosts.hostname IS 'The host.';
COMMENT ON COLUMN hosts.channel IS 'Its channel in the verified fleet.';
COMMENT ON COLUMN hosts.last_seen_at IS 'Time of its last heartbeat, by the clock of the gateway.';
COMMENT ON COLUMN hosts.current_closure IS 'The closure it said it runs.';

CREATE TABLE quarantined_closures (
    channel        text COLLATE "C" NOT NULL,
    closure_hash   text COLLATE "C" NOT NULL,
    partition      integer NOT NULL CHECK (partition >= 0),
    quarantined_at timestamptz NOT NULL,
    input_seq      bigint NOT NULL,
    input_index    bigint NOT NULL,
    PRIMARY KEY (channel, closure_hash)
);
COMMENT ON TABLE quarantined_closures IS 'Closures that made a host go back; never dispatched on the channel until an operator clears them.';
COMMENT ON COLUMN quarantined_closures.channel IS 'The channel.';
COMMENT ON COLUMN quarantined_closures.closure_hash IS 'The closure.';
COMMENT ON COLUMN quarantined_closures.partition IS 'Partition of the channel.';
COMMENT ON COLUMN quarantined_closures.quarantined_at IS 'Fold time of the entry that caused it.';
COMMENT ON COLUMN quarantined_closures.input_seq IS 'Sequence of the entry that caused it.';
COMMENT ON COLUMN quarantined_closures.input_index IS 'Place of that entry in its frame.';

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
-- Hosts name their probes, and an index entry has less room than a name: the name is in no index.
CREATE INDEX probe_failures_host_idx ON probe_failures (rollout_id, hostname);
COMMENT ON TABLE probe_failures IS 'Outstanding failures of enforce probes; each result replaces all rows of its probe.';
COMMENT ON COLUMN probe_failures.rollout_id IS 'The rollout.';
COMMENT ON COLUMN probe_failures.hostname IS 'The host.';
COMMENT ON COLUMN probe_failures.probe_name IS 'The probe.';
COMMENT ON COLUMN probe_failures.ordinal IS 'Place among the failures of the probe, from 0.';
COMMENT ON COLUMN probe_failures.control_id IS 'The control; null for a probe without controls.';
COMMENT ON COLUMN probe_failures.framework IS 'Its framework; null for a probe without controls.';
COMMENT ON COLUMN probe_failures.observed_at IS 'When the host observed it; infinite when outside the years 1 to 9999.';
COMMENT ON COLUMN probe_failures.input_seq IS 'Sequence of the entry that caused it.';
COMMENT ON COLUMN probe_failures.input_index IS 'Place of that entry in its frame.';

CREATE TABLE dispatch_queue (
    rollout_id     text COLLATE "C" NOT NULL,
    hostname       text COLLATE "C" NOT NULL,
    record         jsonb NOT NULL,
    input_seq      bigint NOT NULL,
    input_index    bigint NOT NULL,
    traceparent    text,
    target_closure text NOT NULL GENERATED ALWAYS AS (record ->> 'targetClosure') STORED,
    soak_minutes   numeric NOT NULL GENERATED ALWAYS AS ((record ->> 'soakMinutes')::numeric) STORED,
    enqueued_at    timestamptz NOT NULL GENERATED ALWAYS AS (record_time(record ->> 'enqueuedAt')) STORED,
    PRIMARY KEY (rollout_id, hostname)
);
CREATE INDEX dispatch_queue_hostname_idx ON dispatch_queue (hostname);
COMMENT ON TABLE dispatch_queue IS 'Dispatches that wait for their host; a row goes when the host leaves Pending or the rollout ends.';
COMMENT ON COLUMN dispatch_queue.rollout_id IS 'The rollout.';
COMMENT ON COLUMN dispatch_queue.hostname IS 'The host.';
COMMENT ON COLUMN dispatch_queue.record IS 'The exact dispatch, the authority for restoring.';
COMMENT ON COLUMN dispatch_queue.input_seq IS 'Sequence of the entry that queued it.';
COMMENT ON COLUMN dispatch_queue.input_index IS 'Place of that entry in its frame.';
COMMENT ON COLUMN dispatch_queue.traceparent IS 'Trace context of that entry.';
COMMENT ON COLUMN dispatch_queue.target_closure IS 'What to switch to.';
COMMENT ON COLUMN dispatch_queue.soak_minutes IS 'Minutes of soak after activation; the due time is computed at delivery.';
COMMENT ON COLUMN dispatch_queue.enqueued_at IS 'Fold time of the entry that queued it.';

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
COMMENT ON TABLE gate_blocks IS 'Current holds: who is held by which gate, and why.';
COMMENT ON COLUMN gate_blocks.rollout_id IS 'The rollout.';
COMMENT ON COLUMN gate_blocks.wave IS 'The wave, from 0.';
COMMENT ON COLUMN gate_blocks.gate IS 'The gate.';
COMMENT ON COLUMN gate_blocks.holds IS 'List of {reason, hosts, cause}; without hosts it holds every Pending host of the wave.';
COMMENT ON COLUMN gate_blocks.observed_at IS 'Fold time of the entry that stated it.';
COMMENT ON COLUMN gate_blocks.input_seq IS 'Sequence of the entry that stated it.';
COMMENT ON COLUMN gate_blocks.input_index IS 'Place of that entry in its frame.';
