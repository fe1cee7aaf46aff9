-- Entries and messages are archived as they came, as outcomes are: as text that is checked but not
-- taken apart. The server takes a quarter less time for a row.

DROP VIEW archive_items;

ALTER TABLE event_log ALTER COLUMN payload TYPE json USING payload::json;

-- Rows above 2 KB are compressed. A server that was built without LZ4 takes more time for it.
DO $$
BEGIN
    ALTER TABLE event_log ALTER COLUMN payload SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    NULL;
END
$$;

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
