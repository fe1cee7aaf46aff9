-- One lock per schema; held until the session ends.
SELECT pg_advisory_lock(hashtextextended('nixfleet migrate ' || $1::text, 0))
