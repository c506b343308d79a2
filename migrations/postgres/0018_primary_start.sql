-- When the primary was started whose log the standbys apply. A standby that has another time than the
-- primary has not applied the log of the primary since its start: it lags, or has another history, as one
-- has that applied transactions which a failover has lost. The table has one row.
CREATE TABLE primary_start (
    is_current boolean PRIMARY KEY DEFAULT true CHECK (is_current),
    -- Microseconds since 1970.
    started_at bigint  NOT NULL
);

-- The roles that may use the other tables may use this one, whatever the default privileges are.
DO $$
DECLARE
    privilege record;
BEGIN
    REVOKE ALL ON primary_start FROM PUBLIC;
    FOR privilege IN
        SELECT a.privilege_type AS name,
               CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END AS role
        FROM pg_class c CROSS JOIN aclexplode(c.relacl) AS a
        WHERE c.oid = 'pending_invalidations'::regclass AND a.grantee <> c.relowner
            AND a.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    LOOP
        EXECUTE format('GRANT %s ON primary_start TO %s', privilege.name, privilege.role);
    END LOOP;
END $$;
