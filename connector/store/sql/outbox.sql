-- name: add
-- Behind the newest version, as `last_version` in changelog.sql has it.
INSERT INTO outbox (after_version, topic, payload, qos, retain, content_type, correlation)
VALUES (
    max(
        coalesce((SELECT max(version) FROM change_log), 0),
        coalesce((SELECT CAST(value AS INTEGER) FROM cursor WHERE name = 'published'), 0)
    ),
    ?, ?, ?, ?, ?, ?
);

-- name: due
-- `after_version` never falls from one id to the next, so this is the order of the ids.
SELECT id, after_version, topic, payload, qos, retain, content_type, correlation
FROM outbox WHERE after_version <= :published ORDER BY after_version, id LIMIT :limit;

-- name: remove
DELETE FROM outbox WHERE id = ?;

-- name: depth
SELECT count(*) FROM outbox;
