INSERT INTO archive_bases (stream, first_sequence, out_seq, reference)
VALUES ($1, $2, $3, $4::text::jsonb)
ON CONFLICT (stream, first_sequence) DO NOTHING
