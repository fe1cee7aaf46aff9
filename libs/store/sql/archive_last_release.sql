SELECT payload::text FROM event_log WHERE stream = $1 AND kind = 'release'
ORDER BY sequence DESC LIMIT 1
