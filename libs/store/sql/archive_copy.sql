COPY event_log (stream, sequence, index, subject, ts, kind, rollout_id, hostname, input_seq,
                input_index, payload, traceparent, outcomes)
FROM STDIN (FORMAT binary)
