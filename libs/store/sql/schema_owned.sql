SELECT pg_has_role(nspowner, 'USAGE') FROM pg_namespace WHERE nspname = $1
