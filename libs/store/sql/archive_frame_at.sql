-- The last frame below a sequence that covers the input up to this mark.
SELECT sequence FROM event_log
WHERE stream = $1 AND sequence < $2 AND index = -1
  AND (payload -> 'lastInput')::jsonb IS NOT DISTINCT FROM $3::text::jsonb
ORDER BY sequence DESC LIMIT 1
