-- The fleet: cursors of the partitions, rollouts, the record of each host in each rollout, hosts.
-- The applier is the only writer.
--
-- Tables that the fold restores from hold the exact record as JSON. Typed columns serve queries only:
-- timestamptz counts microseconds and records count nanoseconds, so restoring from typed columns would
-- change state hashes. The database derives the typed columns of rows that seldom change. The applier
-- writes those of host_rollout_records beside the record: deriving them took the server longer than the
-- rest of the write.

-- Postgres inlines a call of a function that is not STRICT and uses immutable parts only, which is many
-- times faster; the cast from text to timestamptz is not immutable.
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
    'Converts an RFC 3339 time of a record, always in UTC and ending in Z. A host may report any time: years outside 1 to 9999 become infinities, a leap second becomes the second before.';

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
COMMENT ON TABLE partition_cursors IS 'Position of each partition''s rows in both logs; moved by compare-and-swap in the transaction that writes the rows.';
COMMENT ON COLUMN partition_cursors.partition IS 'Number of the partition, from 0.';
COMMENT ON COLUMN partition_cursors.out_seq IS 'Last applied sequence of the output stream; the compared value.';
COMMENT ON COLUMN partition_cursors.record IS 'The exact cursor, the authority for restoring; the columns below are derived from it.';
COMMENT ON COLUMN partition_cursors.in_seq IS 'Sequence of the last input message the rows cover; null before the first entry.';
COMMENT ON COLUMN partition_cursors.in_index IS 'Index of the last covered entry in that message.';
COMMENT ON COLUMN partition_cursors.in_of IS 'Number of entries in that message.';
COMMENT ON COLUMN partition_cursors.in_msg_id IS 'Message id at in_seq; a different id means that the log was replaced.';
COMMENT ON COLUMN partition_cursors.stream_created IS 'Creation time of the input stream; a different time means that the log was replaced.';
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
    superseded_by     text GENERATED ALWAYS AS (record ->> 'supersededBy') STORED,
    pinned            jsonb
) WITH (fillfactor = 70);
CREATE INDEX rollouts_partition_idx ON rollouts (partition);
COMMENT ON TABLE rollouts IS 'One row per rollout, in any state.';
COMMENT ON COLUMN rollouts.rollout_id IS '{channel}@{ref}.';
COMMENT ON COLUMN rollouts.partition IS 'Partition of the channel.';
COMMENT ON COLUMN rollouts.record IS 'The exact record, the authority for restoring.';
COMMENT ON COLUMN rollouts.manifest_hash IS 'SHA-256 of the rollout manifest; the object store holds the bytes under this name.';
COMMENT ON COLUMN rollouts.host_count IS 'Number of pinned hosts.';
COMMENT ON COLUMN rollouts.wave_count IS 'Number of pinned waves.';
COMMENT ON COLUMN rollouts.on_health_failure IS 'Pinned policy for a failing host.';
COMMENT ON COLUMN rollouts.input_seq IS 'Sequence of the entry that last changed the rollout.';
COMMENT ON COLUMN rollouts.input_index IS 'Index of that entry in its frame.';
COMMENT ON COLUMN rollouts.traceparent IS 'Trace context of that entry.';
COMMENT ON COLUMN rollouts.channel IS 'Channel of the rollout.';
COMMENT ON COLUMN rollouts.target_ref IS 'Target ref of the rollout, a commit.';
COMMENT ON COLUMN rollouts.state IS 'State of the rollout.';
COMMENT ON COLUMN rollouts.current_wave IS 'Current wave, from 0.';
COMMENT ON COLUMN rollouts.opened_at IS 'Fold time of the opening.';
COMMENT ON COLUMN rollouts.terminal_at IS 'Fold time at which every host had converged.';
COMMENT ON COLUMN rollouts.superseded_at IS 'Fold time of the successor''s opening.';
COMMENT ON COLUMN rollouts.superseded_by IS 'Rollout id of the successor.';
COMMENT ON COLUMN rollouts.pinned IS 'Policy, waves and disruption budgets, pinned at the opening; the rows of host_rollout_records are the pinned hosts. Null means unknown: the reader takes them from the rollout manifest.';

CREATE TABLE host_rollout_records (
    rollout_id                  text COLLATE "C" NOT NULL,
    hostname                    text COLLATE "C" NOT NULL,
    partition                   integer NOT NULL CHECK (partition >= 0),
    wave                        bigint NOT NULL CHECK (wave >= 0),
    staged                      boolean NOT NULL,
    record                      json NOT NULL,
    recovery_candidate          text,
    input_seq                   bigint NOT NULL,
    input_index                 bigint NOT NULL,
    traceparent                 text,
    channel                     text NOT NULL,
    state                       text NOT NULL DEFAULT 'Pending'
        CONSTRAINT host_rollout_records_state_check CHECK (state IN
        ('Pending', 'Activating', 'Deferred', 'Soaking', 'Converged', 'Failed', 'Reverted')),
    target_closure              text NOT NULL,
    soak_minutes                double precision NOT NULL,
    dispatched_at               timestamptz NOT NULL,
    current_closure_at_dispatch text,
    current_closure             text,
    reverted_to                 text,
    dispatch_acked_at           timestamptz,
    activation_started_at       timestamptz,
    activation_completed_at     timestamptz,
    activation_failed_at        timestamptz,
    probe_observed_first_at     timestamptz,
    probe_failure_first_at      timestamptz,
    soak_due_at                 timestamptz,
    converged_at                timestamptz,
    failed_at                   timestamptz,
    policy_applied              text
        CONSTRAINT host_rollout_records_policy_applied_check CHECK (policy_applied IN
        ('halt', 'rollback-and-halt')),
    reverted_at                 timestamptz,
    unchanged                   boolean NOT NULL DEFAULT false,
    last_event_seq              numeric NOT NULL DEFAULT 0,
    recovery_seq                numeric NOT NULL DEFAULT 0,
    PRIMARY KEY (rollout_id, hostname)
) WITH (fillfactor = 70);
CREATE INDEX host_rollout_records_hostname_idx ON host_rollout_records (hostname, rollout_id);
COMMENT ON TABLE host_rollout_records IS 'One row per host and rollout, in any state.';
COMMENT ON COLUMN host_rollout_records.rollout_id IS 'The rollout.';
COMMENT ON COLUMN host_rollout_records.hostname IS 'The host.';
COMMENT ON COLUMN host_rollout_records.partition IS 'Partition of the channel.';
COMMENT ON COLUMN host_rollout_records.wave IS 'Pinned wave, from 0.';
COMMENT ON COLUMN host_rollout_records.staged IS 'False for a host in no wave of a channel that declares waves; it is never dispatched.';
COMMENT ON COLUMN host_rollout_records.record IS 'The exact record, the authority for restoring; the typed columns are written from it.';
COMMENT ON COLUMN host_rollout_records.recovery_candidate IS 'Target closure of a Pending host whose heartbeat already names it; null otherwise.';
COMMENT ON COLUMN host_rollout_records.input_seq IS 'Sequence of the entry that last changed the row.';
COMMENT ON COLUMN host_rollout_records.input_index IS 'Index of that entry in its frame.';
COMMENT ON COLUMN host_rollout_records.traceparent IS 'Trace context of that entry.';
COMMENT ON COLUMN host_rollout_records.channel IS 'Channel of the rollout.';
COMMENT ON COLUMN host_rollout_records.state IS 'State of the host in the rollout.';
COMMENT ON COLUMN host_rollout_records.target_closure IS 'Target closure, from the rollout manifest.';
COMMENT ON COLUMN host_rollout_records.soak_minutes IS 'Soak time of the wave, in minutes.';
COMMENT ON COLUMN host_rollout_records.dispatched_at IS 'Fold time of the opening of the rollout.';
COMMENT ON COLUMN host_rollout_records.current_closure_at_dispatch IS 'Closure that a rollback activates.';
COMMENT ON COLUMN host_rollout_records.current_closure IS 'Closure that the host last reported.';
COMMENT ON COLUMN host_rollout_records.reverted_to IS 'Closure that the rollback activated.';
COMMENT ON COLUMN host_rollout_records.dispatch_acked_at IS 'Time of the dispatch acknowledgement.';
COMMENT ON COLUMN host_rollout_records.activation_started_at IS 'Time of the start of the activation.';
COMMENT ON COLUMN host_rollout_records.activation_completed_at IS 'Time of the confirmed activation.';
COMMENT ON COLUMN host_rollout_records.activation_failed_at IS 'Time of the failed activation.';
COMMENT ON COLUMN host_rollout_records.probe_observed_first_at IS 'Time of the first probe result since the activation.';
COMMENT ON COLUMN host_rollout_records.probe_failure_first_at IS 'Time of the first probe failure since the activation.';
COMMENT ON COLUMN host_rollout_records.soak_due_at IS 'End of the soak.';
COMMENT ON COLUMN host_rollout_records.converged_at IS 'Time of convergence.';
COMMENT ON COLUMN host_rollout_records.failed_at IS 'Time of the failure.';
COMMENT ON COLUMN host_rollout_records.policy_applied IS 'Policy that the host applied on failure.';
COMMENT ON COLUMN host_rollout_records.reverted_at IS 'Time of the rollback.';
COMMENT ON COLUMN host_rollout_records.unchanged IS 'True when the host converged without an activation.';
COMMENT ON COLUMN host_rollout_records.last_event_seq IS 'Sequence of the last accepted agent event; an unsigned 64-bit number.';
COMMENT ON COLUMN host_rollout_records.recovery_seq IS 'Sequence of the last accepted recovery event; an unsigned 64-bit number.';

-- Values above 2 KB are compressed; a server that was built without LZ4 takes more time for it.
DO $$
BEGIN
    ALTER TABLE host_rollout_records ALTER COLUMN record SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

CREATE TABLE hosts (
    hostname        text COLLATE "C" PRIMARY KEY,
    channel         text NOT NULL,
    last_seen_at    timestamptz NOT NULL,
    current_closure text
) WITH (fillfactor = 70);
COMMENT ON TABLE hosts IS 'Last heartbeat of each host; heartbeats are not in the log.';
COMMENT ON COLUMN hosts.hostname IS 'The host.';
COMMENT ON COLUMN hosts.channel IS 'Channel of the host in the verified fleet.';
COMMENT ON COLUMN hosts.last_seen_at IS 'Time of the last heartbeat, by the clock of the gateway.';
COMMENT ON COLUMN hosts.current_closure IS 'Closure that the last heartbeat named.';
