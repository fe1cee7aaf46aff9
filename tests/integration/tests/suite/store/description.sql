-- Relations, columns, constraints, indexes, views, functions and rights of the schema, sorted.
WITH relations AS (
    SELECT c.*, c.relname::text AS name FROM pg_class AS c
    WHERE c.relnamespace = 'nixfleet'::regnamespace AND NOT c.relispartition
      AND c.relkind IN ('r', 'p', 'v', 'i', 'I')
)
SELECT format('%s %s %s %s %s', name, relkind, reloptions, relacl, obj_description(oid)) AS fact FROM relations
UNION ALL
SELECT format('%s.%s %s %s %s %s %s %s %s %s', r.name, a.attname, format_type(a.atttypid, a.atttypmod),
              a.attnotnull, a.attgenerated, a.attcompression, a.attcollation::regcollation,
              pg_get_expr(d.adbin, d.adrelid), a.attacl, col_description(r.oid, a.attnum))
FROM relations AS r
JOIN pg_attribute AS a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef AS d ON d.adrelid = r.oid AND d.adnum = a.attnum
WHERE r.relkind IN ('r', 'p', 'v')
UNION ALL
SELECT format('%s %s %s', r.name, c.conname, pg_get_constraintdef(c.oid))
FROM relations AS r JOIN pg_constraint AS c ON c.conrelid = r.oid
UNION ALL
SELECT pg_get_indexdef(oid) FROM relations WHERE relkind IN ('i', 'I')
UNION ALL
SELECT name || pg_get_viewdef(oid) FROM relations WHERE relkind = 'v'
UNION ALL
SELECT format('%s %s %s', pg_get_functiondef(oid), proacl, obj_description(oid))
FROM pg_proc WHERE pronamespace = 'nixfleet'::regnamespace
ORDER BY fact
