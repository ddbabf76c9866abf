set -eu
export PGHOST="${PGHOST:-127.0.0.1}" PGUSER="${POSTGRES_USER:-postgres}" PGPASSWORD="${POSTGRES_PASSWORD:-}"
sql() { psql --no-psqlrc --quiet --no-align --tuples-only --set=ON_ERROR_STOP=1 --dbname="$1"; }
sql template1 <<'EOF'
SELECT 'database', datname, pg_get_userbyid(datdba), datcollate, datctype, datacl FROM pg_database ORDER BY 2;
SELECT 'role', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
  rolpassword, rolvaliduntil FROM pg_authid ORDER BY 2;
SELECT 'member', pg_get_userbyid(roleid), pg_get_userbyid(member), admin_option FROM pg_auth_members ORDER BY 2, 3, 4;
SELECT 'setting of', setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 2, 3;
SELECT 'setting', name, setting FROM pg_settings WHERE source NOT IN ('session', 'client') ORDER BY 2;
EOF
echo "SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1" | sql template1 | while read -r database; do
  echo "in $database"
  # Each table's contents, as a sum that no order of rows changes.
  sql "$database" <<'EOF'
SELECT format('SELECT ''table'', %L, count(*), sum(hashtextextended(t::text, 0)) FROM %I.%I t', schemaname || '.' || tablename,
  schemaname, tablename) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
  ORDER BY schemaname, tablename \gexec
SELECT 'sequence', schemaname, sequencename, last_value, start_value, increment_by FROM pg_sequences ORDER BY 2, 3;
SELECT 'columns', table_schema, table_name, count(*), sum(hashtextextended(concat_ws('|', column_name, ordinal_position,
  column_default, is_nullable, data_type, character_maximum_length, collation_name), 0)) FROM information_schema.columns
  WHERE table_schema NOT IN ('pg_catalog', 'information_schema') GROUP BY 2, 3 ORDER BY 2, 3;
SELECT 'relation', n.nspname, c.relname, c.relkind, pg_get_userbyid(c.relowner), c.relacl, c.relrowsecurity FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname NOT LIKE 'pg_temp%'
  AND n.nspname NOT LIKE 'pg_toast_temp%' ORDER BY 2, 3;
SELECT 'index', schemaname, indexname, indexdef FROM pg_indexes WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
  ORDER BY 2, 3;
SELECT 'view', schemaname, viewname, md5(definition) FROM pg_views
  WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 2, 3;
SELECT 'constraint', n.nspname, c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint c
  JOIN pg_namespace n ON n.oid = c.connamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 2, 3, 4;
SELECT 'function', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid), md5(p.prosrc) FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 2, 3, 4;
SELECT 'trigger', tgrelid::regclass, tgname, md5(pg_get_triggerdef(oid)), tgenabled FROM pg_trigger WHERE NOT tgisinternal
  ORDER BY 2, 3;
SELECT 'extension', extname, extversion FROM pg_extension ORDER BY 2;
EOF
done
