-- The archive of every stream. The event log is the only writer.

CREATE TABLE event_log (
    stream      text COLLATE "C" NOT NULL,
    sequence    bigint NOT NULL,
    index       integer NOT NULL CHECK (index >= -1),
    subject     text NOT NULL,
    ts          timestamptz NOT NULL,
    kind        text NOT NULL,
    rollout_id  text COLLATE "C",
    hostname    text COLLATE "C",
    input_seq   bigint,
    input_index bigint,
    payload     json NOT NULL,
    traceparent text,
    outcomes    json,
    PRIMARY KEY (stream, sequence, index, ts)
) PARTITION BY RANGE (ts);
CREATE INDEX event_log_ts_idx ON event_log USING brin (ts);
CREATE INDEX event_log_rollout_idx ON event_log (rollout_id, input_seq, input_index)
    WHERE rollout_id IS NOT NULL;
CREATE INDEX event_log_hostname_idx ON event_log (hostname, ts) WHERE hostname IS NOT NULL;
CREATE INDEX event_log_frame_idx ON event_log (stream, input_seq, input_index, sequence)
    WHERE outcomes IS NOT NULL;
COMMENT ON TABLE event_log IS 'Archive: one row per entry of an input message and one row per message of any other stream; one partition per UTC day.';
COMMENT ON COLUMN event_log.stream IS 'Stream the message is from.';
COMMENT ON COLUMN event_log.sequence IS 'Sequence of the message in its stream.';
COMMENT ON COLUMN event_log.index IS 'Index of the entry in its frame; -1 for an output frame.';
COMMENT ON COLUMN event_log.subject IS 'Subject of the message.';
COMMENT ON COLUMN event_log.ts IS 'Time at which the stream stored the message.';
COMMENT ON COLUMN event_log.kind IS 'Name of the entry, frame, the kind of the message, or undecodable.';
COMMENT ON COLUMN event_log.rollout_id IS 'Rollout that the row concerns; null without one.';
COMMENT ON COLUMN event_log.hostname IS 'Host that the row concerns; null without one.';
COMMENT ON COLUMN event_log.input_seq IS 'Sequence in the input log: of the entry itself, or of the last entry that an output frame covers.';
COMMENT ON COLUMN event_log.input_index IS 'Index of that entry in its frame.';
COMMENT ON COLUMN event_log.payload IS 'The entry, the message, or the output frame without its outcomes; stored as text.';
COMMENT ON COLUMN event_log.traceparent IS 'Trace context of the entry.';
COMMENT ON COLUMN event_log.outcomes IS 'Outcomes of the output frame as a JSON array, in order; null without outcomes.';

-- Values above 2 KB are compressed; a server that was built without LZ4 takes more time for it.
DO $$
BEGIN
    ALTER TABLE event_log ALTER COLUMN payload SET COMPRESSION lz4;
    ALTER TABLE event_log ALTER COLUMN outcomes SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

CREATE FUNCTION ensure_event_log_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    child text := 'event_log_p' || to_char(day, 'YYYYMMDD');
BEGIN
    -- Serializes writers that need the same day: the first creates the partition, the second finds it.
    PERFORM pg_advisory_xact_lock('event_log'::regclass::oid::bigint);
    IF to_regclass(quote_ident(child)) IS NULL THEN
        EXECUTE format(
            'CREATE TABLE %I PARTITION OF event_log FOR VALUES FROM (%L) TO (%L)',
            child,
            to_char(day, 'YYYY-MM-DD') || ' 00:00:00+00',
            to_char(day + 1, 'YYYY-MM-DD') || ' 00:00:00+00');
    END IF;
END
$$;
COMMENT ON FUNCTION ensure_event_log_day(date) IS 'Creates the partition of event_log for one UTC day unless it exists.';

-- The event log's user owns no table, so the function runs as the owner of the schema. pg_temp is last in
-- the search path: the caller could create a temporary table of the same name.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION ensure_event_log_day(date) SECURITY DEFINER SET search_path = %I, pg_temp',
                   current_schema());
END
$$;
REVOKE EXECUTE ON FUNCTION ensure_event_log_day(date) FROM PUBLIC;

CREATE VIEW archive_items AS
SELECT stream,
       sequence,
       index,
       ts,
       kind,
       rollout_id,
       hostname,
       payload,
       traceparent
FROM event_log
UNION ALL
SELECT frame.stream,
       frame.sequence,
       (item.place - 1)::integer,
       frame.ts,
       CASE WHEN item.outcome -> 'rejected' IS NULL THEN 'accepted' ELSE 'rejected' END,
       (item.outcome #>> '{subject,rolloutId}') COLLATE "C",
       (item.outcome #>> '{subject,hostname}') COLLATE "C",
       item.outcome,
       item.outcome ->> 'traceparent'
FROM event_log AS frame
CROSS JOIN LATERAL json_array_elements(frame.outcomes) WITH ORDINALITY AS item (outcome, place)
WHERE frame.outcomes IS NOT NULL;
COMMENT ON VIEW archive_items IS 'The archive with one row per outcome, for people and audits.';
COMMENT ON COLUMN archive_items.stream IS 'Stream the message is from.';
COMMENT ON COLUMN archive_items.sequence IS 'Sequence of the message in its stream.';
COMMENT ON COLUMN archive_items.index IS 'Index of the entry or outcome in the frame; -1 for an output frame without its outcomes.';
COMMENT ON COLUMN archive_items.ts IS 'Time at which the stream stored the message.';
COMMENT ON COLUMN archive_items.kind IS 'Kind of the row; accepted or rejected for an outcome.';
COMMENT ON COLUMN archive_items.rollout_id IS 'Rollout that the row concerns; null without one.';
COMMENT ON COLUMN archive_items.hostname IS 'Host that the row concerns; null without one.';
COMMENT ON COLUMN archive_items.payload IS 'The entry, the outcome or the message.';
COMMENT ON COLUMN archive_items.traceparent IS 'Trace context of the entry.';

CREATE TABLE archive_cursors (
    stream         text COLLATE "C" PRIMARY KEY,
    sequence       bigint NOT NULL CHECK (sequence > 0),
    stream_created text NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE archive_cursors IS 'Last archived message of each stream; moved by compare-and-swap in the transaction that writes the rows.';
COMMENT ON COLUMN archive_cursors.stream IS 'The stream.';
COMMENT ON COLUMN archive_cursors.sequence IS 'Sequence of its last archived message.';
COMMENT ON COLUMN archive_cursors.stream_created IS 'Creation time of the stream in RFC 3339, to the nanosecond; compared as an identity only.';

CREATE TABLE archive_generations (
    stream         text COLLATE "C" NOT NULL,
    stream_created text NOT NULL,
    first_sequence bigint NOT NULL CHECK (first_sequence > 0),
    PRIMARY KEY (stream, stream_created)
);
COMMENT ON TABLE archive_generations IS 'Every stream that was archived under a name: a log that was lost and recreated is another stream.';
COMMENT ON COLUMN archive_generations.stream IS 'Name of the stream.';
COMMENT ON COLUMN archive_generations.stream_created IS 'Creation time of the stream in RFC 3339, to the nanosecond.';
COMMENT ON COLUMN archive_generations.first_sequence IS 'First archived sequence of that stream.';

CREATE TABLE archive_bases (
    stream         text COLLATE "C" NOT NULL,
    first_sequence bigint NOT NULL CHECK (first_sequence > 0),
    out_seq        bigint NOT NULL CHECK (out_seq > 0),
    reference      jsonb NOT NULL,
    PRIMARY KEY (stream, first_sequence)
);
COMMENT ON TABLE archive_bases IS 'Checkpoints from which the archive of an output stream is replayed behind a missing part.';
COMMENT ON COLUMN archive_bases.stream IS 'The output stream.';
COMMENT ON COLUMN archive_bases.first_sequence IS 'First archived sequence behind the missing part.';
COMMENT ON COLUMN archive_bases.out_seq IS 'Last output sequence that the checkpoint covers.';
COMMENT ON COLUMN archive_bases.reference IS 'Reference of the checkpoint as announced in the output log; archive_artifacts holds its bytes under its hash.';

CREATE TABLE archive_artifacts (
    hash  text COLLATE "C" NOT NULL,
    part  integer NOT NULL CHECK (part >= 0),
    bytes bytea NOT NULL,
    PRIMARY KEY (hash, part)
);
COMMENT ON TABLE archive_artifacts IS 'Signed artifacts of every archived release, and checkpoints, byte for byte; a replay expands a rollout to its hosts from them.';
COMMENT ON COLUMN archive_artifacts.hash IS 'SHA-256 of the canonical form, as in rollouts.manifest_hash.';
COMMENT ON COLUMN archive_artifacts.part IS 'Number of the part, from 0; one transaction writes all parts.';
COMMENT ON COLUMN archive_artifacts.bytes IS 'Bytes of the part, at most 8 MiB.';
