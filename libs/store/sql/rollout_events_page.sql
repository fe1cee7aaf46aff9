-- Entries, each with what the first frame that covers it says of it. A frame is unpacked once.
WITH page AS MATERIALIZED (
    SELECT rollout_id, input_seq, input_index, ts, kind, hostname, payload, traceparent
    FROM event_log
    WHERE rollout_id = $1 AND (input_seq, input_index) > ($2, $3)
    ORDER BY input_seq, input_index
    LIMIT $4
), frames AS MATERIALIZED (
    SELECT DISTINCT frame.sequence, frame.ts
    FROM page
    CROSS JOIN LATERAL (
        SELECT covering.sequence, covering.ts
        FROM event_log AS covering
        WHERE covering.stream = $5 AND covering.outcomes IS NOT NULL
          AND (covering.input_seq, covering.input_index) >= (page.input_seq, page.input_index)
        ORDER BY covering.input_seq, covering.input_index, covering.sequence
        LIMIT 1
    ) AS frame
), verdicts AS MATERIALIZED (
    SELECT item.outcome #>> '{position,seq}' AS seq, item.outcome #>> '{position,index}' AS index,
           item.outcome::text AS outcome
    FROM frames
    JOIN event_log AS frame ON frame.stream = $5 AND frame.sequence = frames.sequence
                           AND frame.ts = frames.ts
    CROSS JOIN LATERAL json_array_elements(frame.outcomes) AS item (outcome)
)
SELECT DISTINCT ON (page.input_seq, page.input_index)
       page.rollout_id, page.input_seq, page.input_index, page.ts, page.kind, page.hostname,
       page.payload::text, verdicts.outcome, page.traceparent
FROM page
LEFT JOIN verdicts ON verdicts.seq = page.input_seq::text AND verdicts.index = page.input_index::text
ORDER BY page.input_seq, page.input_index
