-- The archive of every stream, written by the event log only.

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
    payload     jsonb NOT NULL,
    traceparent text,
    PRIMARY KEY (stream, sequence, index, ts)
) PARTITION BY RANGE (ts);
CREATE INDEX event_log_ts_idx ON event_log USING brin (ts);
CREATE INDEX event_log_rollout_idx ON event_log (rollout_id, input_seq, input_index)
    WHERE rollout_id IS NOT NULL;
CREATE INDEX event_log_hostname_idx ON event_log (hostname, ts) WHERE hostname IS NOT NULL;
COMMENT ON TABLE event_log IS 'Archive: one row per entry and outcome of every stream, one table per UTC day.';
COMMENT ON COLUMN event_log.stream IS 'Stream the message is from.';
COMMENT ON COLUMN event_log.sequence IS 'Sequence of the message in its stream.';
COMMENT ON COLUMN event_log.index IS 'Place of the entry or outcome in the frame; -1 is an output frame without its outcomes.';
COMMENT ON COLUMN event_log.subject IS 'Subject of the message.';
COMMENT ON COLUMN event_log.ts IS 'When the stream stored the message.';
COMMENT ON COLUMN event_log.kind IS 'What the row holds.';
COMMENT ON COLUMN event_log.rollout_id IS 'The rollout it is about, when it is about one.';
COMMENT ON COLUMN event_log.hostname IS 'The host it is about, when it is about one.';
COMMENT ON COLUMN event_log.input_seq IS 'Position in the input log: an entry''s own, or that of the entry an outcome answers.';
COMMENT ON COLUMN event_log.input_index IS 'Place of that entry in its frame.';
COMMENT ON COLUMN event_log.payload IS 'The entry, the outcome or the message.';
COMMENT ON COLUMN event_log.traceparent IS 'Trace context of the entry.';

CREATE TABLE archive_cursors (
    stream         text COLLATE "C" PRIMARY KEY,
    sequence       bigint NOT NULL CHECK (sequence > 0),
    stream_created text NOT NULL
) WITH (fillfactor = 70);
COMMENT ON TABLE archive_cursors IS 'Last archived message of each stream; moved by compare-and-swap in the transaction that writes the rows.';
COMMENT ON COLUMN archive_cursors.stream IS 'The stream.';
COMMENT ON COLUMN archive_cursors.sequence IS 'Sequence of its last archived message.';
COMMENT ON COLUMN archive_cursors.stream_created IS 'RFC 3339 time of creation of the stream, to the nanosecond: an identity to compare, not a time to compute with.';

CREATE TABLE archive_segments (
    stream         text COLLATE "C" NOT NULL,
    first_sequence bigint NOT NULL,
    last_sequence  bigint NOT NULL,
    object_name    text NOT NULL,
    sha256         text NOT NULL,
    row_count      bigint NOT NULL CHECK (row_count >= 0),
    first_ts       timestamptz NOT NULL,
    last_ts        timestamptz NOT NULL,
    PRIMARY KEY (stream, first_sequence),
    CHECK (first_sequence <= last_sequence),
    CHECK (first_ts <= last_ts)
);
COMMENT ON TABLE archive_segments IS 'Parts of the archive that were moved out of event_log into objects.';
COMMENT ON COLUMN archive_segments.stream IS 'The stream.';
COMMENT ON COLUMN archive_segments.first_sequence IS 'First sequence of the segment.';
COMMENT ON COLUMN archive_segments.last_sequence IS 'Last sequence of the segment.';
COMMENT ON COLUMN archive_segments.object_name IS 'Name of the object.';
COMMENT ON COLUMN archive_segments.sha256 IS 'SHA-256 of its bytes, lower-case hexadecimal.';
COMMENT ON COLUMN archive_segments.row_count IS 'Rows of event_log it holds.';
COMMENT ON COLUMN archive_segments.first_ts IS 'Earliest time of its rows.';
COMMENT ON COLUMN archive_segments.last_ts IS 'Latest time of its rows.';

CREATE FUNCTION ensure_event_log_day(day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    child text := 'event_log_p' || to_char(day, 'YYYYMMDD');
BEGIN
    -- Two writers may want the same day at once; one creates it, the other then finds it.
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
