"""What is in the audit cannot be changed or deleted, not even by our own code: the database refuses."""

from django.db import migrations

FORWARD = """
CREATE FUNCTION catalog_auditentry_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit entries are written once: % is refused', TG_OP USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER catalog_auditentry_written_once BEFORE UPDATE OR DELETE ON catalog_auditentry
    FOR EACH ROW EXECUTE FUNCTION catalog_auditentry_refuse();
"""
BACKWARD = """
DROP TRIGGER catalog_auditentry_written_once ON catalog_auditentry;
DROP FUNCTION catalog_auditentry_refuse();
"""


class Migration(migrations.Migration):
    dependencies = [("catalog", "0001_initial")]
    operations = [migrations.RunSQL(FORWARD, BACKWARD)]
