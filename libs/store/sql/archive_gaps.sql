SELECT sequence + 1, following - 1
FROM (SELECT sequence, lead(sequence) OVER (ORDER BY sequence) AS following
      FROM event_log
      WHERE stream = $1) AS pairs
WHERE following > sequence + 1
ORDER BY sequence
