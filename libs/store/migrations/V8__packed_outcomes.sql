-- Outcomes are archived with their frame, as they came: a row and three index entries for each had
-- taken the server longer than everything else the archive makes it do.

ALTER TABLE event_log ADD COLUMN outcomes json;
COMMENT ON COLUMN event_log.index IS 'Place of the entry in its frame; -1 is an output frame.';
COMMENT ON COLUMN event_log.input_seq IS 'Position in the input log: an entry''s own, or the last one that an output frame covers.';
COMMENT ON COLUMN event_log.payload IS 'The entry, the message, or an output frame without its outcomes.';
COMMENT ON COLUMN event_log.outcomes IS 'The outcomes of an output frame as a JSON array, in order; null when it has none.';
COMMENT ON TABLE event_log IS 'Archive: one row per entry of an input message and per message of any other stream, one table per UTC day.';

-- Many outcomes say nearly the same. A server that was built without LZ4 takes more time for it.
DO $$
BEGIN
    ALTER TABLE event_log ALTER COLUMN outcomes SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

UPDATE event_log AS frame
SET outcomes = packed.outcomes,
    input_seq = (frame.payload #>> '{lastInput,seq}')::bigint,
    input_index = (frame.payload #>> '{lastInput,index}')::bigint
FROM (SELECT stream, sequence, ts, json_agg(payload ORDER BY index) AS outcomes
      FROM event_log
      WHERE kind IN ('accepted', 'rejected')
      GROUP BY stream, sequence, ts) AS packed
WHERE frame.stream = packed.stream AND frame.sequence = packed.sequence AND frame.ts = packed.ts
  AND frame.index = -1;
DELETE FROM event_log WHERE kind IN ('accepted', 'rejected');

CREATE INDEX event_log_frame_idx ON event_log (stream, input_seq, input_index, sequence)
    WHERE outcomes IS NOT NULL;

CREATE VIEW archive_items AS
SELECT stream,
       sequence,
       index,
       ts,
       kind,
       rollout_id,
       hostname,
       payload::json AS payload,
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
COMMENT ON VIEW archive_items IS 'Everything archived, with a row per outcome: for people and audits.';
COMMENT ON COLUMN archive_items.stream IS 'Stream the message is from.';
COMMENT ON COLUMN archive_items.sequence IS 'Sequence of the message in its stream.';
COMMENT ON COLUMN archive_items.index IS 'Place of the entry or outcome in the frame; -1 is an output frame without its outcomes.';
COMMENT ON COLUMN archive_items.ts IS 'When the stream stored the message.';
COMMENT ON COLUMN archive_items.kind IS 'What the row holds; an outcome is accepted or rejected.';
COMMENT ON COLUMN archive_items.rollout_id IS 'The rollout it is about, when it is about one.';
COMMENT ON COLUMN archive_items.hostname IS 'The host it is about, when it is about one.';
COMMENT ON COLUMN archive_items.payload IS 'The entry, the outcome or the message.';
COMMENT ON COLUMN archive_items.traceparent IS 'Trace context of the entry.';
