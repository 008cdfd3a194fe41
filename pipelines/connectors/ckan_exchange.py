"""The exchange of two of CKAN's tables in one transaction, as the body of a trigger function: CKAN lets sysadmins make such functions.

CKAN itself can only append, delete and drop. A function that a row of a third table fires renames the public table away and the
staged one into its place, so who reads sees the old rows or the new ones. It waits for a moment without readers in short naps:
a search of CKAN's takes a lock on the table and then asks on another connection for the number of rows, which would stand behind
us for ever if we waited in one go. No colon stands before a letter in it, for CKAN would take that for a parameter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

#: How long one try waits for the readers before it lets them pass, how long it rests then, and how often it tries: CKAN breaks off after a minute.
TRY_MS, REST_SECONDS, TRIES = 300, 0.2, 80
#: What the function says of a table whose rows its own triggers are to see.
OWN_TRIGGERS = "the public table has triggers of its own"
#: What it says when its tries were in vain: another time they may not be.
NO_MOMENT = "its readers left no moment in which the table could be exchanged"

_BODY = """
DECLARE
    live CONSTANT text := {live};
    staged CONSTANT text := {staged};
    spare CONSTANT text := {spare};
    token CONSTANT text := {token};
    names CONSTANT jsonb := {names};
    wanted CONSTANT bigint := {rows};
    held bigint;
    tries int := 0;
    each record;
    views text[] := '{{}}';
    new_name text;
BEGIN
    IF obj_description(format('public.%I', live)::regclass, 'pg_class') = token THEN
        RETURN NEW;  -- asked a second time, for the answer to the first was lost
    END IF;
    EXECUTE format('SELECT count(*) FROM public.%I', staged) INTO held;
    IF held <> wanted THEN
        RAISE EXCEPTION 'the staged table has % rows, and % were sent', held, wanted;
    END IF;
    PERFORM 1 FROM pg_trigger WHERE tgrelid = format('public.%I', live)::regclass AND NOT tgisinternal AND tgname <> 'zfulltext';
    IF FOUND THEN
        RAISE EXCEPTION '{own_triggers}';
    END IF;
    LOOP
        BEGIN
            PERFORM set_config('lock_timeout', '{try_ms}ms', true);
            EXECUTE format('LOCK TABLE public.%I, public.%I IN ACCESS EXCLUSIVE MODE', live, staged);
            EXIT;
        EXCEPTION WHEN lock_not_available THEN
            tries := tries + 1;
            IF tries = {tries} THEN
                RAISE EXCEPTION '{no_moment}';
            END IF;
            PERFORM pg_sleep({rest});
        END;
    END LOOP;
    -- an alias is a view of the table itself, whatever its name: it is made again on the new one
    FOR each IN
        SELECT DISTINCT v.oid, v.relname, pg_get_viewdef(v.oid) AS definition,
            (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute WHERE attrelid = v.oid AND attnum > 0)
            = (SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute WHERE attrelid = format('public.%I', live)::regclass
                AND attnum > 0 AND NOT attisdropped) AS is_alias
        FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid JOIN pg_class v ON v.oid = r.ev_class
        WHERE d.refobjid = format('public.%I', live)::regclass AND v.relkind = 'v'
    LOOP
        EXECUTE format('DROP VIEW public.%I', each.relname);
        views := array_append(views, format('CREATE VIEW public.%I AS ', each.relname)
            || CASE WHEN each.is_alias THEN format('SELECT * FROM public.%I', live) ELSE each.definition END);
    END LOOP;
    EXECUTE format('ALTER TABLE public.%I RENAME TO %I', live, spare);
    EXECUTE format('ALTER TABLE public.%I RENAME TO %I', staged, live);
    EXECUTE format('ALTER TABLE public.%I RENAME TO %I', spare, staged);
    EXECUTE format('COMMENT ON TABLE public.%I IS %L', live, token);
    FOR each IN SELECT unnest(views) AS made LOOP
        EXECUTE each.made;
    END LOOP;
    -- CKAN knows an index by its name, which it makes of the table's: without their names it would make them all again
    FOR each IN
        SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = format('public.%I', live)::regclass AND names ? c.relname
    LOOP
        new_name := names ->> each.relname;
        IF to_regclass(format('public.%I', new_name)) IS NOT NULL THEN
            EXECUTE format('ALTER INDEX public.%I RENAME TO %I', new_name, md5(token || new_name));
        END IF;
        EXECUTE format('ALTER INDEX public.%I RENAME TO %I', each.relname, new_name);
    END LOOP;
    -- where CKAN keeps the number of rows, it is the new table's from the same moment on
    IF to_regclass('public._table_stats') IS NOT NULL THEN
        DELETE FROM public._table_stats WHERE resource_id IN (live::name, staged::name);
        INSERT INTO public._table_stats VALUES (live::name, jsonb_build_object('rows', held));
    END IF;
    RETURN NEW;
END;
"""


def function(live: str, staged: str, token: str, rows: int, columns: Mapping[str, str], key: Iterable[str], language: str) -> str:
    """The body of the function that exchanges the tables of two resources, once for each `token`; `rows` are what the staged one must have.

    `columns` maps the new table's columns to the portal's types.
    """
    names = {index_name(staged, fields): index_name(live, fields) for fields in indexed(columns, tuple(key), language)}
    return _BODY.format(
        live=_text(live),
        staged=_text(staged),
        spare=_text(f"odo_{hashlib.md5(live.encode(), usedforsecurity=False).hexdigest()}"),
        token=_text(token),
        names=_text(json.dumps(names)),
        rows=int(rows),
        own_triggers=OWN_TRIGGERS,
        no_moment=NO_MOMENT,
        try_ms=TRY_MS,
        rest=REST_SECONDS,
        tries=TRIES,
    )


def indexed(columns: Mapping[str, str], key: tuple[str, ...], language: str) -> Iterable[str]:
    """What CKAN may have indexed of a table, as it writes it: the full text, each column's text, the key."""
    quoted = {name: '"' + name.replace('"', '""') + '"' for name in columns}
    yield '"_full_text"'
    for name, kind in columns.items():
        text = quoted[name] if kind == "text" else f"cast({quoted[name]} AS text)"
        yield f"to_tsvector('{language}', {text})"
    if key:
        yield ", ".join(f"(({quoted[name]}).json::text)" if columns[name] == "json" else quoted[name] for name in key)


def index_name(resource: str, fields: str) -> str:
    """CKAN's name of an index."""
    return hashlib.sha1((resource + fields).encode(), usedforsecurity=False).hexdigest()


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
