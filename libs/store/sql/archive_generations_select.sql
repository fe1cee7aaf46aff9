SELECT stream_created, first_sequence FROM archive_generations WHERE stream = $1
ORDER BY first_sequence
